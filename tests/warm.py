"""The command line without the cost of its imports: one process imports the libraries once and forks a child for each command.

`Warm(words, cwd=..., env=...)` is a `subprocess.Popen` for `python -m i2v_lab WORDS`: it has a pid, can be sent signals, and takes the
same stdin, stdout, stderr, text and start_new_session. The child has the cwd, environment, arguments and files that were given, and
imports `i2v_lab.cli` itself (its consoles read the environment). `must_be_cold(env)` says whether a command needs a true process,
because its environment is read when a library is imported.

What a child could inherit, and does not: the server imports and calls nothing, so no cache is filled, no model is loaded, no log is
open, and OpenMP has no threads yet (`_check_clean` looks). Python's `random` is seeded again by Python, numpy's here. psutil's
processes are made where they are used.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import json
import logging
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = (
    "cv2", "diffusers", "diffusers.schedulers", "fastapi", "imageio_ffmpeg", "jupyter_server.serverapp", "matplotlib.figure", "nbclient",
    "nbconvert", "numpy", "pandas", "papermill", "PIL.Image", "psutil", "pydantic", "requests", "rich.progress", "safetensors.torch",
    "scipy.stats", "skimage.metrics", "torch", "transformers", "typer", "yaml",
)  # fmt: skip
ROOMS = ("cost", "metrics", "models", "models.closed_form", "report", "run", "statistics", "store", "sweep")
# Read when a library is imported: huggingface_hub's folders, threads, Python's own, matplotlib's backend.
READ_AT_IMPORT = (
    "CUDA_", "HF_", "HOME", "LANG", "LC_", "LD_", "MKL_", "MPL", "OMP_", "OPENBLAS_", "PYTHON", "TORCH", "TRANSFORMERS_",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}  # before a test changes it


def must_be_cold(env: Mapping[str, str]) -> bool:
    """Whether a command with this environment needs a process of its own: it differs in what is read at import."""
    return _at_import(env) != _at_import(ENVIRONMENT)


def _at_import(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_AT_IMPORT)}


class Warm(subprocess.Popen[Any]):
    """A command of the command line as a child of the warm process: `Warm(["runs", "--json"], cwd=folder, env=variables, ...)`.

    Only the part of Popen that starts a process and waits for it is replaced.
    """

    def _execute_child(self, *args: Any, **kwargs: Any) -> None:
        given = inspect.signature(super()._execute_child).bind(*args, **kwargs).arguments  # type: ignore[misc]
        ends = {name: given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")}
        files = [number if end == -1 else end for number, end in enumerate([ends["p2cread"], ends["c2pwrite"], ends["errwrite"]])]
        job = {name: given[name] for name in ("args", "env", "start_new_session")}
        self._status, status = os.pipe()
        try:
            self.pid = _server().begin({**job, "cwd": str(given["cwd"])}, [*files, status])
        finally:
            os.close(status)
        self._child_created = True
        self._close_pipe_fds(**ends)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """(pid, status) of the child that ended, as os.waitpid; (0, 0) while it runs, with WNOHANG."""
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        found = os.read(self._status, 4)
        os.close(self._status)
        return self.pid, struct.unpack("i", found)[0] if found else signal.SIGKILL  # the warm process was killed


class _Server:
    """The warm process, as the tests see it. It is in a session of its own: a Ctrl-C ends the tests, and they end it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="i2v-lab-warm-"))
        listener, (self._channel, other) = socket.socket(socket.AF_UNIX), socket.socketpair()
        listener.bind(str(self.folder / "socket"))
        listener.listen()
        ends = [other.fileno(), listener.fileno()]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *map(str, ends)], pass_fds=ends, env=ENVIRONMENT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        other.close()
        listener.close()
        self._lock = threading.Lock()
        atexit.register(self.end)

    def begin(self, job: dict[str, Any], files: list[int]) -> int:
        """Have a command begun; returns its pid."""
        text = json.dumps(job).encode()
        with self._lock:
            socket.send_fds(self._channel, [struct.pack("I", len(text))], files)
            self._channel.sendall(text)
            answer = self._channel.recv(4, socket.MSG_WAITALL)
        if not answer:
            raise RuntimeError(f"the warm process ended with {self.process.wait()}; what it said is above")
        return int(struct.unpack("i", answer)[0])

    def end(self) -> None:
        """End the warm process, and what it has running."""
        self._channel.close()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def _server() -> _Server:
    return _Server()


