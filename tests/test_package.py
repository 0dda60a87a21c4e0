"""The package as a whole: its layers, its public names, its size, its pins.

`python tests/test_package.py` prints the layers and writes them into CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import networkx as nx
import pytest

import i2v_lab

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "i2v_lab"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

# The rooms, lowest layer first. A room imports only from layers below its own.
LAYERS = [
    ["errors", "rights", "language", "portable"],
    ["textfile"],
    ["settings", "log"],
    ["clip"],
    ["models", "store", "devices"],
    ["cost", "metrics"],
    ["run", "statistics"],
    ["cluster"],
    ["sweep", "verify"],
    ["jobs"],
    ["report"],
    ["widgets", "server"],
    ["cli"],
    ["__main__", "__init__"],
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {_module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """The modules of this package that a module imports, also within functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "i2v_lab":
            base = (node.module or "").removeprefix("i2v_lab").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".removeprefix(".")
                found.add(full if full in MODULES else base or "__init__")
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("i2v_lab.") for alias in node.names if alias.name.startswith("i2v_lab.")}
    return found


GRAPH = {name: sorted(_imports(path) - {name}) for name, path in MODULES.items()}


def test_a_room_imports_only_from_layers_below():
    wrong = []
    for module, imported in GRAPH.items():
        room = module.split(".")[0]
        assert room in LAYER, f"{room} has no layer: give it one"
        rooms = {name.split(".")[0] for name in imported} - {room}
        wrong += [f"{module} imports {other}" for other in rooms if LAYER[other] >= LAYER[room]]
    assert not wrong, "\n".join([*wrong, drawing()])


def test_no_module_imports_itself_by_way_of_others():
    circles = nx.simple_cycles(nx.DiGraph([(name, other) for name, found in GRAPH.items() for other in found]))
    found = [" -> ".join([*circle, circle[0]]) for circle in circles]
    assert not found, "\n".join([*found, drawing()])


def drawing() -> str:
    """The layers, the highest first: each room with the rooms that it imports from."""
    lines = []
    for names in reversed(LAYERS):
        lines += [f"{room:12} <- {', '.join(_below(room))}".rstrip(" <-") for room in names]
    return "\n".join(lines)


def _below(room: str) -> list[str]:
    found = {other.split(".")[0] for module, imported in GRAPH.items() if module.split(".")[0] == room for other in imported}
    return sorted(found - {room}, key=lambda name: (-LAYER[name], name))


def _with_drawing(text: str) -> str:
    return re.sub(r"(?<=<!-- layers -->\n```text\n).*?(?=^```)", lambda _: drawing() + "\n", text, flags=re.DOTALL | re.MULTILINE)


def test_the_layers_are_drawn_for_contributors():
    text = CONTRIBUTING.read_text(encoding="utf-8")
    assert "<!-- layers -->" in text
    assert _with_drawing(text) == text, "the imports have changed: python tests/test_package.py draws them again"


def test_files_and_functions_are_short():
    long = [f"{name}: {lines} lines" for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 400]
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{name}.{node.name}: {lines} lines"] if lines > 60 else []
    assert not long, f"expected files of at most 400 lines and functions of at most 60, got {', '.join(long)}"


def test_each_room_says_in_a_line_what_is_in_it():
    for path in PACKAGE.glob("*/__init__.py"):
        about = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert about.splitlines() and len(about.splitlines()[0]) > 20, path


def test_the_public_names_are_these_and_importable():
    assert i2v_lab.__all__ == [
        "Advice", "Client", "ClipParams", "I2VLabError", "Progress", "RunRecord", "StopSwitch", "Store", "Studio", "advice", "compare",
        "load_settings", "measure", "open_picture", "plan", "read_settings", "run_clip", "runs",
    ]  # fmt: skip
    for name in i2v_lab.__all__:
        assert getattr(i2v_lab, name).__doc__
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = i2v_lab.nothing


@pytest.mark.parametrize(
    ("line", "heavy"),
    [
        ("import i2v_lab; from i2v_lab import ClipParams", {"torch", "ipywidgets", "pandas", "cv2"}),
        ("from i2v_lab import Studio", {"torch", "matplotlib", "pandas", "scipy"}),  # the page opens with it
    ],
)
def test_importing_loads_nothing_heavy_that_is_not_needed(line, heavy):
    done = subprocess.run(
        [sys.executable, "-c", f"{line}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not heavy & set(done.stdout.split())


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    names = [_plain(name) for name, _ in pins]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return {_plain(name): version for name, version in pins}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_once_and_installed_so():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    pins = _pins()
    for name in named:
        if name.startswith("i2v_lab"):
            continue
        assert re.fullmatch(r"[\w.-]+", name), f"{name}: versions belong in constraints.txt"
        assert _plain(name) in pins, f"{name} is not pinned in constraints.txt"
        assert importlib.metadata.version(name).split("+")[0] == pins[_plain(name)]


def test_conda_and_make_install_by_the_same_file():
    environment = (ROOT / "environment.yaml").read_text()
    assert "--constraint constraints.txt" in environment
    assert "--editable .[lab]" in environment
    assert "==" not in environment
    make = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt" in make
    assert "--editable '.[lab]'" in make  # what people use; the tests add every extra in a second step
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" in environment


def test_the_version_is_the_one_in_the_changelog():
    version = importlib.metadata.version("i2v_lab")
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


if __name__ == "__main__":
    print(drawing())
    CONTRIBUTING.write_text(_with_drawing(CONTRIBUTING.read_text(encoding="utf-8")), encoding="utf-8")
