"""The report of a sweep: run_sweep makes the clips here, then papermill executes notebooks/sweep.ipynb, which finds them made."""

from __future__ import annotations

import ast
import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2v_lab.clip.progress import Progress
from i2v_lab.clip.publish import cannot_write, partial_file, temporary_folder, writing
from i2v_lab.errors import I2VLabError, SweepError, WriteError, meant, printable
from i2v_lab.portable import replace
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepResult, SweepStop, run_sweep
from i2v_lab.sweep.loop import retry_states
from i2v_lab.sweep.stop import stop_on_signals

log = logging.getLogger(__name__)

REPORT, HTML = "report.ipynb", "report.html"
PARAMETERS = ("sweep", "output_dir", "retry", "device")  # of the notebook, all of them texts; and those of `_more`
FOLDER_VARIABLE = "I2V_REPORT_FOLDER"
"""The environment of a kernel that executes a report: the folder in which the report will be."""
SOCKET_MAX = 80  # characters of a socket's folder; the whole path of a socket holds 107


@dataclass(frozen=True)
class Report:
    """What is left of one sweep after its run, and after its notebook.

    Attributes:
        sweep: the sweep. result: of its run; report.ipynb is in its folder.
        html: the page beside the notebook; None where there is none.
        problem: what failed of the notebook itself; "" where nothing did.
    """

    sweep: Sweep
    result: SweepResult
    html: Path | None = None
    problem: str = ""


def shipped(name: str) -> Path:
    """A file that comes with the package: notebooks/sweep.ipynb, experiments/guidance.yaml; never written to.

    Raises:
        SweepError: the package was installed without it.
    """
    here = Path(__file__).resolve().parent.parent
    for place in (here / name, here.parent / name):  # of a wheel; of a checkout
        if place.is_file():
            return place
    raise SweepError(f"{name} is missing beside {here}: install i2v_lab again")


def parameters(sweep: Sweep, store: Store, settings: Settings, retry: str = "") -> dict[str, str]:
    """What the notebook is given: its cell `parameters` has these names."""
    given = dict(zip(PARAMETERS, (sweep.to_yaml(), str(store.directory), retry, settings.device), strict=True))
    return given | _more(settings)


