"""`batch` and `runs`: many clips from a table, and the table of what was made."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from commands import answer, complaint, records
from conftest import finish, start

from i2v_lab.store import Store
from i2v_lab.sweep.batch import read_rows


def rows_csv(photograph: Path) -> str:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows([
        ["image", "model", "resolution", "num_frames", "seed", "prompt"],
        [photograph, "fake", "64x64", "3", "1", "zoom in,\nslowly\u2028now"],
        [photograph, "fake", "64x64", "1000", "2", ""],
        ["none.jpg", "fake", "64x64", "3", "3", ""],
        [photograph, "fake", "64x64", "3", "4", "", "one too many"],
        [photograph, "fake", "64x64", "", "1", "last"],
    ])  # fmt: skip
    return table.getvalue()


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory, photograph: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a batch with good and bad rows, and how it ended."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "clips.csv").write_bytes(b"\xef\xbb\xbf" + rows_csv(photograph).encode())
    return folder, finish(start("batch", "clips.csv", "--json", cwd=folder))


def test_bad_rows_are_recorded_and_passed_over(batch):
    folder, done = batch
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["status"] for record in said] == ["done", "failed", "failed", "failed", "done"]
    assert said[0]["params"]["prompt"] == "zoom in,\nslowly\u2028now"
    assert said[1]["params"] is None
    assert "num_frames" in said[1]["reason"]
    assert "none.jpg" in said[2]["reason"]
    assert "more columns than the header" in said[3]["reason"]
    assert said[4]["params"]["num_frames"] == 16  # an empty cell is the default
    assert [{**record, "made_before": False} for record in records(folder / "results")] == said


def test_jsonl_a_line_a_clip(i2v_lab, photograph, tmp_path):
    row = {"image": str(photograph), "resolution": "64x64", "num_frames": 3, "prompt": "a\u2028b"}
    lines = [json.dumps(row, ensure_ascii=False), "", "{broken", "[1]", json.dumps({**row, "steps": 3}), "[" * 100_000,
             json.dumps({**row, "seed": 2**200, "self": 1})]  # fmt: skip
    (tmp_path / "clips.jsonl").write_text("\n".join(lines))
    (tmp_path / "config.yaml").write_text("model: fake\noutput:\n  prefix: many_\n")
    done = i2v_lab("batch", "clips.jsonl", "--json")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [record["status"] for record in said] == ["done", *["failed"] * 5]
    assert said[0]["params"]["model"] == "fake"
    assert said[0]["params"]["prompt"] == "a\u2028b"
    assert Path(said[0]["clip"]).name.startswith("many_")
    for record, expected in zip(
        said[1:], ["line 3 is not JSON", "line 4: expected an object", "steps: unknown", "line 6", "self"], strict=True
    ):
        assert expected in record["reason"]
        assert "Traceback" not in record["reason"]
    (tmp_path / "good.jsonl").write_text(lines[0])
    assert answer(i2v_lab("batch", "good.jsonl", "--json"))["made_before"] is True


COMMAS = 'image,seed,guidance_scale,prompt\nx.png,1,7.5,"zoom in, slowly"\ny.png,2,,\'=1\n'
SEMICOLONS = "image;seed;guidance_scale;prompt;;\nx.png;1;7,5;zoom in, slowly;;\n;;;;;\ny.png;2;;'=1;;\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(COMMAS, "utf-8"), (SEMICOLONS, "utf-8-sig"), ("sep=;\r\n" + SEMICOLONS.replace("\n", "\r\n"), "utf-8"),
     (SEMICOLONS.replace(";", "\t"), "utf-16"), (COMMAS.replace("image,seed", ' image,"seed"'), "utf-16-be")],
)  # fmt: skip
def test_a_table_as_the_excel_of_any_country_writes_it(text, encoding, tmp_path):
    (tmp_path / "a.csv").write_bytes((b"\xfe\xff" if encoding == "utf-16-be" else b"") + text.encode(encoding))
    assert [{name: cell for name, cell in row.items() if cell} for row in read_rows(tmp_path / "a.csv")] == [
        {"image": "x.png", "seed": "1", "guidance_scale": "7.5", "prompt": "zoom in, slowly"},
        {"image": "y.png", "seed": "2", "prompt": "=1"},
    ]


def test_a_prompt_is_no_formula_in_the_table_of_runs(i2v_lab, photograph, tmp_path):
    row = {"model": "fake", "image": str(photograph), "resolution": "64x64", "num_frames": 2, "prompt": "=HYPERLINK(A1)"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert i2v_lab("batch", "a.jsonl").returncode == 0
    (made,) = csv.DictReader(io.StringIO(i2v_lab("runs", "--csv").stdout))
    assert (made["prompt"], made["seed"]) == ("'=HYPERLINK(A1)", "0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("image,steps,guidance\nx,3,4\n", "'steps', 'guidance'"), ("", "at least one row"), ("image\n", "at least one row"),
     ("seed,seed\n1,2\n", "'seed' twice"), (None, "expected a CSV or JSONL file")],
)  # fmt: skip
def test_a_table_that_is_none_is_one_line_before_anything_runs(text, expected, inside, tmp_path):
    if text is not None:
        (tmp_path / "clips.csv").write_text(text)
    assert expected in complaint(inside("batch", "clips.csv", "--json"), code=2)
    assert not (tmp_path / "results" / "clips").exists() or not list((tmp_path / "results" / "clips").iterdir())


def test_the_table_of_runs_can_be_read(batch, i2v_lab):
    folder, done = batch
    said = [json.loads(line) for line in done.stdout.splitlines()]
    shown = i2v_lab("runs", cwd=folder)
    assert shown.returncode == 0
    for record, line in zip(said, shown.stdout.splitlines()[1:], strict=True):
        if record["clip"]:
            assert f"clips/{Path(record['clip']).name}" in line
            assert line.split()[2:4] == ["64x64", str(record["params"]["num_frames"])]
        else:
            assert f"failed {record['id']}" in line
            assert line.endswith(record["reason"])
    newest = i2v_lab("runs", "--limit", "1", cwd=folder).stdout.splitlines()
    assert len(newest) == 2
    assert Path(said[-1]["clip"]).name in newest[1]


def test_pandas_reads_the_csv_of_runs(batch, i2v_lab, inside):
    folder, done = batch
    said = [json.loads(line) for line in done.stdout.splitlines()]
    table = pd.read_csv(io.StringIO(i2v_lab("runs", "--csv", cwd=folder).stdout))
    assert table["id"].tolist() == [record["id"] for record in said]
    assert table["clip"].fillna("").tolist() == [record["clip"] for record in said]
    assert table["seed"].dropna().tolist() == [1, 3, 1]
    only = pd.read_csv(io.StringIO(i2v_lab("runs", "--csv", "--status", "done", cwd=folder).stdout))
    assert only["status"].tolist() == ["done", "done"]
    assert [record["status"] for record in records(folder / "results", "--status", "failed")] == ["failed"] * 3
    assert "--status" in complaint(inside("runs", "--status", "good"), code=2)


def test_no_runs_yet_is_said_and_a_reader_who_leaves_is_no_error(batch, i2v_lab, tmp_path):
    assert "no such runs" in complaint(i2v_lab("runs"), code=0)
    store = Store(tmp_path / "results")
    one = Store(batch[0] / "results").records()[0]
    store.save_many(one.model_copy(update={"id": f"{number:06}"}) for number in range(2000))
    with start("runs", "--json", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["id"] == "000000"
        process.stdout.close()
        assert process.stderr.read() == ""
