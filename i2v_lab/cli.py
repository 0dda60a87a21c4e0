"""The command line, i2v-lab: every command a program may read answers on standard output, all else is on standard error.

The options of a clip are made from ClipParams. Exit codes: 0 done; 1 a run failed; 2 the input was wrong; 130 stopped.
"""

from __future__ import annotations

import inspect
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from i2v_lab.errors import I2VLabError, InputError, ParamsError, Stop
from i2v_lab.terminal import err, listening, out, show_advice, show_record, start_log

if TYPE_CHECKING:
    from i2v_lab.params import ClipParams
    from i2v_lab.record import RunRecord
    from i2v_lab.settings import Settings

log = logging.getLogger(__name__)
app = typer.Typer(
    name="i2v-lab", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Find out what the parameters of an image-to-video model do.",
)  # fmt: skip

OutputDir = Annotated[Path | None, typer.Option("--output-dir", help="folder of clips and records [default: results]")]
AsJson = Annotated[bool, typer.Option("--json", help="answer as JSON on standard output")]
Format = Annotated[str | None, typer.Option("--format", help="mp4, webm or gif [default: mp4]")]
Prefix = Annotated[str | None, typer.Option("--prefix", help="what the clip's name begins with")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N [default: auto]")]
Force = Annotated[bool, typer.Option("--force", help="make it anew even where the same clip was made before")]


def _option(name: str) -> Any:
    """The option of one field of ClipParams: its type, and help with unit, range and default."""
    from pydantic_core import PydanticUndefined

    from i2v_lab.params import ClipParams

    field = ClipParams.model_fields[name]
    kind = field.annotation if field.annotation in (int, float) else str
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    limits = {type(item).__name__: item for item in field.metadata}
    help = field.description or ""
    if get_origin(field.annotation) is Literal:
        help += f": {', '.join(get_args(field.annotation))}"
    if "Ge" in limits and "Le" in limits and limits["Le"].le < 2**31:
        help += f", {limits['Ge'].ge} to {limits['Le'].le}"
    if extra.get("unit"):
        help += f" ({extra['unit']})"
    if field.default is PydanticUndefined:
        help += " [required]"
    elif field.default != "":
        help += f" [default: {field.default}]"
    return Annotated[kind | None, typer.Option(f"--{name.replace('_', '-')}", help=help, show_default=False)]


def _with_params(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `**fields` an option for every field of ClipParams."""
    from i2v_lab.params import ClipParams

    def parameter(name: str, annotation: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)

    signature = inspect.signature(command, eval_str=True)
    own = [item for item in signature.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [parameter(name, _option(name)) for name in ClipParams.model_fields]
    command.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in [*options, *own]}
    return command


def _settings(
    output_dir: Path | None = None, format: str | None = None, prefix: str | None = None, device: str | None = None
) -> Settings:
    from i2v_lab.settings import load_settings

    output = {"directory": output_dir, "format": format, "prefix": prefix}
    return load_settings(output=output, device=device)


def _params(fields: dict[str, Any], preset: str | None, settings: Settings) -> ClipParams:
    """Params from the options given, above the preset, above the defaults."""
    from i2v_lab import models
    from i2v_lab.params import ClipParams

    given = {name: value for name, value in fields.items() if value is not None}
    given.setdefault("model", settings.model)
    return ClipParams(**{**(models.preset(given["model"], preset) if preset else {}), **given})


def _run(params: ClipParams, settings: Settings, *, force: bool) -> tuple[RunRecord, bool]:
    """Make one clip while the terminal shows progress: (record, whether it was made before)."""
    from i2v_lab.run import run_clip
    from i2v_lab.store import Store

    with listening() as progress:
        before = Store(settings.output.directory)
        record = run_clip(params, None, before, progress=progress, settings=settings, anew=force)
    return record, record.pid != _pid() or record.finished is None


def _pid() -> int:
    import os

    return os.getpid()


def _answer(record: RunRecord, settings: Settings, as_json: bool, found: bool) -> None:
    directory = settings.output.directory.absolute()
    if as_json:
        sys.stdout.write(record_json(record, directory) + "\n")
    else:
        show_record(record, directory, found=found)


def record_json(record: RunRecord, directory: Path) -> str:
    """A record as one JSON object on one line; the clip is an absolute path."""
    plain = record.model_dump(mode="json")
    plain["clip"] = str(directory / record.clip) if record.clip else ""
    return json.dumps(plain, ensure_ascii=False)


def _exit_code(record: RunRecord) -> int:
    return {"done": 0, "stopped": 130}.get(record.status, 1)


@app.command()
@_with_params
def generate(
    *,
    preset: Annotated[str | None, typer.Option(help="quick, standard, high or extreme; options given win")] = None,
    force: Force = False,
    as_json: AsJson = False,
    output_dir: OutputDir = None,
    format: Format = None,
    prefix: Prefix = None,
    device: Device = None,
    **fields: Any,
) -> None:
    """Make one clip from a picture."""
    settings = _settings(output_dir, format, prefix, device)
    start_log(settings.log.directory)
    params = _params(fields, preset, settings)
    _advise(params)
    record, found = _run(params, settings, force=force)
    _answer(record, settings, as_json, found)
    raise typer.Exit(_exit_code(record))


def _advise(params: ClipParams) -> None:
    from i2v_lab import models
    from i2v_lab.errors import PictureError
    from i2v_lab.image import open_picture

    try:
        picture = open_picture(params.image)
    except PictureError:
        picture = None  # told by the run, which records it
    show_advice(models.advice(params, picture))


@app.command()
def batch(
    file: Annotated[Path, typer.Argument(help="CSV or JSONL; columns are named like the options (num_frames, ...)")],
    force: Force = False,
    as_json: AsJson = False,
    output_dir: OutputDir = None,
    format: Format = None,
    prefix: Prefix = None,
    device: Device = None,
) -> None:
    """Make many clips, one after another; a row that fails is recorded and passed over."""
    from i2v_lab.batch import read_rows, run_row
    from i2v_lab.store import Store

    settings = _settings(output_dir, format, prefix, device)
    start_log(settings.log.directory)
    rows, store, worst = read_rows(file), Store(settings.output.directory), 0
    for number, row in enumerate(rows, 1):
        err.print(f"{number} of {len(rows)}", markup=False)
        with listening() as progress:
            record = run_row(row, store, settings, progress=progress, anew=force)
        _answer(record, settings, as_json, found=False)
        worst = max(worst, _exit_code(record))
        if record.status == "stopped":
            break
    raise typer.Exit(worst)


@app.command()
def runs(
    status: Annotated[str | None, typer.Option(help="only these: done, failed, out_of_memory, stopped, running")] = None,
    limit: Annotated[int, typer.Option(min=1, help="show the newest so many")] = 20,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="the whole table as CSV on standard output")] = False,
    output_dir: OutputDir = None,
) -> None:
    """List the runs."""
    from i2v_lab.record import Status
    from i2v_lab.store import Store

    if status is not None and status not in get_args(Status):
        raise ParamsError(f"--status: expected {', '.join(get_args(Status))}, got {status!r}")
    settings = _settings(output_dir)
    store = Store(settings.output.directory)
    chosen: Any = status
    if as_csv:
        store.runs(status=chosen).to_csv(sys.stdout, index=False)
    elif as_json:
        for record in store.records(status=chosen):
            sys.stdout.write(record_json(record, store.directory) + "\n")
    else:
        _show_runs(store.records(status=chosen, limit=limit))


def _show_runs(records: list[RunRecord]) -> None:
    from rich.table import Table

    if not records:
        err.print("no runs yet; make one: i2v-lab generate --image sample:coffee --prompt 'zoom in slowly'")
        return
    table = Table("made (UTC)", "status", "prompt", "size", "frames", "steps", "guidance", "seed", "s", "GiB", "clip or reason")
    for record in records:
        params = record.params
        cells = [f"{record.created:%m-%d %H:%M:%S}", record.status]
        cells += ["", "", "", "", "", ""] if params is None else [
            params.prompt[:30], params.resolution, str(params.num_frames), str(params.num_inference_steps),
            f"{params.guidance_scale:g}", str(params.seed),
        ]  # fmt: skip
        peak = record.peak_vram_reserved_gib or record.peak_ram_gib
        cells += [f"{record.seconds.get('total', 0):.1f}", f"{peak:.2f}" if peak else "", record.clip or record.reason]
        table.add_row(*(_text(cell) for cell in cells))
    out.print(table)


def _text(value: str) -> Any:
    from rich.text import Text

    return Text(value)  # not markup: a prompt may hold brackets


@app.command()
def show(clip: Path, as_json: AsJson = False) -> None:
    """Show the settings that a clip carries."""
    from i2v_lab.video import read_settings

    inside = read_settings(clip)
    if as_json:
        sys.stdout.write(json.dumps(inside, ensure_ascii=False) + "\n")
        return
    for part in ("params", "record"):
        fields = inside.get(part, {})
        for name, value in fields.items() if isinstance(fields, dict) else ():
            out.print(f"{name}: {value}", markup=False)


@app.command()
def again(
    clip: Path,
    image: Annotated[str | None, typer.Option(help="the picture, where it cannot be found by its hash")] = None,
    as_json: AsJson = False,
    output_dir: OutputDir = None,
    format: Format = None,
    prefix: Prefix = None,
    device: Device = None,
) -> None:
    """Make a clip anew from the settings it carries, and say whether the frames are equal."""
    from i2v_lab.run import restore
    from i2v_lab.store import Store

    settings = _settings(output_dir, format, prefix, device)
    start_log(settings.log.directory)
    params, before = restore(clip, Store(settings.output.directory), image)
    record, _ = _run(params, settings, force=True)
    _answer(record, settings, as_json, found=False)
    if record.status == "done":
        equal = record.frames_sha256 == before.get("frames_sha256")
        old, new = before.get("versions"), record.versions
        why = "" if equal or old == new else f" (made with {old}, now {new})"
        err.print("frames are equal" if equal else f"frames differ{why}", style="" if equal else "yellow", markup=False)
    raise typer.Exit(_exit_code(record))


@app.command()
def models(as_json: AsJson = False) -> None:
    """List model families and the checkpoints found on this machine."""
    from i2v_lab import models as registry

    found = registry.local_checkpoints()
    rows: list[dict[str, Any]] = []
    for name in registry.LISTED:
        kind = registry.family(name)
        rows.append({
            "model": name, "about": kind.about, "licence": kind.licence, "native_size": list(kind.native_size),
            "size_multiple": kind.size_multiple, "hub_id": registry.CHECKPOINTS.get(name, ""),
            "checkpoints": [place for place, family in found.items() if family == name],
            "presets": {preset: dict(fields) for preset, fields in kind.presets.items()},
        })  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for row in rows:
        out.print(f"[bold]{row['model']}[/bold]")
        where = ", ".join(row["checkpoints"]) or (
            f"none here; hf download {row['hub_id']} fetches it" if row["hub_id"] else "needs none"
        )
        for label, value in (("what", row["about"]), ("licence", row["licence"]), ("checkpoints", where)):
            out.print(f"  {label}: {value}", markup=False)


@app.command()
def doctor(as_json: AsJson = False, output_dir: OutputDir = None) -> None:
    """Check this machine: what is missing, and how to mend it."""
    from i2v_lab.doctor import examine

    checks = examine(_settings(output_dir))
    if as_json:
        sys.stdout.write(json.dumps([check._asdict() for check in checks]) + "\n")
    else:
        for check in checks:
            mark = {"ok": "[green]ok[/green]     ", "warning": "[yellow]warning[/yellow]", "missing": "[red]missing[/red]"}[
                check.state
            ]
            out.print(mark, _text(f"{check.name}: {check.found}" + (f"; {check.remedy}" if check.remedy else "")))
    raise typer.Exit(int(any(check.state == "missing" for check in checks)))


def main() -> None:
    """The entry point: no traceback reaches a person; the log has it."""
    try:
        app()
    except InputError as error:
        _fail(error, 2)
    except Stop as error:
        _fail(error, 130)
    except I2VLabError as error:
        _fail(error, 1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away (head): nothing to tell
        sys.exit(0)
    except Exception as error:
        log.exception("unexpected error")
        _fail(f"unexpected {type(error).__name__}: {error}; the log has the details", 1)


def _fail(error: I2VLabError | str, code: int) -> None:
    log.error("%s", error)
    err.print(f"error: {error}", style="red", markup=False)
    sys.exit(code)