def _more(settings: Settings) -> dict[str, str]:
    """What a notebook is given that not every one has to take: a cluster, or several devices for a clip."""
    parallel = {"parallel": str(settings.parallel)} if settings.parallel > 1 else {}
    return parallel | ({"cluster": settings.cluster.address} if settings.cluster.address else {})


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
    """Run each sweep in this process, and make its report by executing the notebook in a kernel.

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
    sweeps = [sweep.with_defaults(settings.model) for sweep in sweeps]
    for sweep in sweeps:
        sweep.cells()  # an error in the last sweep is reported before the first one runs
    book = (notebook or shipped("notebooks/sweep.ipynb")) if report else None
    if book and not str(store.directory).isprintable():
        raise SweepError(f"{printable(store.directory)}: expected an output folder whose name is plain text, for the report; choose another with "
                         "--output-dir, or leave the report out with --no-report")  # fmt: skip
    if book:
        check_notebook(book, (*PARAMETERS, *_more(settings)))
    reports: list[Report] = []
    for sweep in sweeps:
        if stop.after:
            break
        result = run_sweep(sweep, store, settings=settings, progress=progress, stop=stop, retry=retry)
        problem, html = "", None
        if book:
            problem, html = make_report(book, result.folder, parameters(sweep, store, settings, "none"), stop)
        reports.append(Report(sweep, result, html, problem))
    return reports


def make_report(book: Path, folder: Path, given: dict[str, str], stop: SweepStop) -> tuple[str, Path | None]:
    """Execute a notebook into a folder, and make its page.

    Returns:
        (what failed, "" where nothing did; the page, None where there is none).
    """
    try:
        with stop_on_signals(stop.ask, stages=()):  # a report can be made again: a signal ends it at once
            problem = _papermill(book, folder / REPORT, given)
            return problem, _export(folder)
    except WriteError as error:
        return str(error), None
    except OSError as error:  # of the output folder's disk, or of that of TMPDIR
        log.exception("no report of %s", folder)
        return str(cannot_write(Path(error.filename).parent if error.filename else folder, error)), None
    except KeyboardInterrupt:
        stop.ask()
        return "it was stopped; --retry none makes the report alone", None


def check_notebook(path: Path, names: Sequence[str] = PARAMETERS) -> None:
    """Raises SweepError where the notebook does not take these parameters, all of them texts."""
    import nbformat

    try:
        check_parameters(nbformat.read(path, as_version=4), dict.fromkeys(names, ""))  # type: ignore[no-untyped-call]
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise SweepError(f"{path}: expected a Jupyter notebook, got {str(error)[:200]}") from None
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None


def check_parameters(notebook: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check what papermill would only warn of.

    Args:
        notebook: an nbformat node. given: the values that are passed.

    Returns:
        The parameters of the notebook and their defaults, as they are written in its cell tagged `parameters`.

    Raises:
        SweepError: no such cell, something but literals in it, an unknown name, a value of another type.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if not cells:
        raise SweepError(
            "the notebook has no cell tagged `parameters`: papermill would overwrite what is passed by the values of the notebook"
        )
    known = _literals(cells[0].source)
    for name, value in given.items():
        if name not in known:
            raise SweepError(f"the notebook has no parameter {name}; {meant(name, known)}")
        if type(value) is not type(known[name]) and not (isinstance(known[name], float) and type(value) is int):
            expected, got = type(known[name]).__name__, type(value).__name__
            raise SweepError(f"notebook parameter {name}: expected {expected} such as {known[name]!r}, got {got} {value!r}")
    return known


def _literals(source: str) -> dict[str, Any]:
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise SweepError(f"the notebook's parameters are not valid Python: {error.msg} in line {error.lineno}") from None
    known = {}
    for statement in statements:
        try:
            match statement:
                case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                    known[name] = ast.literal_eval(value)
                case _:
                    raise ValueError
        except ValueError:
            raise SweepError("the notebook's cell of parameters: expected literals such as retry = '', got "
                             f"{ast.unparse(statement)!r}: move it to the next cell") from None  # fmt: skip
    return known


def _papermill(path: Path, output: Path, given: dict[str, str]) -> str:
    """Execute one notebook in a kernel of its own. Returns what failed of it, "" where nothing did; it is saved either way."""
    with warnings.catch_warnings(), temporary_folder(Path(tempfile.gettempdir()), "i2v") as private:
        warnings.simplefilter("ignore")  # libraries of Jupyter announce changes to come; they are not the user's
        import papermill
        from jupyter_client.manager import AsyncKernelManager
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
        from traitlets.config import Config

        class Kernel(AsyncKernelManager):
            """A kernel in which no file of the current folder takes the place of a package."""

            async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
                await super().start_kernel(
                    **options, env={**os.environ, "PYTHONSAFEPATH": "1", FOLDER_VARIABLE: str(output.parent)}
                )

        # Sockets in a folder that only this user can open, in place of ports; the names of sockets are short.
        transport = "ipc" if hasattr(socket, "AF_UNIX") and len(str(private)) < SOCKET_MAX else "tcp"
        options = {"config": Config(KernelManager={"transport": transport, "connection_file": f"{private}/kernel.json"}),
                   "kernel_manager_class": Kernel, "extra_arguments": ["--InteractiveShellApp.ignore_cwd=True", "--IPKernelApp.log_level=40"],
                   "shutdown_kernel": "immediate", "store_widget_state": False, "progress_bar": False}  # fmt: skip
        logging.getLogger("papermill").setLevel(logging.ERROR)
        problem = ""
        with partial_file(output.parent, output.stem, "ipynb") as partial:
            try:
                papermill.execute_notebook(path, partial, given, **options)
            except PapermillExecutionError as error:
                problem = f"{error.ename}: {error.evalue}"
                log.error("notebook %s failed: %s", output, error)
            except DeadKernelError:
                problem = "the kernel died (out of memory, or killed); start it again to go on"
            except (RuntimeError, LookupError, ValueError) as error:  # the notebook may name a kernel that is not here, or none
                problem = f"the kernel failed: {error}"
                log.exception("notebook %s failed", output)
            except KeyboardInterrupt:
                with suppress(Exception):
                    _keep(partial, output)
                raise
            with writing(output.parent):
                _keep(partial, output)
    return problem


def _keep(partial: Path, output: Path) -> None:
    """Give a notebook its name, as far as it came, and mark it as one that this user ran: JupyterLab shows its HTML then."""
    import nbformat

    if not partial.stat().st_size:
        return
    book = nbformat.read(partial, as_version=4)  # type: ignore[no-untyped-call]
    book.metadata.papermill.output_path = str(output)
    nbformat.write(book, partial)  # type: ignore[no-untyped-call]
    replace(partial, output)
    with suppress(Exception):  # a home that cannot be written to; the report is whole without
        from nbformat.sign import NotebookNotary

        NotebookNotary().sign(book)  # type: ignore[no-untyped-call]


def _export(folder: Path) -> Path | None:
    """The page of a report, made again; None where it could not be."""
    from i2v_lab import report

    try:
        made: Any = report.export_html(folder / REPORT, folder / HTML)
    except (I2VLabError, OSError, ValueError) as error:
        log.warning("no %s for %s: %s", HTML, folder, error)
        return None
    return Path(made)
