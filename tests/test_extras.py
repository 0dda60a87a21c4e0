"""The command line without the packages of an optional extra: what does not need them works, the rest says what to install."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import environment

EXTRAS = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FAKE = ("--image", "sample:coffee", "--model", "fake", "--resolution", "64x64", "--num-frames", "2")

# Commands that need an extra; an extra that only a notebook or a kind of checkpoint needs has none.
NEEDS: dict[str, list[tuple[str, ...]]] = {"lab": [("serve", "--port", "1")]}
WORK = [
    ("--help",), ("generate", *FAKE), ("runs",), ("models",), ("plan", *FAKE[:2]), ("doctor",),
    ("sweep", "--name", "x", "--base", "image=sample:coffee", "--base", "model=fake", "--axis", "seed=0,1", "--dry-run"),
]  # fmt: skip

WITHOUT = """
import contextlib, io, json, sys
absent = set(sys.argv[1].split(","))
class Rest:  # a finder that does not find the absent modules
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Rest(finder) for finder in sys.meta_path]
from i2v_lab.cli import main
said = []
for words in json.loads(sys.argv[2]):
    sys.argv[1:], code, out, err = words, 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    said.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(said))
"""


def modules_of(extra: str) -> list[str]:
    """The modules that the packages of an extra bring, without those that another package brings too."""
    packages = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", name)[0]).lower() for name in EXTRAS[extra]}
    found = importlib.metadata.packages_distributions()
    return [name for name, owners in found.items() if {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} <= packages]


def run_without(extra: str, commands: list[tuple[str, ...]], folder: Path) -> list[tuple[int, str, str]]:
    """(exit code, standard output, standard error) of each command, all in one process without the modules of an extra."""
    command = [sys.executable, "-c", WITHOUT, ",".join(modules_of(extra)), json.dumps(commands)]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(ended) for ended in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.parametrize(
    "extra", [name if name == "lab" else pytest.param(name, marks=pytest.mark.slow) for name in EXTRAS if name != "dev"]
)
def test_without_an_extra_the_rest_works_and_its_commands_say_what_to_install(extra, tmp_path):
    assert modules_of(extra), f"{extra}: make test installs it"
    needing = NEEDS.get(extra, [])
    ended = run_without(extra, [*WORK, *needing], tmp_path)
    for words, (code, _, err) in zip(WORK, ended, strict=False):
        assert code == 0, (words, err)
        assert "Traceback" not in err
    for words, (code, out, err) in zip(needing, ended[len(WORK) :], strict=True):
        assert (code, out) == (1, ""), (words, err)
        (line,) = err.splitlines()
        assert line.startswith("error: ") and f"pip install 'i2v_lab[{extra}]'" in line
