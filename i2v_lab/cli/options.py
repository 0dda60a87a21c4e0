"""Options that several commands share: those of the settings, and one for each field of ClipParams."""

from __future__ import annotations

import functools
import inspect
import locale
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from i2v_lab.errors import ModelError, ParamsError

if TYPE_CHECKING:
    from i2v_lab.clip.params import ClipParams
    from i2v_lab.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="answer as JSON on standard output")]
Picture = Annotated[str | None, typer.Argument(metavar="[PICTURE]", help="the input picture, as --image")]
Words = Annotated[str | None, typer.Argument(metavar="[PROMPT]", help="what should happen in the clip, as --prompt")]
Force = Annotated[bool, typer.Option("--force", help="make it again even where the same clip was made before")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="quick, few-steps, fast, fast-cpu, standard, high, extreme, or a file such as winner.yaml; options given win"
    ),
]
Tier = Annotated[int | None, typer.Option(min=0, max=6, help=(
    "tier of the memory ladder to begin on, whatever the plan says (docs/models.md) [default: the first on which it fits]"
))]  # fmt: skip

_SETTINGS: dict[str, tuple[str, Any]] = {  # {option: (the setting, its type and help)}
    "output_dir": ("output.directory", Annotated[str | None, typer.Option(help="folder of clips and records [default: results]", metavar="<path>")]),
    "format": ("output.format", Annotated[str | None, typer.Option(help="mp4, webm or gif [default: mp4]")]),
    "prefix": ("output.prefix", Annotated[str | None, typer.Option(help="what the clip's name begins with")]),
    "device": (".device", Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N, xpu or mps [default: auto]")]),
    "parallel": (".parallel", Annotated[str | None, typer.Option(
        help="on how many devices each clip is made: 1, 2, 4 or 8 (docs/parallel.md) [default: 1]", metavar="<int>"
    )]),
    "cluster": ("cluster.address", Annotated[str | None, typer.Option(help="local (all GPUs here), auto or HOST:PORT of a Ray cluster")]),
    "workers": ("cluster.workers", Annotated[int | None, typer.Option(help="of the cluster at most so many [default: one a GPU]")]),
    "port": ("server.port", Annotated[int | None, typer.Option(help="port of the page and the API [default: 7860]")]),
    "server_workers": ("server.workers", Annotated[int | None, typer.Option(
        "--workers", help="how many clips are made at once: one a GPU, here or on the cluster, or all on the CPU [default: 1]"
    )]),
    "host": ("server.host", Annotated[str | None, typer.Option(help="address to listen on; 0.0.0.0 is all [default: 127.0.0.1]")]),
}  # fmt: skip


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options of the settings, and its argument `settings` what all sources of settings come to.

    A command that takes `**fields` gets an option for every field of ClipParams too.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            options = {name: given.pop(name) for name in names}
            command(settings=settings_of(**options), **given)

        hints = get_type_hints(command, localns={"Settings": object}, include_extras=True)
        own = [
            item.replace(annotation=hints[name])
            for name, item in inspect.signature(command).parameters.items()
            if name != "settings"
        ]
        fields = _fields() if own and own[-1].kind is inspect.Parameter.VAR_KEYWORD else []
        shown = [*fields, *own[: -1 if fields else None], *(_parameter(name, _SETTINGS[name][1]) for name in names)]
        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in shown}
        return run

    return decorate


def settings_of(**options: Any) -> Settings:
    """The settings, of which the command line said `options` (None: it did not)."""
    from i2v_lab.settings import load_settings

    given: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if value == "" and name != "prefix":
            raise ParamsError(f"--{name.replace('_', '-')}: expected a value, got an empty text; leave it out for the default")
        group, _, key = _SETTINGS[name][0].partition(".")
        given.setdefault(group, {})[key] = Path(value) if value and name == "output_dir" else value
    return load_settings(**given.pop("", {}), **given)


