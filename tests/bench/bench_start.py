"""How long it takes to import the package, to show the help, and to a first clip from a cold start. Prints; asserts nothing.

    python tests/bench/bench_start.py [REPEATS]

Each figure is the median over new processes, taken in turn, and its ratio to `import torch` in the same run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

CLIP = ["-m", "i2v_lab", "generate", "--force", "--image", "sample:coffee", "--prompt", "zoom in"]
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import i2v_lab": ["-c", "import i2v_lab"],
    "i2v-lab --help": ["-m", "i2v_lab", "--help"],
    "a clip at 256p (16 frames, 50 steps)": [*CLIP, "--resolution", "256p"],
    "a clip at 512p (16 frames, 50 steps)": [*CLIP, "--resolution", "512p"],
}


def main(repeats: int) -> None:
    """Time every command `repeats` times, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for name, arguments in COMMANDS.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - began)
    unit = statistics.median(seconds["import torch"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:40} {median:6.2f} s   {median / unit:5.2f} x import torch   (median of {repeats})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
