"""Takes away from this package what only POSIX has, as far as that can be done on Linux. Python imports it first where this folder is on
PYTHONPATH, in the processes that are started too. Other libraries keep what they have: on Windows they have ways of their own.
"""

from __future__ import annotations

import builtins
import io
import os
import stat
import subprocess
import sys
import types
from typing import Any

MODULES = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "posix", "syslog"}
NAMES = {
    "os": "getuid geteuid getgid getegid setuid setsid setpgid getpgid getpgrp killpg fork forkpty wait waitid uname sysconf sysconf_names "
          "getloadavg nice mkfifo mknod chown lchown fchown chroot statvfs set_blocking get_blocking sched_yield sched_getaffinity "
          "sched_setaffinity WNOHANG WIFSIGNALED O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK posix_spawn pread pwrite sendfile openpty "
          "register_at_fork confstr ctermid ttyname getgroups initgroups sync pipe2 memfd_create pidfd_open fchdir fchmod fdatasync",
    "signal": "SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGPIPE SIGWINCH alarm setitimer pause "
              "pthread_kill pthread_sigmask sigwait sigpending siginterrupt",
    "socket": "AF_UNIX send_fds recv_fds AF_NETLINK SO_REUSEPORT",
    "select": "poll epoll",
}  # fmt: skip
_import, _open = builtins.__import__, io.open


def _select(*files: Any) -> Any:
    import select

    for file in (file for part in files[:3] for file in part):
        number = file if isinstance(file, int) else file.fileno()
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise OSError(10038, "an operation was attempted on something that is not a socket")
    return select.select(*files)


class _Popen(subprocess.Popen[Any]):
    def __init__(self, *args: Any, **options: Any) -> None:
        for name in ("preexec_fn", "pass_fds", "process_group", "user", "group", "umask"):
            if options.get(name):
                raise ValueError(f"{name} is not supported on Windows platforms")
        super().__init__(*args, **options)


def _poorer(name: str, module: types.ModuleType) -> types.ModuleType:
    """The module as this package sees it."""
    found = types.ModuleType(name)
    gone = set(NAMES.get(name, "").split())
    vars(found).update({key: value for key, value in vars(module).items() if key not in gone})
    own = {"os": {"name": "nt"}, "select": {"select": _select}, "subprocess": {"Popen": _Popen}}
    vars(found).update(own.get(name, {}))
    return found


_seen: dict[str, types.ModuleType] = {}


def _importing(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    ours = str((globals or {}).get("__name__", "")).split(".")[0] == "i2v_lab"
    if ours and level == 0 and name in MODULES:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    found = _import(name, globals, locals, fromlist, level)
    if ours and level == 0 and name in (*NAMES, "subprocess"):
        if name not in _seen:
            _seen[name] = _poorer(name, found)
        return _seen[name]
    return found


def _opening(file: Any, *args: Any, **options: Any) -> Any:
    """No /proc and no /sys for this package; pathlib opens for it."""
    if isinstance(file, str | os.PathLike) and os.fspath(file).startswith(("/proc", "/sys")):
        frame = sys._getframe(1)
        while frame.f_back and frame.f_globals.get("__name__") == "pathlib":
            frame = frame.f_back
        if str(frame.f_globals.get("__name__")).startswith("i2v_lab"):
            raise FileNotFoundError(2, "No such file or directory", os.fspath(file))
    return _open(file, *args, **options)


builtins.__import__ = _importing
io.open = _opening  # type: ignore[assignment]
builtins.open = _opening  # type: ignore[assignment]
