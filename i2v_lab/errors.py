"""Every error this package raises on purpose.

    I2VLabError
    ├── InputError             something that was given cannot be used
    │   ├── ParamsError        a parameter of a clip is unknown or out of range
    │   ├── PictureError       the input picture cannot be opened or used
    │   ├── SettingsError      config.yaml or the environment is wrong
    │   ├── SweepError         a sweep, its file or its notebook is wrong
    │   └── ClipError          a file is not a clip, or carries no settings
    ├── ModelError             a model cannot be found or loaded
    │   └── UnsupportedParams  the model cannot make this clip; says the nearest it can
    ├── RunError               a run began and did not end with a clip
    │   ├── OutOfMemory        the device or the machine ran out of memory
    │   ├── BadFrames          frames are not finite, or all of one colour
    │   ├── WriteError         the clip could not be written (disk full, FFmpeg failed)
    │   └── Stop               somebody asked for the run to end
    └── StoreError             the record of runs cannot be read or written

The text of each says what was expected, what came, and what to do: it is shown to people as it is. A text may be a `Message`,
which carries a code: a screen in another language translates by the code and fills in the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:  # this module is imported first and must cost nothing
    from pydantic import BaseModel, ValidationError


ERRORS_MAX = 10  # faults that one text lists


STOPPED_BY_HAND = "stopped by hand"
PROCESS_ENDED = "the process ended before the clip was done"


class Message(str):
    """A line for people, with a code by which other languages translate it.

    Attributes:
        code: such as picture.not_found. values: what the text was filled with, by name.
    """

    code: str
    values: Mapping[str, Any]

    def __new__(cls, text: str, code: str = "", **values: Any) -> Message:
        made = super().__new__(cls, text)
        made.code, made.values = code, values
        return made


class I2VLabError(Exception):
    """The root: catch it to catch all that this package raises on purpose.

    Attributes:
        message: the text; a Message where it has a code. code, values: of the message; "" and {} where it has none.
    """

    @property
    def message(self) -> str:
        return self.args[0] if self.args else ""

    @property
    def code(self) -> str:
        return getattr(self.message, "code", "")

    @property
    def values(self) -> Mapping[str, Any]:
        return getattr(self.message, "values", {})


class InputError(I2VLabError):
    """Something that was given cannot be used."""


class ParamsError(InputError):
    """A parameter of a clip is unknown or out of range; the text lists all that is wrong.

    Attributes:
        faults: (field, what is wrong with it), where the fields were checked together.
    """

    def __init__(self, text: str, faults: Sequence[tuple[str, Message]] = ()) -> None:
        super().__init__(text)
        self.faults = tuple(faults)


class PictureError(InputError):
    """The input picture cannot be opened or used."""


class SettingsError(InputError):
    """config.yaml or an environment variable is wrong; the text names the key."""


class SweepError(InputError):
    """A sweep, its file or its notebook is wrong; nothing of it was run."""


class ClipError(InputError):
    """A file is not a clip, or carries no settings."""


class ModelError(I2VLabError):
    """A model cannot be found or loaded."""


class UnsupportedParams(ModelError):
    """The model cannot make this clip; the text names the nearest params that it can."""


class RunError(I2VLabError):
    """A run began and did not end with a clip."""


class OutOfMemory(RunError):
    """The device or the machine ran out of memory."""


class BadFrames(RunError):
    """The model returned frames that are not finite, or all of one colour."""


class WriteError(RunError):
    """The clip could not be written: the disk is full, the folder is closed, FFmpeg failed."""


class Stop(RunError):
    """Raised by a progress listener to end a run within one step; the run is recorded as stopped."""


class StoreError(I2VLabError):
    """The record of runs cannot be read or written."""


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line out of a pydantic error: each field, what was expected, what came; unknown names with a likely meaning."""
    found = faults(error, model)
    parts = [f"{name}: {message}".removeprefix(": ") for name, message in found[:ERRORS_MAX]]
    return "; ".join([*parts, *([f"and {len(found) - ERRORS_MAX} more"] if len(found) > ERRORS_MAX else [])])


def faults(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, Message]]:
    """Each fault of a pydantic error: (field, message). The code is that of our own check, otherwise pydantic's error type."""
    found: list[tuple[str, Message]] = []
    for item in error.errors():
        *above, last = (_name(part) for part in item["loc"]) if item["loc"] else ("",)
        context = item.get("ctx", {})
        values = {**context, "input": short(item["input"])}
        if item["type"] == "extra_forbidden":
            text = f"unknown name; {meant(last, _fields_below(model, above))}"
            if any(before.endswith(text.partition("; ")[2]) for _, before in found):
                text = "unknown name"  # the names that are known were listed already
        elif item["type"] == "missing":
            text = "missing"
        else:
            text = item["msg"].removeprefix("Value error, ")
            text = text[0].lower() + text[1:]
            text += "" if "got" in text else f", got {values['input']}"
        own = (*getattr(context.get("error"), "args", ()), "")[0]
        message = own if isinstance(own, Message) else Message(text, item["type"], **values)
        found.append((".".join([*above, last]), message))
    return found


def _fields_below(model: type[BaseModel], names: list[str]) -> list[str]:
    """The fields of the model that stands inside `model` under these names."""
    for name in names:
        field = model.model_fields.get(name)
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if hasattr(kind, "model_fields")] if field else []
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _name(part: int | str) -> str:
    """A name in an error; one that was given may be anything."""
    text = str(part)
    return text if text.isprintable() and len(text) <= 60 else short(text, 60)


def meant(name: object, known: Iterable[str]) -> str:
    """What an unknown name may mean: `did you mean seed?`, or else all names that are known."""
    import difflib

    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"


def short(value: object, limit: int = 80) -> str:
    """A value as an error shows it: cut where it is long."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def printable(text: object) -> str:
    """A text on one line, in which control characters (colours, cursor movements, line breaks) are spelled out."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))
