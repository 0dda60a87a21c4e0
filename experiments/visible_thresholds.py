"""How much each metric changes where hardly anybody sees a difference: between a clip and its copy by x264 at CRF 23, its default.

    python experiments/visible_thresholds.py

The largest change of 12 clips of the closed-form model; metrics/visible.py has these figures, rounded up.
"""

from __future__ import annotations

import subprocess
import tempfile
from itertools import product
from pathlib import Path

from imageio_ffmpeg import get_ffmpeg_exe

from i2v_lab import ClipParams, Store, run_clip
from i2v_lab.metrics import METRICS, measure


def main() -> None:
    changes: dict[str, list[tuple[float, float]]] = {name: [] for name in METRICS}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for image, prompt, guidance in product(("coffee", "cat", "motorcycle"), ("camera panning left", "ocean waves"), (1.0, 9.0)):
            params = ClipParams(image=f"sample:{image}", prompt=prompt, guidance_scale=guidance, resolution="256p")
            clip = store.directory / run_clip(params, None, store).clip
            copy = Path(folder) / "copy.mp4"
            encode = ["-c:v", "libx264", "-crf", "23", "-map_metadata", "0", "-movflags", "use_metadata_tags"]
            subprocess.run([get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(clip), *encode, str(copy)], check=True)
            before, after = measure(clip, prompt=prompt, store=store), measure(copy, prompt=prompt, store=store)
            for name in METRICS:
                one, other = before.values.get(name), after.values.get(name)
                if one is not None and other is not None:
                    changes[name].append((abs(one - other), abs(one - other) / max(abs(one), 1e-9)))
    for name, found in changes.items():
        if found:
            print(f"{name}: {max(change for change, _ in found):.2g} ({max(share for _, share in found):.0%})")


if __name__ == "__main__":
    main()
