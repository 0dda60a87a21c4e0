"""ClipParams: every parameter of one clip, in one frozen object.

The command line's options, the table's columns, the schema of sweep files and the notebooks' controls are all made from it:
a field's help, unit, range and step are written here and nowhere else. Parameters have diffusers' names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, WithJsonSchema

from i2v_lab.clip.levers import parse_cache, parse_choice, parse_interval
from i2v_lab.errors import Message, ParamsError, explain, faults

Scheduler = Literal["ddim", "ddpm", "dpm++-2m", "dpm++-2s", "unipc", "euler", "euler-a", "heun", "kdpm2", "kdpm2-a", "lms", "lcm"]
DType = Literal["auto", "float32", "float16", "bfloat16"]
Quantization = Annotated[Literal["none", "int8", "fp8"] | None, BeforeValidator(parse_choice)]
Backend = Annotated[Literal["torch", "openvino", "openvino-gpu", "openvino-npu"] | None, BeforeValidator(parse_choice)]
Compile = Annotated[Literal["none", "regional"] | None, BeforeValidator(parse_choice)]
Attention = Annotated[Literal["native", "sage", "flash", "xformers"] | None, BeforeValidator(parse_choice)]
Lora = Annotated[
    Annotated[str, Field(max_length=2000)] | None,
    BeforeValidator(lambda text: text or None),  # "" is "without" in a sweep, where an axis has no empty values
]

SIDE_MIN, SIDE_MAX = 64, 2048  # pixels
SQUARES = (256, 512, 768, 1024)  # what "256p" to "1024p" may say where a family has no sizes of its own
NAMED = (*SQUARES, 480, 540, 576, 704, 720)  # that some family has a size for; models/resolve.py makes sizes of the names
# Fields that only some families read.
OPTIONAL = (
    "prompt", "negative_prompt", "condition_fps", "flow_shift", "guidance_scale_2", "true_cfg_scale", "min_guidance_scale",
    "motion_bucket_id", "noise_aug_strength", "decode_timestep", "decode_noise_scale", "image_cond_noise_scale", "lora",
    "guidance_interval", "cache", "quantization", "backend", "compile", "attention",
)  # fmt: skip
AUTO = "auto"  # the resolution that follows the picture
FPS_MIN, FPS_MAX = Fraction(1), Fraction(120)
# The rates of NTSC television are thousandths of a whole number that people write in decimals.
NTSC = {Fraction(text): Fraction(rate, 1001) for text, rate in (("23.976", 24000), ("29.97", 30000), ("59.94", 60000))}


def parse_fps(value: Any) -> Fraction:
    """Read a frame rate, exactly: 8, "8", 12.5, "24000/1001", 23.976 (which is 24000/1001)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise ValueError(f"expected frames a second as a number or a ratio such as 24000/1001, got {value!r}")
    try:
        rate = Fraction(str(value).replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"expected frames a second as a number or a ratio such as 24000/1001, got {value!r}") from None
    rate = NTSC.get(rate, rate)
    if not FPS_MIN <= rate <= FPS_MAX:
        raise ValueError(f"expected {FPS_MIN} to {FPS_MAX} frames a second, got {value!r}")
    if rate.denominator > 1001:
        raise ValueError(f"expected a ratio with a denominator of at most 1001 (such as 24000/1001), got {value!r}")
    return rate


def _plain_fps(rate: Fraction) -> int | str:
    return rate.numerator if rate.denominator == 1 else f"{rate.numerator}/{rate.denominator}"


Fps = Annotated[
    Fraction,
    BeforeValidator(parse_fps),
    PlainSerializer(_plain_fps),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1, "maximum": 120}, {"type": "string"}]}),
]


def parse_resolution(value: Any) -> str:
    """Read a resolution: "512p", "auto", or height x width such as "704x1280". Returns the one way to write it.

    What a name stands for, a family says; see `models.resolve`. Until then a name is a square.
    """
    expected = f"expected auto, {', '.join(f'{side}p' for side in sorted(NAMED))} or HEIGHTxWIDTH such as 704x1280"
    text = f"{value}p" if isinstance(value, int) and not isinstance(value, bool) else str(value).strip().lower()
    if text == AUTO:
        return text
    if match := re.fullmatch(r"(\d{1,5})p?", text):
        if int(match[1]) not in NAMED:
            raise ValueError(Message(f"{expected}, got {value!r}", "resolution", input=repr(value)))
        return f"{match[1]}p"
    match = re.fullmatch(r"(\d{1,5})\s*[x×*]\s*(\d{1,5})", text)
    if not match:
        raise ValueError(Message(f"{expected}, got {value!r}", "resolution", input=repr(value)))
    height, width = int(match[1]), int(match[2])
    if not (SIDE_MIN <= height <= SIDE_MAX and SIDE_MIN <= width <= SIDE_MAX):
        text = f"expected sides of {SIDE_MIN} to {SIDE_MAX} pixels, got {value!r}"
        raise ValueError(Message(text, "resolution.sides", low=SIDE_MIN, high=SIDE_MAX, input=repr(value)))
    return f"{height}p" if height == width and height in SQUARES else f"{height}x{width}"


