"""The command line, i2v-lab: every command a program may read answers on standard output, all else is on standard error.

Exit codes: 0 done; 1 a run failed, and its record says why, or something else went wrong; 2 nothing was begun and nothing is
recorded: an option, the settings, or a file is wrong (a picture that cannot be opened, a size that the model cannot make);
130 stopped.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from i2v_lab.cli.code import code
from i2v_lab.cli.demo import demo
from i2v_lab.cli.export import export
from i2v_lab.cli.interrupt import stops
from i2v_lab.cli.measure import measure
from i2v_lab.cli.options import AsJson, Force, Picture, Preset, Tier, Words, clip_params, with_settings, with_words
from i2v_lab.cli.plan import plan
from i2v_lab.cli.serve import serve
from i2v_lab.cli.show import delete, show
from i2v_lab.cli.start import Commands, first_sentence, options
from i2v_lab.cli.sweep import sweep, sweep_screen
from i2v_lab.cli.terminal import (
    answers_alone,
    code_of,
    each,
    listening,
    record_fields,
    remark,
    show_pairs,
    show_record,
    show_runs,
    tell,
    tell_json,
    working,
)
from i2v_lab.cli.tune import tune
from i2v_lab.cli.verify import verify
from i2v_lab.errors import I2VLabError, InputError, ParamsError
from i2v_lab.log import log_path, start_log

if TYPE_CHECKING:
    from i2v_lab.clip.params import Advice, ClipParams
    from i2v_lab.clip.progress import Progress
    from i2v_lab.clip.record import RunRecord
    from i2v_lab.settings import Settings

log = logging.getLogger(__name__)
app = typer.Typer(
    name="i2v-lab", cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
app.callback()(options)


def _make(params: ClipParams, settings: Settings, progress: Progress, *, force: bool, tier: int | None) -> tuple[RunRecord, bool]:
    """Make one clip: (record, whether it was made before).

    Raises:
        InputError: it was refused before anything was begun.
    """
    from i2v_lab.clip.record import new_id
    from i2v_lab.run import run_clip
    from i2v_lab.store import Store

    id, store = new_id(), Store(settings.output.directory)
    record = run_clip(params, None, store, progress=progress, settings=settings, force=force, tier=tier, id=id)
    if record.status == "failed" and store.get(record.id) is None:
        raise InputError(record.reason)
    return record, record.id != id


def _answer(record: RunRecord, settings: Settings, as_json: bool, **more: bool) -> int:
    """Show a run to people or to a program. Returns the exit code."""
    directory = settings.output.directory.absolute()
    if as_json:
        tell_json(record_fields(record, directory) | more)
    else:
        show_record(record, directory, made_before=more.get("made_before", False))
    return {"done": 0, "stopped": 130}.get(record.status, 1)


@with_settings("output_dir", "format", "prefix", "device", "parallel")
def generate(
    settings: Settings, *, picture: Picture = None, words: Words = None, preset: Preset = None, force: Force = False,
    tier: Tier = None, as_json: AsJson = False, **fields: Any,
) -> None:  # fmt: skip
    """Make one clip from a picture. For example: i2v-lab generate photo.jpg "zoom in"."""
    start_log(settings.log.directory)
    with working("reading the picture"):
        params = clip_params(with_words(fields, picture, words), preset, settings)
        advice = _advice(params)
    for line in advice:
        remark(f"advice: {line}", "yellow")
    with listening() as progress:
        record, found = _make(params, settings, progress, force=force, tier=tier)
    raise typer.Exit(_answer(record, settings, as_json, made_before=found))


def _advice(params: ClipParams) -> list[Advice]:
    """What will probably disappoint, before anything is begun."""
    from i2v_lab import models
    from i2v_lab.clip.picture import open_picture

    with suppress(I2VLabError):  # the run says so
        picture = open_picture(params.image)
        return models.advice(models.resolve(params, lambda: picture), picture)
    return []


@with_settings("output_dir", "format", "prefix", "device", "parallel", "cluster", "workers")
def batch(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="CSV or JSONL; columns are named like the options (num_frames, ...)")],
    force: Force = False,
    tier: Tier = None,
    as_json: AsJson = False,
) -> None:
    """Make many clips, one after another; a row that fails is recorded and passed over."""
    from i2v_lab.store import Store
    from i2v_lab.sweep import SweepStop, read_rows, run_batch

    start_log(settings.log.directory)
    rows, store, stop = read_rows(file), Store(settings.output.directory), SweepStop()
    codes: list[int] = []
    with answers_alone(settings), sweep_screen(numbered=True) as screen, stops(stop.ask, ["step"]):
        for record, found in run_batch(rows, store, settings, progress=screen, stop=stop, force=force, tier=tier):
            codes.append(_answer(record, settings, as_json, made_before=found))
    raise typer.Exit(max(codes) if len(codes) == len(rows) else 130)


@with_settings("output_dir")
def runs(
    settings: Settings,
    status: Annotated[str | None, typer.Option(help="only these: done, failed, out_of_memory, stopped, running, planned")] = None,
    limit: Annotated[int, typer.Option(min=1, help="show the newest so many")] = 20,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="the whole table as CSV on standard output")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="first record the clips that no run has, from what they carry")
    ] = False,
) -> None:
    """List the runs. One whose clip was deleted is shown as gone."""
    from i2v_lab.clip.record import Status
    from i2v_lab.store import Store

    if status is not None and status not in get_args(Status):
        raise ParamsError(f"--status: expected {', '.join(get_args(Status))}, got {status!r}")
    store = Store(settings.output.directory)
    chosen: Any = status
    if rebuild:
        remark(f"{store.rebuild()} runs were recorded from their clips")
    if as_csv:
        from i2v_lab.textfile import safe_csv

        safe_csv(store.runs(status=chosen)).to_csv(sys.stdout, index=False)
    elif as_json:
        for record in store.records(status=chosen):
            tell_json(record_fields(record, store.directory) | ({"gone": True} if store.is_gone(record) else {}))
    else:
        records = store.records(status=chosen, limit=limit)
        if records:
            show_runs([(record, store.is_gone(record)) for record in records])
        else:
            remark(f'no such runs in {store.directory}; make one: i2v-lab generate sample:coffee "zoom in"')


Clips = Annotated[list[Path], typer.Argument(metavar="CLIP...", help="files that i2v_lab made")]


@with_settings("output_dir", "prefix", "device")
def again(
    settings: Settings,
    clips: Clips,
    image: Annotated[str | None, typer.Option(help="the picture, where it cannot be found by its hash")] = None,
    model: Annotated[str | None, typer.Option(help="the checkpoint's folder or hub id, where it is not found")] = None,
    tier: Tier = None,
    as_json: AsJson = False,
    format: Annotated[str | None, typer.Option(help="mp4, webm or gif [default: as the clip]")] = None,
) -> None:
    """Make clips again from the settings they carry, and say whether the frames are equal."""
    start_log(settings.log.directory)
    with listening() as progress:
        code = each(clips, lambda clip: _again(clip, settings, progress, image, model, tier, as_json, format))
    raise typer.Exit(code)


def _again(
    clip: Path, settings: Settings, progress: Progress, image: str | None, model: str | None, tier: int | None, as_json: bool,
    format: str | None,
) -> int:  # fmt: skip
    from i2v_lab import models
    from i2v_lab.clip.video import FORMATS
    from i2v_lab.run import restore
    from i2v_lab.settings import PARALLEL, load_settings
    from i2v_lab.store import Store

    own = clip.suffix.lower().removeprefix(".")
    output = {**dict(settings.output), "format": format or (own if own in FORMATS else settings.output.format)}
    params, before = restore(clip, Store(settings.output.directory), image, model)
    count = before.get("parallel", 1)
    settings = load_settings(output=output, device=settings.device, parallel=count if count in PARALLEL else 1)
    if tier is None and before.get("actual_tier") in (5, 6) and models.find(params.model)[0].pixel_changes(5, params):
        tier = 5  # decoded in tiles: only so it is the same clip
    record, _ = _make(params, settings, progress, force=True, tier=tier)
    if record.status != "done":
        return _answer(record, settings, as_json)
    equal = record.frames_sha256 == before.get("frames_sha256")
    _answer(record, settings, as_json, frames_equal=equal)
    if equal:
        remark("frames are equal to those of the first time")
        return 0
    old, processor = before.get("versions"), str(before.get("cpu_capability") or "")[:40]
    known: dict[str, Any] = old if isinstance(old, dict) else {}
    other = [
        f"{name} {str(known.get(name))[:40]}, now {now}" for name, now in record.versions.items() if known.get(name, now) != now
    ]
    if record.device == "cpu" and processor not in ("", record.cpu_capability):
        other.append(f"another kind of processor ({processor}, now {record.cpu_capability}), which changes up to 1 grey level")
    remark("frames differ from those of the first time" + (f": it was made with {'; '.join(other)}" if other else ""), "yellow")
    return 0


def models(as_json: AsJson = False) -> None:
    """List model families and the checkpoints found on this machine."""
    from i2v_lab import models as registry
    from i2v_lab.clip.params import OPTIONAL

    found = registry.local_checkpoints()
    rows: list[dict[str, Any]] = []
    for name in registry.LISTED:
        kind = registry.family(name)
        rows.append({
            "model": name, "about": kind.about, "licence": kind.licence, "condition": kind.condition,
            "native_size": list(kind.native_size), "native_fps": kind.native_fps, "size_multiple": kind.size_multiple,
            "sizes": {size: list(pixels) for size, pixels in kind.sizes.items()}, "frames": str(kind.frame_rule),
            "reads": [field for field in OPTIONAL if field in kind.reads], "schedulers": list(kind.schedulers),
            "hub_id": registry.CHECKPOINTS.get(name, ""), "size_gb": kind.size_gb,
            "checkpoints": [place for place, family in found.items() if family == name],
            "presets": {preset: dict(fields) for preset, fields in kind.presets.items()},
        })  # fmt: skip
    if as_json:
        tell_json(rows)
        return
    for row in rows:
        tell(row["model"], "bold")
        fetch = "needs none"
        if row["size_gb"]:
            how = (
                f"hf download {row['hub_id']} fetches it" if row["hub_id"] else "docs/models.md says how to put its parts together"
            )
            fetch = f"none here; {how}, about {row['size_gb']:g} GB"
        height, width = row["native_size"]
        show_pairs([
            ("  what", row["about"]),
            ("  makes", f"{height}x{width} or {', '.join(row['sizes'])}; {row['frames']}; {row['native_fps']} a second"),
            ("  presets", "; ".join(_preset(name, row["presets"]) for name in row["presets"])),
            ("  licence", f"{row['licence']}: {row['condition']}"),
            ("  checkpoints", ", ".join(row["checkpoints"]) or fetch),
        ])  # fmt: skip


def _preset(name: str, presets: Mapping[str, Mapping[str, Any]]) -> str:
    fields, plain = presets[name], presets["standard"]
    others = dict.fromkeys(("guidance_scale", "flow_shift", *fields))
    more = [key for key in others if key not in ("resolution", "num_frames", "num_inference_steps", "fps")]
    shown = [f", {key} {fields[key]}" for key in more if fields.get(key) != plain.get(key)]
    return f"{name} {fields['resolution']}, {fields['num_frames']} frames, {fields['num_inference_steps']} steps{''.join(shown)}"


@with_settings("output_dir")
def doctor(
    settings: Settings,
    as_json: AsJson = False,
    clear: Annotated[bool, typer.Option("--clear", help="first remove the networks that were converted for OpenVINO")] = False,
) -> None:
    """Check this machine: what is missing, and how to fix it."""
    from i2v_lab.cli.doctor import examine

    if clear:
        from i2v_lab.models.openvino import store

        remark(f"{store.clear() / 2**30:.1f} GiB of converted networks were removed")
    checks = examine(settings)
    if as_json:
        tell_json([check._asdict() for check in checks])
    else:
        for check in checks:
            colour = {"ok": "green", "warning": "yellow", "missing": "red"}[check.state]
            tell(f"{check.state:8} {check.name}: {check.found}" + (f"; {check.remedy}" if check.remedy else ""), colour)
    raise typer.Exit(int(any(check.state == "missing" for check in checks)))


# In the order in which people meet them.
COMMANDS = (
    demo, generate, plan, sweep, tune, serve, runs, show, again, code, delete, measure, batch, models, export, doctor, verify,
)  # fmt: skip
for command in COMMANDS:
    app.command(short_help=first_sentence(command.__doc__ or ""))(command)


def run() -> None:
    """Run the command that the command line names. No traceback reaches a person; the log has it."""
    logging.getLogger("i2v_lab").addHandler(logging.NullHandler())  # where there is no log, Python would print it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are not always text
    try:
        Path.cwd()  # torch dies without a word in a folder that was removed
        app(prog_name="i2v-lab")
    except I2VLabError as error:
        _fail(error, code_of(error))
    except MemoryError:
        _fail("the machine ran out of memory; close other programs, or choose a smaller clip", 1)
    except ImportError as error:
        log.exception("a package cannot be imported")
        _fail(f"a package is missing or damaged ({error}): install i2v_lab again", 1)
    except OSError as error:
        log.exception("an error of the operating system")
        _fail(_in_words(error), 1)
    except Exception as error:
        where = log_path() or start_log(Path("logs"))
        log.exception("unexpected error")
        _fail(f"unexpected {type(error).__name__}: {error}" + (f"; {where} has the details" if where else ""), 1)


def _in_words(error: OSError) -> str:
    from i2v_lab.clip.publish import disk_full, is_full

    try:
        here = Path.cwd()
    except FileNotFoundError:
        return "the current folder was removed; change to another one"
    if is_full(error):
        return disk_full(Path(error.filename).parent if error.filename else here)
    return f"{error.filename or 'a file'}: {error.strerror or error}; check that the file, its folder and its disk can be used"


def _fail(error: I2VLabError | str, code: int) -> None:
    log.error("%s", error)
    remark(f"error: {error}", "red")
    sys.exit(code)
