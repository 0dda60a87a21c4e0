"""The commands `i2v-lab show` and `i2v-lab delete`: one run, by its clip or its id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from i2v_lab.cli.options import AsJson, with_settings
from i2v_lab.cli.terminal import each, remark, runs_in_words, show_pairs, tell, tell_json
from i2v_lab.errors import ClipError, InputError

if TYPE_CHECKING:
    from i2v_lab.clip.record import RunRecord
    from i2v_lab.settings import Settings
    from i2v_lab.store import Store

FIRST = (
    "prompt", "negative_prompt", "image", "model", "resolution", "num_frames", "fps", "num_inference_steps", "guidance_scale", "seed",
)  # fmt: skip


@with_settings("output_dir")
def show(
    settings: Settings,
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP|ID...", help="files that i2v_lab made, or ids of runs")],
    as_json: AsJson = False,
) -> None:
    """Show how clips were made: settings, time, memory, metrics."""
    from i2v_lab.store import Store

    def one(clip: Path) -> int:
        inside = _inside(clip, Store(settings.output.directory) if settings.output.directory.is_dir() else None)
        if as_json:
            tell_json(inside)
            return 0
        if len(clips) > 1:
            tell(clip, "bold")
        show_pairs(_lines(_fields(inside, "params"), _fields(inside, "record")))
        return 0

    raise typer.Exit(each(clips, one))


def _inside(clip: Path, store: Store | None) -> Mapping[str, Any]:
    """The params and the record of a run: what the clip carries, and what the store knows beside it."""
    from i2v_lab.clip.video import read_settings

    record = store and store.get(str(clip))
    if record:
        return {"params": record.params.plain() if record.params else {}, "record": _plain(record)}
    inside = dict(read_settings(clip))
    carried = _fields(inside, "record")
    record = store.get(str(carried.get("id"))) if store else None
    if record and record.frames_sha256 == carried.get("frames_sha256"):  # what was known only after the file was written
        inside["record"] = carried | {name: value for name, value in _plain(record).items() if value not in (None, "", [], {})}
    return inside


def _plain(record: RunRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude={"params", "host", "pid"})


def _fields(inside: Mapping[str, Any], part: str) -> dict[str, Any]:
    """One part of what a clip carries, which may be anything."""
    found = inside.get(part)
    return found if isinstance(found, dict) else {}


def _lines(params: Mapping[str, Any], record: Mapping[str, Any]) -> Iterable[tuple[str, object]]:
    """(name, value): what was asked for, how it ended, what it cost, what it looks like, and then what only a program needs."""
    left = dict(record)
    yield from ((name, params[name]) for name in FIRST if name in params)
    yield from ((name, value) for name, value in params.items() if name not in FIRST)
    for name in ("status", "reason", "clip", "created", "device_name"):
        if value := left.pop(name, None):
            yield name, value
    yield from _measured("seconds", left.pop("seconds", {}), "s")
    for name in [name for name in left if name.endswith("_gib")]:
        if isinstance(value := left.pop(name), int | float):
            yield name.removesuffix("_gib"), f"{value:.2f} GiB"
    yield from _measured("metric", left.pop("metrics", {}), "")
    left["actual_dtype"] = left.pop("dtype", None)  # beside that of the params
    for name, value in left.items():
        if value not in (None, "", [], {}):
            yield name, ", ".join(f"{part} {text}" for part, text in value.items()) if isinstance(value, dict) else value


def _measured(name: str, values: Any, unit: str) -> Iterable[tuple[str, object]]:
    for part, value in values.items() if isinstance(values, dict) else ():
        yield f"{name} {part}", f"{value:.4g} {unit}".rstrip() if isinstance(value, int | float) else "no value"


@with_settings("output_dir")
def delete(
    settings: Settings,
    clips: Annotated[
        list[Path] | None, typer.Argument(metavar="[CLIP|ID]...", help="clips of the output folder, or ids of runs")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="bring them back; without names, those deleted last")] = False,
    empty: Annotated[bool, typer.Option("--empty-trash", help="remove all that was deleted for good")] = False,
) -> None:
    """Delete runs and their clips; --undo brings them back. Until then the clips are in clips/.trash of the output folder."""
    from i2v_lab.store import Store

    names = [str(clip) for clip in clips or ()]
    if empty + undo + bool(names) == 0 or (empty and (undo or names)):
        raise InputError("expected clips or ids of runs, --undo, or --empty-trash alone; i2v-lab runs shows them")
    store = Store(settings.output.directory)
    if empty:
        remark(f"removed {runs_in_words(store.empty_trash())} for good")
    elif undo:
        remark(f"brought back {runs_in_words(len(store.undelete(*names)))}")
    else:
        ids = dict.fromkeys(_run_of(clip, store).id for clip in clips or ())
        store.delete(*ids)
        remark(f"deleted {runs_in_words(len(ids))}; undo it with i2v-lab delete --undo")


def _run_of(clip: Path, store: Store) -> RunRecord:
    """The run of an id, or of a clip in the output folder."""
    found = store.get(str(clip)) or store.find_clip(clip)
    if found is None:
        expected = f"expected a clip in {store.clips} or the id of a run, got {clip}"
        raise ClipError(f"{expected}: it belongs to no run there; i2v-lab runs lists them, --output-dir names another folder")
    return found
