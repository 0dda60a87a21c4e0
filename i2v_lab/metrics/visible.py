"""From which change on a difference in a metric may be seen by looking at the clips."""

from __future__ import annotations

from i2v_lab.metrics.registry import MARKS

_COPY = (
    "a copy by x264 at CRF 23, in which hardly anybody sees a difference, changes it by less (experiments/visible_thresholds.py)"
)

_FLOW = "and optical flow is up to 2 % off between sizes of one clip"

# {metric: (amount in its unit, share of its value, why)}: the larger of the two counts.
VISIBLE: dict[str, tuple[float, float, str]] = {
    **{
        name: (amount, 0.0, _COPY)
        for name, amount in {
            "temporal_flickering": 0.002, "smoothness": 0.0006, "warping_error": 0.3, "input_ssim": 0.025, "input_psnr": 5.0,
            "drift_ssim": 0.01, "sharpness_loss": 0.12,
        }.items()
    },
    **{
        name: (amount, 0.03, f"{_COPY}, {_FLOW}")
        for name, amount in {
            "motion": 0.06, "motion_top5": 0.4, "scene_right": 0.03, "scene_down": 0.06, "scene_zoom": 0.1, "scene_turn": 0.05,
        }.items()
    },
    "sharpness": (0.0, 0.1, _COPY),
    "prompt_agreement": (0.01, 0.0, "a direction that is 8 degrees off"),
    "subject_consistency": (0.01, 0.0, "not measured"),
    **dict.fromkeys(MARKS, (0.06, 0.0, "less than one frame of sixteen")),
}  # fmt: skip


def visible_from(metric: str, value: float) -> float:
    """The least change, in the metric's unit, that may be seen; 0 for a metric that is not known.

    Args:
        metric: its name. value: about how large it is.
    """
    amount, share, _ = VISIBLE.get(metric, (0.0, 0.0, ""))
    return max(amount, share * abs(value))
