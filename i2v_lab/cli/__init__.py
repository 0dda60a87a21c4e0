"""The command line, i2v-lab."""

import os

from i2v_lab.cli import interrupt

__all__ = ["main"]


def main() -> None:
    """The entry point. A signal is heard while the libraries are imported too."""
    interrupt.listen()
    os.environ["PYTHONSAFEPATH"] = "1"  # for processes that are started: no file of a current folder is taken for a package
    try:
        try:
            from i2v_lab.cli.app import run

            run()
        finally:
            interrupt.ignore()
    except (interrupt.Ended, KeyboardInterrupt):
        interrupt.say("stopped")
        raise SystemExit(interrupt.STOPPED) from None
