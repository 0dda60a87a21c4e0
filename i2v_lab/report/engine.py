"""A papermill engine that keeps one kernel for several notebooks, so that a model is loaded once.

    papermill --engine i2v-lab notebooks/sweep.ipynb report.ipynb -p sweep experiments/guidance.yaml

Before anything runs it checks what papermill only warns of: unknown parameters, values of the wrong type, a notebook
without a cell tagged `parameters`, and one whose parameters are more than literals (they would go stale).
"""

from __future__ import annotations

import ast
import atexit
import difflib
import functools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nbclient.util import run_sync

from i2v_lab.errors import SweepError

NAME = "i2v-lab"
_PASSED = ("log_output", "stdout_file", "stderr_file", "store_widget_state")
_FRESH = "from i2v_lab.report.engine import fresh as _fresh; _fresh({folder!r})"


class SweepEngine:
    """Executes notebooks one after another in the kernel of `one_kernel()`; outside of such a block each has its own.

    The methods that papermill calls of an engine. It is no subclass of papermill's own: papermill imports this module, by
    its entry point, while papermill itself is being imported. So this module may import papermill only at the first call.
    """

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, *args: Any, **options: Any) -> Any:
        """See papermill.engines.Engine. Raises SweepError where the parameters are wrong; nothing has run then."""
        check_parameters(nb, nb.metadata.get("papermill", {}).get("parameters", {}))
        return _engine().execute_notebook(nb, kernel_name, *args, **options)

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """The kernel that the notebook asks for."""
        return str(_engine().nb_kernel_name(nb, name))

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """The language that the notebook is in."""
        return str(_engine().nb_language(nb, language))


@functools.cache
def _engine() -> Any:
    """The subclass of papermill's own engine that does the work."""
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine

    class Client(PapermillNotebookClient):  # type: ignore[misc]
        """Begins every notebook as if its kernel were new."""

        def papermill_execute_cells(self) -> None:
            # Silent, since the output belongs to no cell.
            self.wait_for_reply(self.kc.execute(_FRESH.format(folder=str(Path.cwd())), silent=True, store_history=False))
            super().papermill_execute_cells()

    class OneKernel(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, start_timeout: int = 60, **options: Any) -> None:
            known = {name: options[name] for name in _PASSED if name in options}
            timeout = options.get("execution_timeout") or None
            client = Client(nb_man, kernel_name=kernel_name, timeout=timeout, startup_timeout=start_timeout, **known)
            with one_kernel() as kernel:
                kernel.lend(client)
                try:
                    client.execute()
                finally:
                    atexit.unregister(client._cleanup_kernel)  # the kernel is not this client's to end

    return OneKernel


class Kernel:
    """A kernel that outlives a notebook; it is started when the first one needs it, and again after it died."""

    def __init__(self) -> None:
        self.manager: Any = None
        self.client: Any = None
        self.name = ""

    def lend(self, client: Any) -> None:
        """Let this client of nbclient use the kernel."""
        if self.manager is None or self.name != client.kernel_name or not run_sync(self.manager.is_alive)():
            self.end()
            self.manager, self.name = client.create_kernel_manager(), client.kernel_name
            if sys.platform != "win32":
                self.manager.transport = "ipc"  # sockets in files that only this user can open, in place of ports
            client.start_new_kernel()
            self.client = client.start_new_kernel_client()
        client.km, client.kc, client.owns_km = self.manager, self.client, False

    def end(self) -> None:
        """Shut the kernel down."""
        if self.manager is not None:
            with suppress(RuntimeError, OSError):
                run_sync(self.manager.shutdown_kernel)(now=True)
            self.client.stop_channels()
            self.manager = self.client = None

    @property
    def pid(self) -> int | None:
        """The number of its process; None where it does not run."""
        provisioner = getattr(self.manager, "provisioner", None)
        return getattr(provisioner, "pid", None)


_open: list[Kernel] = []


@contextmanager
def one_kernel() -> Iterator[Kernel]:
    """All notebooks executed within the block by the engine have one kernel. Blocks may be nested: the outermost counts."""
    if _open:
        yield _open[-1]
        return
    _open.append(kernel := Kernel())
    try:
        yield kernel
    finally:
        _open.remove(kernel)
        kernel.end()


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
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise SweepError(f"the notebook has no parameter {name}; {hint}")
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
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        try:
            if len(targets) != 1 or not isinstance(targets[0], ast.Name) or value is None:
                raise ValueError
            known[targets[0].id] = ast.literal_eval(value)
        except ValueError:
            raise SweepError("the notebook's cell of parameters: expected literals such as retry = '', got "
                             f"{ast.unparse(statement)!r}: move it to the next cell") from None  # fmt: skip
    return known


def fresh(folder: str) -> None:
    """Called in the kernel before a notebook: removes what the notebook before left. Imported modules, and so models, stay.

    Args:
        folder: the folder to work in.
    """
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
    if widgets := sys.modules.get("ipywidgets"):
        widgets.Widget.close_all()
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if shell:
        shell.reset(new_session=True)
    os.chdir(folder)
