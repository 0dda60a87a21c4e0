"""A sweep as a notebook: papermill executes notebooks/sweep.ipynb, and what comes of it is the sweep's report.

The kernel does the work; this process only starts it and looks at what it writes down of its progress.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.errors import I2VLabError, SweepError
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Standing, Sweep, open_folder
from i2v_lab.sweep.loop import retry_states
from i2v_lab.sweep.progress import PROGRESS_FILE, read_standing

if TYPE_CHECKING:
    from i2v_lab.report.engine import Kernel

log = logging.getLogger(__name__)

REPORT, HTML = "report.ipynb", "report.html"
LOOK_SECONDS = 0.2  # between two looks at the progress of the kernel


@dataclass(frozen=True)
class Report:
    """What the execution of one sweep left.

    Attributes:
        sweep: the sweep. folder: its folder, absolute; report.ipynb is in it.
        html: the page beside it; None where it could not be made: `problem` says why.
        counts: {status: cells}.
        problem: what failed of the notebook itself; "" where nothing did.
    """

    sweep: Sweep
    folder: Path
    html: Path | None
    counts: dict[str, int]
    problem: str = ""


def template() -> Path:
    """The notebook that is executed; never written to.

    Raises:
        SweepError: the package was installed without it.
    """
    here = Path(__file__).resolve().parent.parent
    for place in (here / "notebooks", here.parent / "notebooks"):  # of a wheel; of a checkout
        if (place / "sweep.ipynb").is_file():
            return place / "sweep.ipynb"
    raise SweepError(f"notebooks/sweep.ipynb is missing beside {here}: install i2v_lab again")


def parameters(sweep: Sweep, store: Store, retry: str = "", device: str = "") -> dict[str, str]:
    """What the notebook is given: its cell `parameters` has these names, and no others."""
    return {"sweep": sweep.to_yaml(), "output_dir": str(store.directory), "retry": retry, "device": device}


def execute(
    sweeps: Sequence[Sweep],
    store: Store,
    settings: Settings,
    *,
    retry: str = "",
    notebook: Path | None = None,
    watch: Callable[[Path, Standing | None], bool] = lambda folder, standing: True,
) -> list[Report]:
    """Execute the notebook once for each sweep, all in one kernel, so that a model is loaded once.

    Args:
        retry: as for run_sweep.
        notebook: another template than the one that comes with the package.
        watch: called several times a second with the folder of the sweep that runs, and where it stands. Returns whether
            to go on with the sweeps after this one. What it raises ends the kernel.

    Returns:
        A report each, of those sweeps that were begun. A notebook that failed is saved as far as it came.

    Raises:
        SweepError: the template, its parameters or a sweep is wrong; nothing was run.
    """
    retry_states(retry)
    path = notebook or template()
    sweeps = [sweep.with_default_model(settings.model) for sweep in sweeps]
    given = [parameters(sweep, store, retry, settings.device) for sweep in sweeps]
    _check(path, given)
    folders = [open_folder(sweep, store, settings) for sweep in sweeps]
    for folder in folders:
        (folder / PROGRESS_FILE).unlink(missing_ok=True)  # of an earlier run
    work = _Work(path, given, folders)
    work.start()
    try:
        while work.is_alive():
            work.join(LOOK_SECONDS)
            folder = folders[min(work.at, len(folders) - 1)]
            work.go_on = watch(folder, read_standing(folder))
    finally:
        work.end()
    if work.error:
        raise work.error
    return [
        Report(sweep, folder, _export(folder), store.cell_counts(folder.name), problem)
        for sweep, folder, problem in zip(sweeps, folders, work.problems, strict=False)  # fewer, where it was stopped
    ]


def _check(path: Path, given: Sequence[dict[str, str]]) -> None:
    import nbformat

    from i2v_lab.report.engine import check_parameters

    try:
        found = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise SweepError(f"{path}: expected a Jupyter notebook, got {str(error)[:200]}") from None
    for values in given:
        try:
            check_parameters(found, values)
        except SweepError as error:
            raise SweepError(f"{path}: {error}") from None


class _Work(threading.Thread):
    """Executes the notebooks. A thread of its own, since nbclient would take the signals of the main one."""

    def __init__(self, path: Path, given: Sequence[dict[str, str]], folders: Sequence[Path]) -> None:
        super().__init__(name="notebooks", daemon=True)
        self.path, self.given, self.folders = path, given, folders
        self.at, self.go_on = 0, True
        self.problems: list[str] = []
        self.error: BaseException | None = None
        self.kernel: Kernel | None = None

    def run(self) -> None:
        from i2v_lab.report.engine import one_kernel

        try:
            with one_kernel() as self.kernel:
                for at, (given, folder) in enumerate(zip(self.given, self.folders, strict=True)):
                    self.at = at
                    if not self.go_on:
                        break
                    self.problems.append(_papermill(self.path, folder / REPORT, given))
        except BaseException as error:  # noqa: BLE001  raised again by the main thread
            self.error = error
        finally:
            with suppress(RuntimeError):
                asyncio.get_event_loop().close()  # nbclient made it for this thread, and leaves it open

    def end(self) -> None:
        """Where it still runs, the kernel is killed; what was executed so far is saved."""
        if self.is_alive() and self.kernel and (pid := self.kernel.pid):
            self.go_on = False
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.join(30)


def _papermill(path: Path, output: Path, given: dict[str, str]) -> str:
    """Execute one notebook. Returns what failed of it, "" where nothing did; it is saved either way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries of Jupyter announce changes to come; they are not the user's
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError

        from i2v_lab.report import engine

        logging.getLogger("papermill").setLevel(logging.ERROR)
        papermill.engines.papermill_engines.register(engine.NAME, engine.SweepEngine)  # also where the entry point is not installed
        problem = ""
        try:
            papermill.execute_notebook(path, output, given, engine_name=engine.NAME, progress_bar=False, store_widget_state=False)
        except PapermillExecutionError as error:
            problem = f"{error.ename}: {error.evalue}"
            log.error("notebook %s failed: %s", output, error)
        except DeadKernelError:
            problem = "the kernel died (out of memory, or killed); start it again to go on"
        except RuntimeError as error:
            problem = f"the kernel failed: {error}"
            log.exception("notebook %s failed", output)
        _sign(output)
    return problem


def _sign(path: Path) -> None:
    """Mark the notebook as one that this user ran: JupyterLab shows its HTML then."""
    import nbformat

    with suppress(Exception):  # a home that cannot be written to; the report is whole without
        from nbformat.sign import NotebookNotary

        NotebookNotary().sign(nbformat.read(path, as_version=4))  # type: ignore[no-untyped-call]


def _export(folder: Path) -> Path | None:
    """The page of a report, made again; None where it could not be."""
    from i2v_lab import report

    try:
        made: Any = report.export_html(folder / REPORT, folder / HTML)
    except (I2VLabError, OSError, ValueError) as error:
        log.warning("no %s for %s: %s", HTML, folder, error)
        return None
    return Path(made)
