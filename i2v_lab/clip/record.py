"""RunRecord: what is kept of one attempt to make a clip; and how records become rows, and rows a DataFrame.

The columns are made from the fields of RunRecord and ClipParams, in the order they are declared there, so a new field
is a new column, and no other code changes.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from i2v_lab.clip.params import ClipParams, resolution_size
from i2v_lab.errors import ParamsError, StoreError, explain

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["planned", "running", "done", "failed", "out_of_memory", "stopped"]
STAGES = ("load", "encode", "denoise", "decode", "write", "total")  # those with a column of their own


def _to_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("expected a time with its zone")
    return moment.astimezone(UTC)


def _inside(clip: str) -> str:
    path = PurePosixPath(clip)
    if path.is_absolute() or ".." in path.parts or "\\" in clip:
        raise ValueError(f"expected a path inside the output folder, with /, got {clip!r}")
    return clip


Moment = Annotated[datetime, AfterValidator(_to_utc)]


class RunRecord(BaseModel):
    """One attempt to make a clip. The order of the fields is the order of the table's columns.

    Attributes:
        id: unique, and sorts by time; see `new_id`.
        reason: why it did not end with a clip, in words.
        params: None where they were not valid (a bad row of a batch): `reason` says why.
        seconds: wall seconds of each stage, and "total".
        peak_ram_gib, peak_vram_allocated_gib, peak_vram_reserved_gib, predicted_peak_gib: highest memory, GiB.
        ram_rise_gib: by how much the process grew while the clip was made, from the end of loading to the highest point, GiB: unlike
            `peak_ram_gib` it does not count what the process held already.
        first_of_shape: whether it was the first clip of its size, frames, scheduler, guidance, dtype and tier in its process:
            its time has what is done once a shape (tuning, compiling, allocating) in it. None in records of older versions.
        requested_tier, actual_tier: tiers of the memory ladder.
        clip: the clip's path relative to the output folder, with /; "" where there is none.
        retimed_from: the run whose frames the clip shows at another rate; "" where they were made for this one.
        padded_rows, padded_columns: what was added to the frames to make their sides even.
        metrics: what the clip looks like in numbers; None where a metric has no value.
        notes: what else a reader should know (first frame of an animation, say).
        key: hash of all that decides the pixels; "" where the params were not valid.
        created, finished: UTC; None where it has not finished.
        cpu_capability: the widest instructions that torch used on the CPU (DEFAULT, AVX2, AVX512): frames made on a CPU are equal
            only where it is. "" in records of older versions.
        device, device_name, dtype: what was really used. In the table `dtype` is what the params asked for, and this
            one is `actual_dtype`.
        versions: of what the frames depend on.
        host, pid: the process that makes the clip.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(min_length=1)]
    status: Status
    reason: str = ""
    params: ClipParams | None = None
    seconds: dict[str, float] = {}
    seconds_per_step: float | None = None
    peak_ram_gib: float | None = None
    peak_vram_allocated_gib: float | None = None
    peak_vram_reserved_gib: float | None = None
    ram_rise_gib: float | None = None
    predicted_peak_gib: float | None = None
    first_of_shape: bool | None = None
    requested_tier: int | None = None
    actual_tier: int | None = None
    clip: Annotated[str, AfterValidator(_inside)] = ""
    retimed_from: str = ""
    file_bytes: int | None = None
    frames_sha256: str = ""
    padded_rows: int = 0
    padded_columns: int = 0
    metrics: dict[str, float | None] = {}
    notes: tuple[str, ...] = ()
    sweep: str = ""
    key: str = ""
    created: Moment = Field(default_factory=lambda: datetime.now(UTC))
    finished: Moment | None = None
    image_sha256: str = ""
    model_name: str = ""
    model_fingerprint: str = ""
    device: str = ""
    device_name: str = ""
    parallel: int = 1
    cpu_capability: str = ""
    dtype: str = ""
    versions: dict[str, str] = {}
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)


def new_id(moment: datetime | None = None) -> str:
    """A name for a run that no other has, and that sorts by time: 20261122T181530.123456-ab12cd34 (UTC)."""
    return f"{(moment or datetime.now(UTC)).astimezone(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"


