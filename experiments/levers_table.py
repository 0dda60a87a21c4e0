"""The table of docs/levers.md: what a guidance interval, few steps and other schedulers cost on the closed-form model.

    python experiments/levers_table.py           # prints it as Markdown
    python experiments/levers_table.py --docs    # puts it into docs/levers.md
    python experiments/levers_table.py --output-dir results    # of clips that are there; the missing ones are made

It makes the 162 clips of experiments/levers.yaml and compares them. Without --output-dir they are made in a folder that is
removed at the end, so that their seconds are of now: run it while nothing else runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from i2v_lab import Store
from i2v_lab.statistics import prices
from i2v_lab.sweep import open_sweep, run_sweep
from i2v_lab.sweep.prices import priced_axes, with_prices

AGREEMENT = "metric_prompt_agreement"
DOCS = Path(__file__).parents[1] / "docs" / "levers.md"


def main() -> None:
    """Run the sweep, and print the table or put it into the docs."""
    parser = argparse.ArgumentParser(description="What levers cost on the closed-form model: the table of docs/levers.md.")
    parser.add_argument("--output-dir", type=Path, help="where clips are kept and looked for; by default they are all made now")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/levers.md")
    given = parser.parse_args()
    if given.output_dir:
        lines = table(given.output_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            lines = table(Path(folder))
    if not given.docs:
        print("\n".join(lines))
        return
    text = DOCS.read_text(encoding="utf-8")
    begin = text.index(lines[0])
    DOCS.write_text(text[:begin] + "\n".join(lines) + text[text.index("\n\n", begin) :], encoding="utf-8")
    print(f"{DOCS}: the table is replaced; say above it whether other work ran meanwhile", file=sys.stderr)


def table(folder: Path) -> list[str]:
    """The lines of the table, of clips in this output folder; those that are missing are made."""
    sweep = open_sweep(Path(__file__).with_name("levers.yaml"))
    result = run_sweep(sweep, Store(folder))
    clips = result.table()
    along = priced_axes(result.axes, sweep.reference)
    found = prices(with_prices(clips, result.axes, sweep.reference, result.folder), along)
    settings = clips.groupby([clips[axis].astype(str) for axis in along])
    agreement, seconds = settings[AGREEMENT].mean(), settings["seconds_denoise"].median()
    lines = ["| " + " | ".join([*along, "agreement", "VMAF", "PSNR, dB", "motion kept", "denoise, s"]) + " |"]
    lines.append("|" + "---|" * (len(along) + 5))
    reference = tuple(str(sweep.reference[axis]) for axis in along)
    rows = [(reference, "reference", "reference", "reference")]
    for row in found.to_dict("records"):
        figures = [
            f"{row[name]:.4g} ({row[f'{name}_low']:.4g} to {row[f'{name}_high']:.4g})" for name in ("vmaf", "psnr", "motion_kept")
        ]
        rows.append((tuple(str(row[axis]) for axis in along), *figures))  # type: ignore[arg-type]
    for key, *texts in rows:
        cells = [*key, f"{agreement.loc[key]:.3f}", *texts, f"{seconds.loc[key]:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
