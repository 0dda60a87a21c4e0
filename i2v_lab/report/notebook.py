"""The report of a sweep: run_sweep makes the clips here, then papermill executes notebooks/sweep.ipynb, which finds them made."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2v_lab.clip.progress import Progress
from i2v_lab.errors import I2VLabError, SweepError
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepStop, run_sweep
from i2v_lab.sweep.loop import retry_states

log = logging.getLogger(__name__)

REPORT, HTML = "report.ipynb", "report.html"
PARAMETERS = ("sweep", "output_dir", "retry", "device")  # of the notebook, all of them texts


@dataclass(frozen=True)
class Report:
    """What is left of one sweep after its run, and after its notebook.

    Attributes:
        sweep: the sweep. folder: its folder, absolute; report.ipynb is in it.
        counts: {status: cells}.
        stopped: why the run ended early; "" where it did not.
        html: the page beside the notebook; None where there is none.
        problem: what failed of the notebook itself; "" where nothing did.
    """

    sweep: Sweep
    folder: Path
    counts: dict[str, int]
    stopped: str = ""
    html: Path | None = None
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
    return dict(zip(PARAMETERS, (sweep.to_yaml(), str(store.directory), retry, device), strict=True))


def execute(
    sweeps: Sequence[Sweep],
    store: Store,
    settings: Settings,
    *,
    progress: Progress | None = None,
    stop: SweepStop | None = None,
    retry: str = "",
    notebook: Path | None = None,
    report: bool = True,
) -> list[Report]:
    """Run each sweep in this process, and make its report: all notebooks are executed in one kernel.

    Args:
        progress, stop, retry: as for run_sweep. Once `stop` is asked, no further sweep begins.
        notebook: another template than the one that comes with the package.
        report: False: no notebook is executed.

    Returns:
        A report each, of those sweeps that were begun. A notebook that failed is saved as far as it came.

    Raises:
        SweepError: the template, its parameters or a sweep is wrong; nothing was run.
    """
    retry_states(retry)
    stop = stop or SweepStop()
    sweeps = [sweep.with_default_model(settings.model) for sweep in sweeps]
    for sweep in sweeps:
        sweep.cells()  # an error in the last sweep is reported before the first one runs
    reports: list[Report] = []
    with ExitStack() as held:
        make_report = held.enter_context(_one_kernel_in_a_thread(notebook or template())) if report else None
        for sweep in sweeps:
            if stop.after:
                break
            result = run_sweep(sweep, store, settings=settings, progress=progress, stop=stop, retry=retry)
            problem = make_report(result.folder, parameters(sweep, store, "none", settings.device)) if make_report else ""
            html = _export(result.folder) if make_report else None
            reports.append(Report(sweep, result.folder, result.counts, result.stopped, html, problem))
    return reports


def _check(path: Path) -> None:
    """Raises SweepError where the notebook does not take the parameters."""
    import nbformat

    from i2v_lab.report.engine import check_parameters

    try:
        check_parameters(nbformat.read(path, as_version=4), dict.fromkeys(PARAMETERS, ""))  # type: ignore[no-untyped-call]
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise SweepError(f"{path}: expected a Jupyter notebook, got {str(error)[:200]}") from None
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None


@contextmanager
def _one_kernel_in_a_thread(path: Path) -> Iterator[Callable[[Path, dict[str, str]], str]]:
    """A function that executes the notebook with these parameters for the sweep of a folder, and returns what failed of it.

    All notebooks have one kernel, and run in one thread beside the main one, whose signals nbclient would take. After an
    error or Ctrl-C a notebook that is still executed ends; it is saved as far as it came.
    """
    from i2v_lab.report.engine import one_kernel

    _check(path)
    held = ExitStack()
    with ThreadPoolExecutor(1, "notebooks") as thread:
        kernel = thread.submit(held.enter_context, one_kernel()).result()
        try:
            yield lambda folder, given: thread.submit(_papermill, path, folder / REPORT, given).result()
        except BaseException:
            if kernel.pid:
                with suppress(ProcessLookupError):
                    os.kill(kernel.pid, signal.SIGKILL)
            raise
        finally:
            thread.submit(held.close)
            thread.submit(_close_loop)


def _close_loop() -> None:
    with suppress(RuntimeError):
        asyncio.get_event_loop().close()  # nbclient made it for this thread, and leaves it open


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