def with_words(fields: dict[str, Any], picture: str | None, prompt: str | None) -> dict[str, Any]:
    """The fields given as options, with the picture and the prompt that were given without option names.

    Raises:
        ParamsError: one of them was given in both ways.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in (("image", picture), ("prompt", prompt)):
        if value is not None and name in given:
            raise ParamsError(f"{name}: expected one, got two: {value!r} and --{name} {given[name]!r}; drop one")
        given |= {} if value is None else {name: value}
    return given


def clip_params(fields: dict[str, Any], preset: str | None, settings: Settings) -> ClipParams:
    """Params from the options given, above the preset, above the defaults.

    Args:
        fields: without those that were not given; see `with_words`.
    """
    from i2v_lab import models
    from i2v_lab.clip.params import ClipParams

    given = {"model": settings.model, **fields}
    for name, value in given.items():
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # a byte that is no text in the encoding of the arguments
            encoding, place = sys.getfilesystemencoding(), locale.setlocale(locale.LC_CTYPE)
            raise ParamsError(f"{name}: expected text in {encoding}, the encoding of the locale {place}, got {value!a}; "
                              "set LC_ALL=C.UTF-8, or name the file in UTF-8")  # fmt: skip
    found = models.preset(given["model"], preset) if preset else {}
    return ClipParams(**{**given, **found, **fields})


def warn_of_device(device: str, names: Iterable[str], remedy: str = "") -> None:
    """A line of warning for each model that does not run on the device that was asked for.

    Raises:
        ParamsError: the device is not here; `remedy` ends its text.
    """
    if device in ("auto", "cpu"):
        return
    from i2v_lab import models
    from i2v_lab.cli.terminal import remark
    from i2v_lab.run import check_device

    for name in dict.fromkeys(names):
        try:
            if note := check_device(models.find(name)[0], device):
                remark(f"warning: {note}", "yellow")
        except ModelError as error:
            raise ParamsError(f"{error}{remedy}") from None


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _fields() -> list[inspect.Parameter]:
    """An option for every field of ClipParams."""
    from i2v_lab.clip.params import ClipParams

    return [_parameter(name, _option(name, about)) for name, about in ClipParams.model_json_schema()["properties"].items()]


def _option(name: str, about: dict[str, Any]) -> Any:
    """The option of one field of ClipParams: help with unit, range and default, out of its JSON schema.

    Values are taken as text: ClipParams reads them, and names all that is wrong in one line.
    """
    limits = {**about, **about.get("anyOf", [{}])[0]}
    from i2v_lab.clip.levers import CHOSEN, LEVERS, NEUTRAL
    from i2v_lab.clip.params import OPTIONAL

    help = str(about["description"])
    if "enum" in limits:
        help += f"; one of {', '.join(limits['enum'])}"
    if "exclusiveMinimum" in limits:
        help += f", above {limits['exclusiveMinimum']} to {limits['maximum']}"
    elif "minimum" in limits:
        help += f", {limits['minimum']} " + (f"to {limits['maximum']}" if limits["maximum"] < 2**31 else "or more")
    if "maxLength" in about and "minLength" not in about:  # a path needs no such remark
        help += f", up to {about['maxLength']} characters"
    if about.get("unit"):
        help += f" ({about['unit']})"
    if "default" not in about:
        help += " [required, here or as PICTURE]"
    elif about["default"] is None:
        standard = NEUTRAL[name] if name in CHOSEN else "none"
        help += f" [default: {standard}]" if name in LEVERS else " [default: the model's]" if name in OPTIONAL else ""
    elif about["default"] != "":
        help += f" [default: {about['default']}]"
    kind = {"integer": "<int>", "number": "<number>"}.get(str(limits.get("type", "")) if name != "fps" else "", "<text>")
    return Annotated[str | None, typer.Option(f"--{name.replace('_', '-')}", help=help, metavar=kind, show_default=False)]
