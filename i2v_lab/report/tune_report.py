"""The report of a tune: the search is run here, then papermill executes notebooks/tune.ipynb, which finds its clips made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from i2v_lab.report.notebook import check_notebook, make_report, shipped
from i2v_lab.report.tune_sentences import sentences
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import SweepProgress, SweepStop
from i2v_lab.sweep.tune import Tune, TuneResult, run_tune

PARAMETERS = ("tune", "output_dir", "make", "device")  # of the notebook, all of them texts


@dataclass(frozen=True)
class TuneReport:
    """What is left of a tune after its search, and after its notebook.

    Attributes:
        lines: what it came to, in sentences, English.
        html: the page; None where there is none. problem: what failed of the notebook; "" where nothing did.
    """

    result: TuneResult
    lines: tuple[str, ...] = ()
    html: Path | None = None
    problem: str = ""


def execute(
    tune: Tune,
    store: Store,
    settings: Settings,
    *,
    progress: SweepProgress | None = None,
    stop: SweepStop | None = None,
    make: bool = True,
    report: bool = True,
) -> TuneReport:
    """Search in this process, and make the report in a kernel.

    Args:
        progress, stop, make: as for run_tune. report: False: no notebook is executed.

    Raises:
        SweepError: the tune is wrong, or no setting can meet the limits; nothing was made.
    """
    stop = stop or SweepStop()
    book = shipped("notebooks/tune.ipynb") if report else None
    if book:
        check_notebook(book, PARAMETERS)
    result = run_tune(tune, store, settings=settings, progress=progress, stop=stop, make=make)
    problem, html = "", None
    if book and result.sweeps and not stop.after and result.folder.is_dir():
        given = dict(zip(PARAMETERS, (result.tune.to_yaml(), str(store.directory), "no", settings.device), strict=True))
        problem, html = make_report(book, result.folder, given, stop)
    return TuneReport(result, tuple(line.en for line in sentences(result)), html, problem)
