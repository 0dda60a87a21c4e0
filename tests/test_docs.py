"""Every command and every piece of Python that the README and the docs show is run, in order, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import warm

from i2v_lab import models

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md")] + DOCS
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


SHOWING = [page for page in PAGES if blocks_of(page) and ".zh" not in page.name]  # the Chinese pages show the same, a test says


def run_blocks(page: Path, folder: Path, python: Path, *paths: Path) -> None:
    """Run what a page shows in a folder that has only experiments/, with the programs of some folders."""
    words = {"PATH": os.pathsep.join([*map(str, paths), os.environ["PATH"]]), "HF_HUB_OFFLINE": "1"}
    (folder / "experiments").symlink_to(ROOT / "experiments")
    for language, text in blocks_of(page):
        command = ["bash", "-euc", text] if language == "bash" else [python, "-c", text]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **words}, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr


@pytest.mark.slow  # two minutes
@pytest.mark.parametrize("page", SHOWING, ids=name_of)
def test_what_a_page_shows_works(page, tmp_path):
    programs = warm.programs()
    run_blocks(page, tmp_path, programs / "warm-python", programs, Path(sys.executable).parent)


@pytest.mark.slow
@pytest.mark.parametrize("page", SHOWING, ids=name_of)
def test_what_a_page_shows_works_from_a_cold_start(page, tmp_path):
    run_blocks(page, tmp_path, Path(sys.executable), Path(sys.executable).parent)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_of_a_page_are_there(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_index_of_the_docs_has_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in DOCS if page.name != "README.md" and f"]({page.name})" not in index]


def test_the_presets_of_the_readme_are_those_of_the_models():
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+), (\d+) frames, (\d+) steps \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    shown = {
        name: {"resolution": size, "num_frames": int(frames), "num_inference_steps": int(steps)}
        for name, size, frames, steps in rows
    }
    network = {name: fields for name, fields in models.family("i2vgen-xl").presets.items() if not name.startswith("fast")}
    assert shown == models.family("closed-form").presets == network


@pytest.mark.parametrize("page", ["README", "docs/guide"])
def test_the_chinese_page_has_the_headings_commands_and_pictures_of_the_english_one(page: str) -> None:
    english, chinese = ((ROOT / f"{page}{suffix}.md").read_text(encoding="utf-8") for suffix in ("", ".zh"))

    def headings(text: str) -> list[tuple[str, str]]:
        """(level, number) of each; what a block of code begins with # is none."""
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        return re.findall(r"^(#+) (\d*)", prose, re.M)

    for found in (
        headings,
        lambda text: re.findall(r"^```.*?^```", text, re.M | re.S),
        lambda text: [len(line.split("|")) for line in text.splitlines() if line.startswith("|")],
        lambda text: [target.replace(".zh.md", ".md").partition("#")[0] for target in re.findall(r"\]\(([^)]*)\)", text)],
    ):
        assert found(chinese.replace("README.md", "README.zh.md") if page == "README" else chinese) == found(english)
