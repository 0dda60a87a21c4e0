"""The page: what its notebook is told, and its kernel, which is ready before the page is asked for and ends with it."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets import Unicode

from i2v_lab.language import Language

log = logging.getLogger(__name__)

TEMPLATE = "i2v_lab"
TEMPLATES = Path(__file__).parent / "jupyter"  # a data folder of Jupyter: Voilà looks for its templates there
HEADER = "Accept-Language"  # Studio() reads it from HTTP_ACCEPT_LANGUAGE
ONLY_NOTEBOOK = "notebook-only"  # the tag of cells that the page leaves out
OF_PAGE = "VOILA_REQUEST_URL"  # Voilà gives it to the kernels of its pages
LEFT_SECONDS = 120  # a page that lost its connection may come back for so long; one that is closed says so
AGAIN_SECONDS = 5  # after a page took the kernel that was ready: until the next is started
FIRST = "import torch, i2v_lab.widgets.studio"  # what a kernel does before a page takes it


def language_of(header: str, setting: str = "auto") -> Language:
    """The language of a page at its start.

    Args:
        header: Accept-Language, such as "zh-CN,zh;q=0.9,en;q=0.8". setting: `language` of the settings.
    """
    if setting != "auto":
        return "zh" if setting == "zh" else "en"
    weighed = []
    for part in header.split(","):
        name, _, weight = part.strip().partition(";q=")
        with suppress(ValueError):
            weighed.append((float(weight or 1), name.lower()))
    best = max((item for item in weighed if item[1].startswith(("en", "zh"))), key=lambda item: item[0], default=(0.0, "en"))
    return "zh" if best[1].startswith("zh") else "en"


def prepare(directory: Path, setting: str, request: Any, notebook: Any, cwd: str) -> None:
    """What is done to a notebook before Voilà runs it for a page.

    The studio writes where the server does, and begins in the browser's language. Cells for a notebook alone are left out.

    Args:
        directory: the output folder. setting: `language` of the settings.
    """
    _ = request.xsrf_token  # sets the cookie, without which the page may not end its kernel
    language = language_of(request.request.headers.get(HEADER, ""), setting)
    notebook.metadata.update(title="i2v_lab", i2v_language=language)
    notebook.cells = [cell for cell in notebook.cells if ONLY_NOTEBOOK not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace('output_dir="../results"', f"output_dir={str(directory)!r}")
    told = {f"HTTP_{HEADER.upper().replace('-', '_')}": language}
    if cells := [cell for cell in notebook.cells if cell.cell_type == "code"]:
        cells[0].source = f"import os\nos.environ.update({told!r})\n{cells[0].source}"


def without_mathjax(config: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The configuration of a page that loads nothing from another host: MathJax would come from one."""
    return {**config, "fullMathjaxUrl": None, "mathjaxConfig": None}


class PageKernels(AsyncMappingKernelManager):  # type: ignore[misc]
    """Kernels of pages and notebooks. One is ready for the next page; that of a page ends when nobody has the page any more."""

    folder = Unicode(help="of the page's notebook, below the root folder").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pages: dict[str, Any] = {}  # kernel: the call that will end it, while nobody is connected
        self._ready: asyncio.Task[str] | None = None
        self._ending: asyncio.Future[None] | None = None  # the newest; a task that nobody refers to may be lost
        self.opened: Callable[[], None] = lambda: None

    def make_ready(self) -> None:
        """Start the kernel of the next page."""
        if self._ready is None:
            arguments = [f"--IPKernelApp.exec_lines={FIRST}"]
            start = super().start_kernel(
                kernel_name="python3", path=self.folder, env=dict(os.environ), extra_arguments=arguments,
                stderr=subprocess.DEVNULL,  # where the server ends while it starts, it would print a traceback there
            )  # fmt: skip
            self._ready = asyncio.ensure_future(start)

    async def start_kernel(self, **kwargs: Any) -> str:
        env: Mapping[str, str] = kwargs.get("env") or {}
        if OF_PAGE not in env:
            return str(await super().start_kernel(**kwargs))
        asyncio.get_running_loop().run_in_executor(None, self.opened)  # somebody may soon want a clip
        found = await self._take(kwargs)
        kernel = found or str(await super().start_kernel(**kwargs))
        self._end_later(kernel)
        return kernel

    async def _take(self, wanted: Mapping[str, Any]) -> str | None:
        """The kernel that is ready, if it is of the kind that is wanted and still there."""
        if wanted.get("kernel_name") != "python3" or wanted.get("path") != self.folder or self._ready is None:
            return None
        ready, self._ready = self._ready, None
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self.make_ready)
        try:
            kernel = await ready
        except Exception:
            log.exception("no kernel was ready for a page")
            return None
        return kernel if kernel in self else None  # it may have been culled

    def notify_connect(self, kernel_id: str) -> None:
        super().notify_connect(kernel_id)
        if kernel_id in self._pages:
            self._pages[kernel_id].cancel()

    def notify_disconnect(self, kernel_id: str) -> None:
        super().notify_disconnect(kernel_id)
        if kernel_id in self._pages and not self._kernel_connections.get(kernel_id):
            self._end_later(kernel_id)

    def _end_later(self, kernel: str) -> None:
        def end() -> None:
            self._pages.pop(kernel, None)
            if kernel in self:
                log.info("kernel %s ends: its page is gone", kernel)
                self._ending = asyncio.ensure_future(self.shutdown_kernel(kernel))

        self._pages[kernel] = asyncio.get_running_loop().call_later(LEFT_SECONDS, end)
