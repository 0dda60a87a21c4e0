"""The table of docs/levers.md: what a guidance interval, few steps and other schedulers cost on the closed-form model.

    python experiments/levers_table.py

It runs experiments/levers.yaml (162 clips, some minutes the first time) and prints Markdown.
"""

from __future__ import annotations

from pathlib import Path

from i2v_lab import Store, load_settings
from i2v_lab.statistics import prices
from i2v_lab.sweep import open_sweep, run_sweep
from i2v_lab.sweep.prices import priced_axes, with_prices

AGREEMENT = "metric_prompt_agreement"


def main() -> None:
    """Run the sweep, and print the table."""
    sweep = open_sweep(Path(__file__).with_name("levers.yaml"))
    store = Store(load_settings().output.directory)
    result = run_sweep(sweep, store)
    table = result.table()
    along = priced_axes(result.axes, sweep.reference)
    found = prices(with_prices(table, result.axes, sweep.reference, result.folder), along)
    means = table.groupby([table[axis].astype(str) for axis in along])[[AGREEMENT, "seconds_denoise"]].mean()
    print("| " + " | ".join([*along, "agreement", "VMAF", "PSNR, dB", "motion kept", "denoise, s"]) + " |")
    print("|" + "---|" * (len(along) + 5))
    reference = tuple(str(sweep.reference[axis]) for axis in along)
    rows = [(reference, "reference", "reference", "reference")]
    for row in found.to_dict("records"):
        figures = [
            f"{row[name]:.4g} ({row[f'{name}_low']:.4g} to {row[f'{name}_high']:.4g})" for name in ("vmaf", "psnr", "motion_kept")
        ]
        rows.append((tuple(str(row[axis]) for axis in along), *figures))  # type: ignore[arg-type]
    for key, *texts in rows:
        agreement, seconds = means.loc[key, :]
        cells = [*key, f"{agreement:.3f}", *texts, f"{seconds:.3f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
