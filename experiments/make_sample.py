"""Make results/sample/, the small sweep that is in the repository: report.html, grid.mp4, table.csv and sweep.yaml.

    python experiments/make_sample.py

Run it from the root of the repository after a change of the closed-form model or of the report. The sweep is run in a
temporary folder. The four files are copied only where no text of them names this machine, and where they are small enough.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pandas as pd

from i2v_lab.report.notebook import execute
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import load_sweep

HERE = Path(__file__).resolve().parent
FILES = ("report.html", "grid.mp4", "table.csv", "sweep.yaml")
MOST_BYTES = 2_500_000  # of all files together


def portable_table(table: pd.DataFrame, directory: Path) -> pd.DataFrame:
    """The table without what belongs to this machine: clips are relative to the output folder, host and process are empty."""
    clips = [os.path.relpath(clip, directory) for clip in table["clip"]]
    return table.assign(clip=clips, host="", pid=pd.NA)


def traces(files: list[Path], words: list[str]) -> list[str]:
    """Which of the words are in which files."""
    return [f"{file.name} holds {word!r}" for file in files for word in words if word and word.encode() in file.read_bytes()]


def main() -> int:
    """Make the sample. Returns the exit code."""
    target = HERE.parent / "results" / "sample"
    with tempfile.TemporaryDirectory(prefix="i2v-lab-sample-") as folder:
        store = Store(Path(folder) / "results")
        (made,) = execute([load_sweep(HERE / "sample.yaml")], store, Settings())
        result = made.result
        if made.problem or not result.complete:
            print(f"the sample was not made: {made.problem or result.counts}", file=sys.stderr)
            return 1
        portable_table(result.table(), store.directory).to_csv(result.folder / "table.csv", index=False)
        files = [result.folder / name for name in FILES]
        user = getpass.getuser()
        host = socket.gethostname()
        # A short host name is a part of many words.
        found = traces(files, [folder, str(HERE.parent), f"{Path.home()}{os.sep}", f"/{user}/", host if len(host) > 6 else ""])
        size = sum(file.stat().st_size for file in files)
        if found or size > MOST_BYTES:
            sizes = ", ".join(f"{file.name} {file.stat().st_size / 1e6:.2f}" for file in files)
            print(f"the sample was not copied: {size / 1e6:.2f} MB of at most {MOST_BYTES / 1e6:g} ({sizes})", file=sys.stderr)
            print("\n".join(found), file=sys.stderr)
            return 1
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, target / file.name)
            print(f"{target / file.name}: {file.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
