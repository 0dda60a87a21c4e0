"""The metrics: what each is, in which unit, from where to where, and whether more of it is better.

The table in docs/metrics.md is made from this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_VBENCH = "Huang et al. 2024, VBench"
_DIS = "optical flow: Kroeger et al. 2016 (DIS)"
_OWN = "of this package"


@dataclass(frozen=True)
class Metric:
    """One number of a clip.

    Attributes:
        name: its column in the table of runs is metric_<name>.
        title: in a plot.
        formula: what is computed, in words and symbols.
        unit: "" where it has none.
        low, high: its range.
        better: whether more is better; None if it only says how much.
        source: where it comes from.
        proxy: whether it replaces a metric that needs a learned network.
        note: what else to know when reading it.
    """

    name: str
    title: str
    formula: str
    unit: str
    low: float
    high: float
    better: bool | None
    source: str
    proxy: bool = False
    note: str = ""

    @property
    def label(self) -> str:
        """Title and unit, for an axis of a plot."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def arrow(self) -> str:
        """In words: which side is better."""
        return {True: "more is better", False: "less is better", None: "says how much"}[self.better]


_INF = math.inf
_ALL = (
    Metric(
        "temporal_flickering", "temporal flickering", "(255 - mean |f_k+1 - f_k|) / 255 over all pixels and channels",
        "", 0, 1, True, _VBENCH, note="1 is no change at all: a frozen clip has the best value, so read it beside motion",
    ),
    Metric(
        "motion", "motion", "mean length of the flow f_k -> f_k+1", "px/frame", 0, _INF, None, _DIS,
        note="flow finds displacements up to about a sixth of the short side a frame",
    ),
    Metric("motion_top5", "motion, fastest 5 %", "mean length of the longest 5 % of the flow, the mean over frames", "px/frame", 0, _INF,
           None, f"as the dynamic degree of {_VBENCH}, there with RAFT", proxy=True),
    Metric("motion_relative", "motion, relative", "motion over the short side", "% of the short side/frame", 0, _INF, None, _DIS),
    Metric("motion_top5_relative", "fastest 5 %, relative", "motion_top5 over the short side", "% of the short side/frame", 0, _INF, None,
           f"as the dynamic degree of {_VBENCH}, there with RAFT", proxy=True),
    Metric(
        "scene_right", "scene moves right", "r of the fit: flow = (r, d) + z (x, y) + t (-y, x), weighted least squares",
        "px/frame", -_INF, _INF, None, _OWN, note="below 0 it moves to the left, as it does where the camera pans to the right",
    ),
    Metric("scene_down", "scene moves down", "d of the same fit", "px/frame", -_INF, _INF, None, _OWN,
           note="below 0 it moves up, as it does where the camera pans down"),
    Metric("scene_zoom", "scene grows", "z of the same fit: half the divergence of the flow", "%/frame", -_INF, _INF, None, _OWN,
           note="above 0 the camera zooms in"),
    Metric("scene_turn", "scene turns clockwise", "t of the same fit: half the curl of the flow", "degrees/frame", -_INF, _INF, None, _OWN,
           note="above 0 the camera turns counterclockwise"),
    Metric(
        "smoothness", "motion smoothness", "(255 - mean |f_k - g_k|) / 255 over odd k, g_k from f_k-1 and f_k+1 moved half-way along "
        "the flow between them", "", 0, 1, True, f"as motion smoothness of {_VBENCH}, there with the network AMT", proxy=True,
    ),
    Metric(
        "warping_error", "warping error", "root mean square of f_k - f_k+1 moved back along the flow, where forward and backward flow agree",
        "grey levels", 0, 255, False, "Lai et al. 2018, there with FlowNet2; mask: Sundaram et al. 2010", proxy=True,
    ),
    Metric("input_ssim", "first frame against the input", "SSIM of the first frame and the crop that the clip was made from, grey", "", -1, 1, True,
           "Wang et al. 2004 (Gaussian window, 1.5 px)"),
    Metric("input_psnr", "first frame against the input", "10 log10(255² / mean (f_0 - crop)²)", "dB", 0, 100, True, "usual",
           note="100 where they are equal"),
    Metric(
        "drift_ssim", "kept of the first frame", "mean over up to 8 frames k, the last among them, of the SSIM of f_0 and f_k moved back "
        "along the flow, where both show the same", "", -1, 1, True, _OWN, proxy=True, note="replaces learned subject and background "
        "consistency; frames that show less than a tenth of the first are left out",
    ),
    Metric("sharpness", "sharpness", "variance of the Laplacian of the grey frame, the mean over frames", "grey levels²", 0, _INF, True,
           "Pech-Pacheco et al. 2000", note="compare only clips of one size and picture; noise counts as sharp"),
    Metric("sharpness_loss", "sharpness lost", "1 - sharpness of the last frame / that of the first", "", -_INF, 1, False, _OWN,
           note="below 0 the last frame is sharper"),
    Metric("frozen_frames", "longest standstill", "longest run of frames like the one before, over all frames but the first", "", 0, 1, False,
           "as FFmpeg's freezedetect (mean difference below 0.001)"),
    Metric("repeated_frames", "repeated frames", "share of frames like the one before", "", 0, 1, False,
           "as FFmpeg's freezedetect (mean difference below 0.001)"),
    Metric("black_frames", "black frames", "share of frames with 98 % of the pixels below a tenth of white", "", 0, 1, False,
           "as FFmpeg's blackdetect"),
    Metric(
        "prompt_agreement", "agreement of motion with the prompt", "mean over frames of the cosine between the fitted field and that of the "
        "named camera movement; stillness: 1 - length of the fitted field / 0.2 % of the short side", "", -1, 1, True, _OWN, proxy=True,
        note="1 as asked, 0 unrelated or no motion, -1 the opposite; missing where the prompt names no direction, zoom or stillness",
    ),
    Metric("subject_consistency", "subject consistency, CLIP", "mean over k > 0 of (max(0, cos(c_k, c_0)) + max(0, cos(c_k, c_k-1))) / 2, "
           "c_k the embedding of f_k", "", 0, 1, True, f"{_VBENCH}, there with DINO", proxy=True,
           note="only where a model with an image encoder is given"),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric, by name, in the order of the tables."""


def markdown() -> str:
    """The table of the docs."""
    rows = ["| Metric | Formula | Unit | Range | | Source |", "|---|---|---|---|---|---|"]
    for metric in _ALL:
        ends = ["" if math.isinf(end) else f"{end:g}" for end in (metric.low, metric.high)]
        extent = (
            f"{ends[0]} to {ends[1]}" if all(ends) else f"{ends[0]} and up" if ends[0] else f"up to {ends[1]}" if ends[1] else "any"
        )
        source = f"proxy, {metric.source}" if metric.proxy else metric.source
        # A bar would end the cell.
        formula = metric.formula.replace("|", "\\|") + (f". {metric.note[0].upper()}{metric.note[1:]}" if metric.note else "")
        rows.append(f"| `{metric.name}` | {formula} | {metric.unit} | {extent} | {metric.arrow} | {source} |")
    return "\n".join(rows) + "\n"