def resolution_size(resolution: str) -> tuple[int, int]:
    """(height, width) in pixels of a resolution that `parse_resolution` returned; "auto" counts as 512p until it is resolved."""
    height, _, width = resolution.replace(AUTO, "512p").rstrip("p").partition("x")
    return int(height), int(width or height)


def _field(
    about: str, default: Any = None, *, unit: str = "", step: float | None = None, basic: bool = False, **limits: Any
) -> Any:
    """A field: its help and default, and for controls its unit, its step and whether it is among the first; `limits` as pydantic's Field
    has them."""
    return Field(default, description=about, json_schema_extra={"unit": unit, "step": step, "basic": basic}, **limits)


class ClipParams(BaseModel):
    """Every parameter of one clip.

    Raises:
        ParamsError: one error that lists every field that is unknown, missing or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    model: str = _field(
        "a model family (i2v-lab models lists them), a checkpoint's folder or a hub id",
        "closed-form",
        basic=True,
        min_length=1,
        max_length=500,
    )
    image: str = _field(
        "the input picture: a file, or a shipped photograph such as sample:coffee", ..., basic=True, min_length=1, max_length=4096
    )
    prompt: str = _field("what should happen in the clip", "", basic=True, max_length=2000)
    negative_prompt: str = _field("what should not happen; works through guidance", "", max_length=2000)
    resolution: Annotated[str, BeforeValidator(parse_resolution)] = _field(
        "size of the clip: 480p, 512p, 720p and so on, auto (the picture's shape) or HEIGHTxWIDTH", "512p", unit="px", basic=True
    )
    num_frames: int = _field("length of the clip", 16, unit="frames", step=1, basic=True, ge=2, le=257)
    fps: Fps = _field("playback rate of the file; 24000/1001 is exact", Fraction(8), unit="frames/s", step=1)
    condition_fps: int = _field(
        "the rate given to the network (diffusers: target_fps); not the playback rate", 16, unit="frames/s", step=1, ge=1, le=120
    )
    num_inference_steps: int = _field("denoising steps", 50, unit="steps", step=1, basic=True, ge=1, le=1000)
    guidance_scale: float = _field(
        "how hard the prompt pulls; at 1 or below there is no guidance and one pass a step", 9.0, step=0.5, basic=True, ge=0, le=50
    )
    seed: int = _field("decides all that is random; -1 draws one, and records it", 0, step=1, basic=True, ge=-1, le=2**63 - 1)
    scheduler: Scheduler = _field("how a denoising step is taken", "ddim")
    dtype: DType = _field("number format of the network; auto: the family's own on CUDA, otherwise float32", "auto")
    seconds: float | None = _field(
        "length of the clip instead of num_frames: the nearest that the family makes", unit="s", gt=0, le=60
    )
    flow_shift: float | None = _field("moves the steps of a flow model towards its noisy end", step=0.5, gt=0, le=30)
    guidance_scale_2: float | None = _field("guidance of the second expert, which does the low noise", step=0.5, ge=0, le=50)
    true_cfg_scale: float | None = _field(
        "guidance with a second pass, where guidance_scale is an input of the network", step=0.5, ge=0, le=50
    )
    min_guidance_scale: float | None = _field(
        "guidance of the first frame; it rises to guidance_scale at the last", step=0.5, ge=0, le=50
    )
    motion_bucket_id: int | None = _field("how much should move", step=1, ge=0, le=255)
    noise_aug_strength: float | None = _field("noise added to the picture: more lets the clip leave it", step=0.01, ge=0, le=1)
    decode_timestep: float | None = _field("the noise level that the VAE is told", step=0.01, ge=0, le=1)
    decode_noise_scale: float | None = _field("noise mixed into the latents before they are decoded", step=0.005, ge=0, le=1)
    image_cond_noise_scale: float | None = _field("noise added to the picture at each step", step=0.05, ge=0, le=1)
    lora: Lora = _field("LoRA files or hub ids with weights, such as style.safetensors:0.8; commas between several")
    guidance_interval: Annotated[str | None, BeforeValidator(parse_interval)] = _field(
        "guidance only within this share of the steps, such as 0.1-0.8; one pass a step outside"
    )
    cache: Annotated[str | None, BeforeValidator(parse_cache)] = _field(
        "what is kept from step to step to save time: deep:N, pab:N, taylor:N, faster:N, first-block:THRESHOLD, mag:THRESHOLD"
    )
    quantization: Quantization = _field("how the weights of the denoising network are kept")
    backend: Backend = _field("what computes the networks")
    compile: Compile = _field("what torch's compiler makes faster code of: the repeated blocks of the denoising network")
    attention: Attention = _field("the kernel that computes attention; native is torch's own")

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ParamsError(explain(error, type(self)), faults(error, type(self))) from None

    @property
    def height(self) -> int:
        """Height of the clip in pixels."""
        return resolution_size(self.resolution)[0]

    @property
    def width(self) -> int:
        """Width of the clip in pixels."""
        return resolution_size(self.resolution)[1]

    def replace(self, **changes: Any) -> ClipParams:
        """A copy with some fields changed, checked like a new one. What was not given stays open for the family's default."""
        return ClipParams(**{**self.given(), **changes})

    def plain(self) -> dict[str, Any]:
        """The fields as JSON has them: numbers and strings; without those that are None."""
        return self.model_dump(mode="json", exclude_none=True)

    def given(self) -> dict[str, Any]:
        """As `plain`, of the fields that were given alone: for the others a family has defaults of its own (`models.resolve`)."""
        return self.model_dump(mode="json", exclude_unset=True, exclude_none=True)