def begin() -> None:
    """Let the imports begin now, on another core, where commands will come later."""
    _server()


def programs() -> Path:
    """A folder for the PATH of a shell: in it `i2v-lab` is the warm one, and `warm-python -c CODE` runs Python."""
    folder = _server().folder
    for name in ("i2v-lab", "warm-python"):
        program = folder / name
        if not program.exists():
            program.write_text(_PROGRAM.format(python=sys.executable, socket=folder / "socket"))
            program.chmod(0o755)
    return folder


_PROGRAM = """#!{python} -IS
import json, os, socket, struct, sys
end, status = os.pipe()
job = {{"args": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ), "start_new_session": False}}
if sys.argv[0].endswith("warm-python"):
    job["code"] = sys.argv[2]
text = json.dumps(job).encode()
with socket.socket(socket.AF_UNIX) as channel:
    channel.connect("{socket}")
    socket.send_fds(channel, [struct.pack("I", len(text))], [0, 1, 2, status])
    channel.sendall(text)
    channel.recv(4)
os.close(status)
sys.exit(os.waitstatus_to_exitcode(struct.unpack("i", os.read(end, 4))[0]))
"""


# From here on: the warm process.


def _serve(channel: socket.socket, listener: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Import, then fork for each command. Returns in each child what it was sent, and None in the server at its end."""
    for name in [*LIBRARIES, *(f"i2v_lab.{room}" for room in ROOMS)]:
        importlib.import_module(name)
    _check_clean()
    gc.collect()
    gc.freeze()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}  # pid -> the end of the pipe that takes its status
    while True:
        ready, _, _ = select.select([channel, listener, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap(running)
        if channel not in ready and listener not in ready:
            continue
        asked = channel if channel in ready else listener.accept()[0]
        head, files, _, _ = socket.recv_fds(asked, 4, 4)
        if not head and asked is channel:  # the tests have ended
            for pid in running:
                os.kill(pid, signal.SIGTERM)
            return None
        job = json.loads(asked.recv(struct.unpack("I", head)[0], socket.MSG_WAITALL))
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (channel, listener, asked):
                end.close()
            for number in (wake, waker, files.pop(), *running.values()):
                os.close(number)
            return job, files
        for number in files[:3]:
            os.close(number)
        running[pid] = files[3]
        asked.sendall(struct.pack("i", pid))
        if asked is not channel:
            asked.close()


def _reap(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        end = running.pop(pid)
        with suppress(BrokenPipeError):  # nobody waits for it
            os.write(end, struct.pack("i", status))
        os.close(end)


def _check_clean() -> None:
    """Nothing that a child would inherit may have been used yet."""
    assert threading.active_count() == 1
    assert not logging.getLogger("i2v_lab").handlers
    for name, module in [(name, module) for name, module in sys.modules.items() if name.startswith("i2v_lab.")]:
        for found in vars(module).values():
            assert not (hasattr(found, "cache_info") and found.cache_info().currsize), f"{name}: {found} has been called"
        assert not getattr(module, "_loaded", None), f"{name}: a model is loaded"
    assert "i2v_lab.cli" not in sys.modules


def _become(job: dict[str, Any], files: list[int]) -> None:
    """Make this child what `python -m i2v_lab` would be."""
    if job["start_new_session"]:
        os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[0] = job["cwd"]
    sys.argv[1:] = job["args"]
    encoding = sys.stdout.encoding
    sys.stdin = os.fdopen(0, encoding=encoding)
    sys.stdout = os.fdopen(1, "w", 1 if os.isatty(1) else -1, encoding)
    sys.stderr = os.fdopen(2, "w", 1, encoding, "backslashreplace")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.modules["numpy"].random.seed()


def _run(program: str | None) -> int:
    """Run the command line (or a Python program) to its end, with what Python does at the end of a process. Returns the exit code."""
    code: Any = 0
    try:
        if program is None:
            runpy.run_module("i2v_lab", run_name="__main__", alter_sys=True)
        else:
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - it is in our docs
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - whatever it is, this is the end of the process
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored in: {sys.stdout}\n{error}", file=sys.stderr)
        return 120
    return int(isinstance(code, str) or code or 0)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of the tests
    sys.path.insert(0, "")
    if command := _serve(*(socket.socket(fileno=int(end)) for end in sys.argv[1:3])):
        _become(*command)
        os._exit(_run(command[0].get("code")))  # freeing all modules one by one takes 0.4 s
