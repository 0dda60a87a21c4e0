"""Text files that people write and read: UTF-8 (or UTF-16, as Excel writes it), YAML 1.2, and CSV without formulas."""

from __future__ import annotations

import codecs
import re
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from i2v_lab.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd

DIGITS_MAX = 100  # of a whole number
ALIASES_MAX = 20  # of a file: a few that hold each other can stand for billions of values


def read_text(path: Path, error: type[InputError], expected: str) -> str:
    """The text of a file. Raises `error`, one line, where it cannot be read; `expected` says what it should be."""
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text", PowerShell's `>`
        return data.decode("utf-16" if wide else "utf-8-sig")
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem}); expected {expected}") from None
    except UnicodeDecodeError:  # Windows-1252 and GBK cannot be told apart for certain, and a wrong guess would change prompts
        hint = "save it as UTF-8 (in Excel: Save As, CSV UTF-8)"
        raise error(f"{path}: expected {expected}, as text in UTF-8; got another encoding: {hint}") from None


# A spreadsheet takes a cell that begins so for a formula, also where it stands in quotes; in some languages the wide signs too.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def safe_csv(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it may be written to CSV: no text in it can become a formula of a spreadsheet.

    A text that begins with = + - @, a tab or a line break gets an apostrophe in front (and so does one that begins with
    apostrophes before one of these), unless it is a number. Numbers, times and all other texts stay; line breaks are \\n, since
    a single \\r would not be quoted and begin a row. `plain_text` takes the apostrophe off again; table.parquet and runs.db
    have the texts as they are.
    """
    import pandas as pd

    kinds = pd.api.types
    texts = [
        place
        for place, kind in enumerate(table.dtypes)
        if kinds.is_object_dtype(kind) or kinds.is_string_dtype(kind) or isinstance(kind, pd.CategoricalDtype)
    ]
    safe = table.copy()
    for place in texts:
        safe.isetitem(place, [_safe_text(value) for value in table.iloc[:, place]])
    return safe


def _safe_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def plain_text(cell: str) -> str:
    """The text that `safe_csv` wrote as this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def parse_yaml(text: str, error: type[InputError], expected: str, lines: dict[str, int] | None = None) -> dict[str, Any]:
    """The names and values in a YAML (or JSON) text; {} where it says nothing.

    Values are texts, whole numbers, other numbers, booleans, nulls, lists and mappings, as YAML 1.2 reads them: `yes` and `1:30`
    are texts.

    Args:
        lines: gets the line of each name, from 1.

    Raises:
        InputError: `error`, one line, with the line and the column of what is wrong.
    """
    try:
        loader = _Loader(text)
        loader.lines = {} if lines is None else lines
        found = loader.get_single_data()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise error(f"not valid YAML{place}: {printable(problem.problem or problem)}") from None
    except yaml.YAMLError as problem:  # a character that no YAML text may have
        raise error(f"not valid YAML: {' '.join(str(problem).split())}") from None
    except RecursionError:
        raise error("not valid YAML: it is nested too deeply") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise error(f"expected {expected}, got a {type(found).__name__}")
    if odd := [key for key in found if not isinstance(key, str)]:
        raise error(f"{odd[0]!r}: unknown name; names are texts")
    return found


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars; a key that is given twice is an error, where PyYAML would silently keep the last."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as the base class says it
    yaml_constructors: ClassVar[dict[Any, Any]] = {}
    aliases = 0
    lines: dict[str, int]

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > ALIASES_MAX:
                raise _fault(f"expected at most {ALIASES_MAX} aliases (*name)", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        return super().construct_object(node, deep=True)  # a list that holds itself is found

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _fault("expected a mapping", node.start_mark)
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(getattr(key, "value", ""))
            if name in seen and name != "<<":
                raise _fault(f"{name}: is given twice; keep one of them", key.start_mark)
            seen.add(name)
            self.lines.setdefault(name, key.start_mark.line + 1)
        return super().construct_mapping(node, deep)


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    try:
        if len(text) <= DIGITS_MAX:
            return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    except ValueError:  # `!!int x`
        pass
    raise _fault(f"expected a whole number of at most {DIGITS_MAX} digits, got {text[:40]}", node.start_mark)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = str(node.value)
    try:
        return float(re.sub(r"^([+-]?)\.(inf|nan)$", r"\1\2", text, flags=re.IGNORECASE))
    except ValueError:  # `!!float x`
        raise _fault(f"expected a number, got {text[:40]}", node.start_mark) from None


def _truth(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    if str(node.value).lower() not in ("true", "false"):
        raise _fault(f"expected true or false, got {node.value[:40]}", node.start_mark)
    return str(node.value).lower() == "true"


# The core schema of YAML 1.2, https://yaml.org/spec/1.2.2/#1032-tag-resolution; `<<` is kept, which many files use.
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_MAKE: dict[str, Any] = {
    "null": lambda loader, node: None, "bool": _truth, "int": _whole, "float": _number, "str": yaml.SafeLoader.construct_scalar,
    "seq": lambda loader, node: loader.construct_sequence(node), "map": lambda loader, node: loader.construct_mapping(node),
}  # fmt: skip
for _tag, _construct in _MAKE.items():
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct)
_Loader.add_constructor(None, yaml.SafeLoader.construct_undefined)  # type: ignore[type-var]