Kind = Literal["text", "integer", "real", "time", "json"]
SQL_TYPES: dict[Kind, str] = {"text": "TEXT", "integer": "INTEGER", "real": "REAL", "time": "TEXT", "json": "TEXT"}


@dataclass(frozen=True)
class Column:
    """One column of the table: `name` in SQL and in pandas; the field it holds, of RunRecord ("", field), of the
    params ("params", field) or a stage of ("seconds", stage)."""

    name: str
    kind: Kind
    group: Literal["", "params", "seconds"]
    field: str


def _kind(annotation: Any) -> Kind:
    """How values of a field's type are kept."""
    if get_origin(annotation) in (Annotated, Literal, Union, types.UnionType):
        first = next(part for part in get_args(annotation) if part is not type(None))
        return _kind(type(first) if isinstance(first, str) else first)
    kinds: tuple[tuple[type, Kind], ...] = (
        (int, "integer"), (float, "real"), (str, "text"), (Fraction, "text"), (Path, "text"), (datetime, "time")
    )  # fmt: skip
    return next((kind for base, kind in kinds if isinstance(annotation, type) and issubclass(annotation, base)), "json")


def _columns() -> tuple[Column, ...]:
    found: list[Column] = []
    for name, field in RunRecord.model_fields.items():
        if name == "params":
            found += [Column(param, _kind(about.annotation), "params", param) for param, about in ClipParams.model_fields.items()]
        elif name == "seconds":
            found += [Column(f"seconds_{stage}", "real", "seconds", stage) for stage in STAGES]
            found.append(Column("seconds_other", "json", "", "seconds"))  # stages that have no column
        else:
            # What the params ask for keeps the plain name; what came of it is the actual one.
            column = f"actual_{name}" if name in ClipParams.model_fields else name
            found.append(Column(column, _kind(field.annotation), "", name))
    return tuple(found)


COLUMNS = _columns()


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")  # of one length, so that text sorts by time


def writable(text: str) -> str:
    """The text, as UTF-8 can hold it: a reason may quote the name of a file that is not valid text."""
    return text.encode(errors="backslashreplace").decode()


