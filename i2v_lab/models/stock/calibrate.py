"""The ratios of MagCache, measured once: how much larger what a network's blocks add is than in the step before, step by step.

They decide pixels. So they come of a clip that a run's key decides: the same one for every picture, prompt, seed and guidance. What is
measured is kept on disk, in the folder of predictions; without that folder it is measured again, with the same result.

On small random networks the picture, the prompt and guidance change the ratios by about 0.001 or less, another scheduler or flow_shift by
0.017, another size, length or seed by 0.004 to 0.009: so all but the first three are those of the clip, or fixed.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from i2v_lab.clip.levers import steps_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.models.levers import Clock, measured_ratios
from i2v_lab.models.memory.cost_cache import kept
from i2v_lab.models.sampling import calls_of
from i2v_lab.models.stock import lora

# The clip that is measured: a picture of the package, and words that move something in it.
MEASURED = {"image": "sample:coffee", "prompt": "steam rises from the cup, the camera moves slowly", "seed": 0}
GUIDANCE = ("guidance_scale", "guidance_scale_2", "true_cfg_scale")
UNIT = 10_000  # ratios are kept in so many parts: finer ones differ between machines
STAGE = "calibrate"


def calibrated(model: Any, params: ClipParams, progress: Progress) -> tuple[float, ...]:
    """The ratio of each step of such clips; the first time it takes a run without the cache, as the stage "calibrate".

    Args:
        model: a PipelineModel, which itself calls this.

    Raises:
        Stop: from a listener; then nothing is kept.
    """
    plain = measured_clip(params, model.presets["standard"])
    found = kept(_key(model, plain), lambda: _measure(model, plain, progress))
    return tuple(found[str(step)] / UNIT for step in range(len(found)))


def measured_clip(params: ClipParams, standard: Mapping[str, Any]) -> ClipParams:
    """The clip whose run gives the ratios for a clip; `standard` is the family's preset, which has its guidance."""
    guided = [name for name in GUIDANCE if (getattr(params, name) or 0) > 1 and name in standard]
    more = {name: standard[name] for name in (*guided, "negative_prompt") if name in standard}
    return params.replace(**MEASURED, **more, cache=None, guidance_interval=None)


def _key(model: Any, plain: ClipParams) -> list[Any]:
    by_content = lora.by_content(plain)
    versions = [importlib.metadata.version(package) for package in ("torch", "diffusers")]
    fields = {name: value for name, value in (by_content or plain).plain().items() if name not in ("fps", "model", "dtype")}
    return ["mag", model.name, model.fingerprint, model.dtype, model.device.partition(":")[0], versions, fields]


def _measure(model: Any, plain: ClipParams, progress: Progress) -> dict[str, int]:
    steps = steps_of(plain, calls_of(plain))
    found: dict[int, list[float]] = {}

    def hooked(networks: list[Any], clock: Clock) -> Any:
        return measured_ratios(networks, clock, found)

    model.run(open_picture(plain.image), plain, _Calibrating(progress), Clock(steps), hooked, output="latent")
    return {str(step): round(UNIT * fmean(found.get(step, [1.0]))) for step in range(len(steps))}


class _Calibrating(Progress):
    """Shows the stages of a run as one, "calibrate"."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def stage(self, name: str, total: int | None = None) -> None:
        self.progress.stage(STAGE, total)

    def step(self, preview: Preview | None = None) -> None:
        self.progress.step()

    def pulse(self) -> None:
        self.progress.pulse()
