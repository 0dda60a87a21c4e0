"""How long it takes to import the package, to show the help, and to a first clip from a cold start. Prints; asserts nothing.

    python tests/bench/bench_start.py [REPEATS] [TREE ...]

Each figure is the median over new processes, and its ratio to `import torch` in the same run. With two trees (the folders of two
versions of this repository) each command is run in one and then in the other, so that before and after have the same conditions.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLIP = ["-m", "i2v_lab", "generate", "--force", "--image", "sample:coffee", "--prompt", "zoom in"]
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import i2v_lab": ["-c", "import i2v_lab"],
    "i2v-lab --help": ["-m", "i2v_lab", "--help"],
    "a clip at 256p (16 frames, 50 steps)": [*CLIP, "--resolution", "256p"],
    "a clip at 512p (16 frames, 50 steps)": [*CLIP, "--resolution", "512p"],
}
HERE = Path(__file__).parents[2]


def _seconds(arguments: list[str], tree: Path) -> float:
    """Of one new process, in a folder without results."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], cwd=folder, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(tree)}
        )
        return time.perf_counter() - began


def main(repeats: int, trees: list[Path]) -> None:
    """Time every command in every tree `repeats` times, in turn, and print the medians."""
    seconds: dict[tuple[str, Path], list[float]] = {(name, tree): [] for name in COMMANDS for tree in trees}
    for _ in range(repeats):
        for (name, tree), values in seconds.items():
            values.append(_seconds(COMMANDS[name], tree))
    for tree in trees:
        if len(trees) > 1:
            print(tree)
        unit = statistics.median(seconds["import torch", tree])
        for name in COMMANDS:
            median = statistics.median(seconds[name, tree])
            print(f"{name:40} {median:6.2f} s   {median / unit:5.2f} x import torch   (median of {repeats})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, [Path(word).absolute() for word in sys.argv[2:]] or [HERE])
