"""A workbench for finding out what the parameters of an image-to-video model do.

    from i2v_lab import ClipParams, run_clip, runs
    record = run_clip(ClipParams(image="sample:coffee", prompt="camera panning left slowly"))
    runs()

The names below are the whole public door; each is imported when it is first used, so that importing the package loads
neither torch nor widgets.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "clip.params": ["Advice", "ClipParams"],
    "clip.picture": ["open_picture"],
    "clip.progress": ["Progress", "StopSwitch"],
    "clip.record": ["RunRecord"],
    "clip.video": ["read_settings"],
    "cost": ["plan"],
    "errors": ["I2VLabError"],
    "metrics": ["measure"],
    "models": ["advice"],
    "run": ["run_clip", "runs"],
    "server.client": ["Client"],
    "settings": ["load_settings"],
    "store": ["Store"],
    "widgets.compare": ["compare"],
    "widgets.studio": ["Studio"],
})  # fmt: skip