def _plain(value: Any) -> Any:
    """A number or a text of a JSON column, as JSON in UTF-8 can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return writable(value) if isinstance(value, str) else value


def json_text(value: Any) -> str:
    """A mapping or a list of plain values, as a column of JSON has it."""
    plain = {name: _plain(part) for name, part in value.items()} if isinstance(value, Mapping) else [_plain(part) for part in value]
    return json.dumps(plain, ensure_ascii=False)


def to_row(record: RunRecord) -> tuple[Any, ...]:
    """The record as the values of COLUMNS."""
    others = {stage: seconds for stage, seconds in record.seconds.items() if stage not in STAGES}
    params = record.params.plain() if record.params else {}
    groups = {"": {**dict(record), "seconds": others}, "params": params, "seconds": record.seconds}
    return tuple(_cell(groups[column.group].get(column.field), column.kind) for column in COLUMNS)


def _cell(value: Any, kind: Kind) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json_text(value)
    if kind == "time":
        return stamp(value)
    return writable(str(value)) if kind == "text" else value


def from_row(row: Sequence[Any]) -> RunRecord:
    """The record in a row of COLUMNS. Columns that an older version did not write are at their defaults."""
    groups: dict[str, dict[str, Any]] = {"": {}, "params": {}, "seconds": {}}
    try:
        for column, value in zip(COLUMNS, row, strict=True):
            if value is not None:
                groups[column.group][column.field] = json.loads(value) if column.kind == "json" else value
        fields = groups[""]
        fields["seconds"] = {**groups["seconds"], **fields.get("seconds", {})}
        if groups["params"]:
            try:
                fields["params"] = ClipParams(**groups["params"])
            except ParamsError as error:  # another version allowed them
                fields["notes"] = [*fields.get("notes", ()), f"params that this version does not take: {error}"]
        return RunRecord.model_validate(fields)
    except ValidationError as error:
        raise StoreError(f"run {row[0]!r} in the record of runs cannot be read: {explain(error, RunRecord)}") from None
    except (ValueError, TypeError) as error:
        raise StoreError(f"run {row[0]!r} in the record of runs cannot be read: {error}") from None


def table(chunks: Iterable[Sequence[Sequence[Any]]], directory: Path) -> pd.DataFrame:
    """The DataFrame of rows of COLUMNS.

    Args:
        chunks: lists of rows, none of them empty.
        directory: the output folder, absolute: what the clips' paths begin with.

    Returns:
        One row a run. Columns are COLUMNS, but: height and width in pixels follow resolution; fps is a number; clip is
        an absolute path; any stage without a column is seconds_<stage>, a metric is metric_<name>; notes are one
        text. Types are str, Int64, float64 and datetime64 in UTC; what is missing is NaN or NA.

    Raises:
        StoreError: a value is not of its column's type.
    """
    import pandas as pd
    import pyarrow as pa  # type: ignore[import-untyped]

    kinds = {"text": pa.string(), "integer": pa.int64(), "real": pa.float64(), "time": pa.string(), "json": pa.string()}
    parts: list[list[Any]] = [[] for _ in COLUMNS]
    try:
        # Column by column and chunk by chunk: 100,000 rows are some six million Python objects, never all there at once.
        for rows in chunks:
            for column, values, arrays in zip(COLUMNS, zip(*rows, strict=True), parts, strict=True):
                arrays.append(pa.array(values, kinds[column.kind]))
        found: dict[str, Any] = {}
        for column, arrays in zip(COLUMNS, parts, strict=True):
            found.update(_pandas_columns(column, pa.chunked_array(arrays, kinds[column.kind]), directory))
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # Arrow's own errors are among them
        raise StoreError(f"the record of runs in {directory} has a value that cannot be read: {error}") from None
    return pd.DataFrame(found)


def _pandas_columns(column: Column, values: Any, directory: Path) -> dict[str, Any]:
    """The columns of the DataFrame that one column of the database (a pyarrow.ChunkedArray) becomes, by name."""
    import pandas as pd
    import pyarrow as pa

    if column.kind == "real":
        return {column.name: values.to_pandas()}
    if column.kind == "integer":
        return {column.name: values.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)}
    if column.kind == "time":
        return {column.name: values.cast(pa.timestamp("us", "UTC")).to_pandas()}
    prefix = {"seconds_other": "seconds_", "metrics": "metric_"}.get(column.name)
    return _text_columns(column.name, values, directory) if prefix is None else _expanded(values, prefix)


def _text_columns(name: str, values: Any, directory: Path) -> dict[str, Any]:
    """As `_pandas_columns`, for text. What takes some work is done once for each distinct text."""
    import pandas as pd
    import pyarrow as pa

    try:
        kinds = {pa.string(): pd.StringDtype(na_value=math.nan)}
    except TypeError:  # pandas before 2.3, as on Colab: texts are objects
        kinds = {}
    texts = values.to_pandas(types_mapper=kinds.get)
    distinct = [text for text in values.unique().to_pylist() if text is not None] if name in ("notes", "fps", "resolution") else []
    if name == "clip":
        return {name: (f"{directory.as_posix()}/" + texts).where(texts != "")}
    if name == "notes":
        return {name: texts.map({text: "; ".join(json.loads(text)) for text in distinct}).astype(texts.dtype)}
    if name == "fps":
        return {name: texts.map({text: float(Fraction(text)) for text in distinct}).astype("float64")}
    if name == "resolution":
        heights, widths = ({text: resolution_size(text)[side] for text in distinct} for side in (0, 1))
        return {name: texts, "height": texts.map(heights).astype("Int64"), "width": texts.map(widths).astype("Int64")}
    return {name: texts}


def _expanded(values: Any, prefix: str) -> dict[str, Any]:
    """A float column for each name in a column of JSON objects; none where all are empty."""
    import numpy as np

    objects = json.loads(f"[{','.join(text or '{}' for text in values.to_pylist())}]")
    names = dict.fromkeys(name for item in objects for name in item)
    return {prefix + name: np.array([item.get(name) for item in objects], np.float64) for name in names}