@dataclass(frozen=True)
class Advice:
    """One warning about params that are allowed and will probably disappoint.

    Attributes:
        field: the field of ClipParams that it is about.
        what: what was found; a Message where it has a code, by which other languages translate the whole advice.
        why: what will happen.
        remedy: what to do.
    """

    field: str
    what: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.what}: {self.why}; {self.remedy}"


# Words in -ing that name no action.
_NOT_ACTIONS = frozenset(
    "building ceiling clothing during evening everything king lightning morning nothing painting railing ring sibling "
    "something spring sting string thing wing wedding".split()
)
# Words that join the actions of a Chinese sentence.
_ACTION_ZH = re.compile(r"着|正在|然后|接着|随后|并且|同时")


def count_actions(prompt: str) -> int:
    """A rough count of the actions in a prompt: words in -ing in English; aspect and sequence words in Chinese."""
    english = [word for word in re.findall(r"[a-z]+ing\b", prompt.lower()) if word not in _NOT_ACTIONS]
    return len(english) + len(_ACTION_ZH.findall(prompt))


def params_advice(params: ClipParams) -> list[Advice]:
    """Advice that holds for any model, from the params alone."""
    found = []
    guidance, fps = f"{params.guidance_scale:g}", f"{float(params.fps):g}"
    if params.guidance_scale > 16:
        what = Message(f"{guidance} is above 16", "guidance.high", value=guidance)
        found.append(Advice("guidance_scale", what, "colours and shapes distort", "try 9"))
    elif params.guidance_scale < 6:
        what = Message(f"{guidance} is below 6", "guidance.low", value=guidance)
        found.append(Advice("guidance_scale", what, "the clip hardly follows the prompt", "try 9"))
    if params.fps < 6:
        found.append(Advice("fps", Message(f"{fps} is below 6", "fps.low", value=fps), "the clip looks choppy", "try 8"))
    elif params.fps > 12:
        what = Message(f"{fps} is above 12", "fps.high", value=fps)
        found.append(Advice("fps", what, "the clip is over sooner and a second of it takes more bytes", "try 8"))
    if (actions := count_actions(params.prompt)) > 3:
        what = Message(f"about {actions} actions", "actions.many", count=actions)
        found.append(Advice("prompt", what, "more than three confuse the model", "name one to three"))
    return found


def from_mapping(fields: Mapping[str, Any]) -> ClipParams:
    """ClipParams from a row of a table: empty cells mean the default."""
    return ClipParams(**{name: value for name, value in fields.items() if value is not None and value != ""})
