"""Files that people write: YAML 1.2, and no text that ends in anything but a sweep or one line."""

from __future__ import annotations

import csv
import io
import math
from contextlib import suppress

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import InputError, SweepError
from i2v_lab.sweep import Sweep, parse_sweep
from i2v_lab.textfile import parse_yaml, plain_text, read_text, safe_csv


@pytest.mark.parametrize(("text", "value"), [
    ("yes", "yes"), ("off", "off"), ("true", True), ("False", False), ("~", None), ("", None), ("1:30:00", "1:30:00"), ("12:30", "12:30"),
    ("2026-11-26", "2026-11-26"), ("010", 10), ("0o17", 15), ("0x1F", 31), ("1_000", "1_000"), ("1e3", 1000.0), (".5", 0.5), ("-.inf", -math.inf),
    ("[a, 1]", ["a", 1]), ("{a: {b: 1}}", {"a": {"b": 1}}), ("'1'", "1"), ('"\\u732b"', "猫"),
])  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert parse_yaml(f"x: {text}", SweepError, "")["x"] == value


@pytest.mark.parametrize(("text", "why"), [
    ("x: " + "9" * 5000, "line 1, column 4: expected a whole number of at most 100 digits"),
    ("a: 1\nx: !!set {a, b}", "line 2, column 4: could not determine a constructor for the tag"),
    ("x: !!binary aGk=", "tag:yaml.org,2002:binary"),
    ("x: !!python/object/apply:os.abort []", "python/object"),
    ("x: &a [*a]", "recursive"),
    ("x: [" + "&a [1], " + "*a, " * 21 + "]", "at most 20 aliases"),
    ("x: 1\nx: 2", "line 2, column 1: x: is given twice"),
    ("[1]: 2", "unhashable"),
    ("1: 2", "1: unknown name"),
    ("x: " + "[" * 3000, "nested too deeply"),
    ("a: b: c", "line 1"),
    ("x: \0", "not allowed"),
    ("--- 1\n--- 2", "line 2"),
])  # fmt: skip
def test_what_is_no_such_value_is_one_line_with_its_place(text: str, why: str) -> None:
    with pytest.raises(SweepError) as caught:
        parse_yaml(text, SweepError, "")
    assert why in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize(("text", "line"), [
    ("name: a b\naxes: {seed: [1]}", 1), ("base:\n  image: x\n  promt: y", 3), ("axes:\n  seed:\n    - {a: 1}", 2),
    ("seeds: [1]\nzip: [[seed, fps]]", 2),
])  # fmt: skip
def test_a_fault_names_its_line(text: str, line: int) -> None:
    with pytest.raises(SweepError) as caught:
        parse_sweep(text).cells()
    assert str(caught.value).startswith(f"line {line}: ")


NAMES = st.sampled_from([*ClipParams.model_fields, *Sweep.model_fields, "sed", "<<", ""])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates(),
    st.sampled_from(["1..9 step 2", "1..9 count 3", "1.." + "9" * 400 + " step 1", "a -> [b, c]", "[1, 2]", "[", "9" * 5000, "1e999", "64x64",
                     "512p", "1/0", "24000/1001", ".inf", "auto", "1..2 step 1e-999", "seed > 1", "seed ** 9", "fps % 0 == 1", "where",
                     "猫\u202e\x1b"]),
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8)
FILES = st.dictionaries(NAMES, VALUES, max_size=5) | st.fixed_dictionaries(
    {"base": st.dictionaries(NAMES, VALUES, max_size=3)},
    optional={
        "axes": st.dictionaries(NAMES, VALUES, max_size=3),
        "seeds": VALUES,
        "where": SCALARS,
        "zip": VALUES,
        "order": VALUES,
        "name": SCALARS,
    },
)
TEXTS = FILES.map(lambda file: yaml.safe_dump(file, allow_unicode=True)) | st.text(
    alphabet="ab:-[]{}&*!?|>'\"#%@,\n 01.~<\t", max_size=60
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(TEXTS)
def test_every_file_is_a_sweep_or_one_line(text: str) -> None:
    try:
        sweep = parse_sweep(text)
        with suppress(SweepError):
            again = parse_sweep(sweep.to_yaml())
            assert [cell.params for cell in again.cells()] == [cell.params for cell in sweep.cells()]
    except SweepError as error:
        assert "\n" not in str(error)


FORMULAS = ["=1+1", "=cmd|'/C calc'!A0", "+2 cups", "-x", "@SUM(1)", "\t=1", "\n=1", "＝1", "'=1", "''-x"]
PLAIN = ["a\n=1", "a = b", "'tis a cat", "'", "", "-1.5", "+3", "-1e-5", "猫", "24000/1001", None]


def test_no_text_of_a_table_becomes_a_formula_and_each_can_be_read_back():
    texts = FORMULAS + PLAIN
    table = pd.DataFrame(
        {"prompt": pd.array(texts, "string"), "seed": range(-1, len(texts) - 1), "kind": pd.Categorical(texts), "=x": -1.5}
    )
    written = safe_csv(table).to_csv(index=False)
    rows = list(csv.reader(io.StringIO(written, newline="")))[1:]
    for (prompt, seed, kind, number), text, place in zip(rows, texts, range(-1, 99), strict=False):
        assert prompt == kind
        assert (prompt == text or not text) if text in PLAIN else prompt == f"'{text}"
        assert plain_text(prompt) == (text or "")
        assert (seed, number) == (str(place), "-1.5")
    assert table["prompt"][0] == "=1+1"  # the table itself stays
    again = pd.read_csv(io.StringIO(written), keep_default_na=False)["prompt"].map(plain_text).tolist()
    assert again == [value or "" for value in texts]
    broken = safe_csv(pd.DataFrame({"prompt": ["a\r=1", "\r\n=1"]})).to_csv(index=False)  # a \r alone would begin a row
    assert pd.read_csv(io.StringIO(broken, newline=""))["prompt"].tolist() == ["a\n=1", "'\n=1"]


def test_text_as_excel_and_powershell_write_it(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.csv").write_text("é猫", encoding=encoding)
        assert read_text(tmp_path / "a.csv", InputError, "a text") == "é猫"
    for data in ("é".encode("cp1252"), "走着的猫".encode("gbk"), b"\xff\xfea"):
        (tmp_path / "a.csv").write_bytes(data)
        with pytest.raises(InputError, match="UTF-8; got another encoding: save it as UTF-8"):
            read_text(tmp_path / "a.csv", InputError, "a text")
