"""The table of families that run through a pipeline of diffusers. To add one, add a Family here: no other code is needed.

Sizes, frames, presets and negative prompts are those of the models' cards on the Hugging Face hub (the repository in `hub`) and of
the defaults of the pipelines in diffusers 0.42.1. What no card says is marked as ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from i2v_lab.clip.levers import BACKENDS
from i2v_lab.clip.params import ClipParams
from i2v_lab.models.frame_rule import FrameRule

OF_ALL = {"quantization": ("int8", "fp8"), "compile": ("regional",)}
ATTENDING = {"attention": ("flash", "sage", "xformers")}  # where the transformer goes through diffusers' dispatcher


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family: what is known of it before anything is loaded.

    Attributes:
        name: as `ClipParams.model` has it.
        about: one sentence. hub: the repository that the name means. size_gb: of its download.
        licence: the name of the licence of the weights. condition: what it asks for, in one sentence.
        pipeline: the class in diffusers. The one in model_index.json is often that of the text-to-video pipeline.
        indexed: what model_index.json may say instead.
        signs: what tells its checkpoints from others of the same class, {"folder.key" of a config.json, or a key of
            model_index.json: value}; True and False there mean "is there" and "is not".
        native_size, native_fps, size_multiple, sizes, only_sizes, frame_rule, cuda_dtype, presets: as VideoModel.
        scheduler_classes: {scheduler: class in diffusers}, for those that solve this family's equation; the default first.
        takes: {field of ClipParams: argument of the pipeline, or "component.argument" of one that is made again with it}.
        passes: other arguments of the pipeline, with their values.
        section: (frames that it adds at a time, frames that the pipeline has to be asked for to add them), where they differ; it makes
            the first one's frames and one more.
        float32: components that stay in float32 whatever the dtype is.
        denoisers: the components that run once or more a step.
        channels: the dimension of the latents that holds channels, in the step callback; -1: they are packed into tokens.
        tiers: of the memory ladder, in the order they are tried: 0, 3 (model offload), 4 (group offload), 5 (tiling).
        decode_chunk: an argument that says how many frames are decoded at once, and its value on tier 5. It changes pixels, as tiling does.
        threads: whether the number of threads of the CPU changes pixels.
        shares: as VideoModel: "tokens" where diffusers has context parallelism for its network.
        needs: modules that its pipeline needs, of the extra `families`.
        lora: whether the pipeline loads LoRAs.
        caches: the kinds of cache that its networks work with; see models/levers.py.
        levers: as VideoModel.
        interval: whether it reads guidance at each step, so that `guidance_interval` can turn it off for some.
    """

    name: str
    about: str
    hub: str
    size_gb: float
    licence: str
    condition: str
    pipeline: str
    indexed: tuple[str, ...] = ()
    signs: Mapping[str, Any] = field(default_factory=dict)
    native_size: tuple[int, int]
    native_fps: int
    size_multiple: int
    sizes: Mapping[str, tuple[int, int]]
    only_sizes: tuple[tuple[int, int], ...] = ()
    frame_rule: FrameRule
    cuda_dtype: str = "bfloat16"
    scheduler_classes: Mapping[str, str]
    presets: Mapping[str, Mapping[str, Any]]
    takes: Mapping[str, str]
    passes: Mapping[str, Any] = field(default_factory=dict)
    section: tuple[int, int] | None = None
    float32: tuple[str, ...] = ()
    denoisers: tuple[str, ...] = ("transformer",)
    channels: int = 1
    tiers: tuple[int, ...] = (0, 3, 4, 5)
    decode_chunk: tuple[str, int] | None = None
    threads: bool = False
    shares: str = ""
    needs: tuple[str, ...] = ()
    lora: bool = True
    caches: tuple[str, ...] = ("pab", "taylor", "first-block", "mag")
    levers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: OF_ALL | ATTENDING)
    interval: bool = False

    def asked_frames(self, frames: int) -> int:
        """What the pipeline has to be asked for, so that it makes so many frames."""
        return frames if self.section is None else (frames - 1) // self.section[0] * self.section[1]

    @property
    def reads(self) -> frozenset[str]:
        """The fields of ClipParams that it reads."""
        flow = {"flow_shift"} if "flow_shift" in self.presets["standard"] else set()
        more = {"lora": self.lora, "cache": bool(self.caches), "guidance_interval": self.interval}
        return frozenset({*self.takes, *flow, *self.levers, *(name for name, reads in more.items() if reads)})

    def arguments(self, params: ClipParams, tier: int) -> dict[str, Any]:
        """What the pipeline is called with on a tier, without the picture and what is no value: generator, output, callback."""
        values = {field: getattr(params, field) for field in self.takes}
        given = {self.takes[field]: value for field, value in values.items() if value is not None and "." not in self.takes[field]}
        given["num_frames"] = self.asked_frames(params.num_frames)
        chunk = dict([self.decode_chunk]) if tier == 5 and self.decode_chunk else {}
        return {**given, **self.passes, **chunk}


def _takes(*names: str, **renamed: str) -> dict[str, str]:
    common = ("height", "width", "num_frames", "num_inference_steps")
    return {**{name: name for name in (*common, *names)}, **renamed}


def _presets(standard: Mapping[str, Any], **others: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The presets; the others differ from the standard one by what is given. The standard one is the card's, `few_steps` that of the
    authors of its LoRA (docs/levers.md has the sources), the others are ours."""
    names = {name: name.replace("_", "-") for name in ("quick", "few_steps", "fast", "standard", "high", "extreme")}
    return {names[name]: {**standard, **others.get(name, {})} for name in names if name == "standard" or others.get(name)}


FLOW = {
    "unipc": "UniPCMultistepScheduler", "euler": "FlowMatchEulerDiscreteScheduler", "heun": "FlowMatchHeunDiscreteScheduler",
    "dpm++-2m": "DPMSolverMultistepScheduler", "dpm++-2s": "DPMSolverSinglestepScheduler",
}  # fmt: skip
TEXT = ("prompt", "negative_prompt", "guidance_scale")

WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
LTX_NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"

WAN: dict[str, Any] = {
    "levers": OF_ALL | ATTENDING | {"backend": BACKENDS},
    "pipeline": "WanImageToVideoPipeline", "indexed": ("WanPipeline",), "licence": "Apache-2.0",
    "condition": "free for any use that is legal, commercial too", "scheduler_classes": FLOW, "passes": {"max_sequence_length": 512},
    "needs": ("ftfy",), "shares": "tokens", "interval": True, "float32": ("vae", "image_encoder"),
    "native_fps": 16, "size_multiple": 16, "frame_rule": FrameRule(4, 1, 5, 81),
    "sizes": {"480p": (480, 832), "720p": (720, 1280)},
}  # fmt: skip
LTX: dict[str, Any] = {
    "levers": OF_ALL | ATTENDING | {"backend": BACKENDS},
    "pipeline": "LTXConditionPipeline", "indexed": ("LTXPipeline", "LTXImageToVideoPipeline"), "native_size": (512, 768), "native_fps": 25,
    "size_multiple": 32, "frame_rule": FrameRule(8, 1, 9, 257), "scheduler_classes": {"euler": FLOW["euler"]}, "channels": -1,
    "sizes": {"480p": (480, 704), "512p": (512, 768), "704p": (704, 1216), "720p": (704, 1280)},
    "shares": "tokens",
    "takes": _takes(
        *TEXT, "decode_timestep", "decode_noise_scale", "image_cond_noise_scale", condition_fps="frame_rate"
    ),
    "passes": {"max_sequence_length": 256},
    "licence": "LTX-Video Open Weights License",
    "condition": "free below 10 million US dollars of yearly revenue; read the licence of the version that you fetch",
}  # fmt: skip
COG: dict[str, Any] = {
    "pipeline": "CogVideoXImageToVideoPipeline", "takes": _takes(*TEXT), "channels": 2, "size_multiple": 16,
    "caches": ("pab", "taylor", "first-block", "mag", "faster"), "levers": OF_ALL,
    "scheduler_classes": {
        "ddim": "CogVideoXDDIMScheduler", "dpm++-2m": "DPMSolverMultistepScheduler", "unipc": "UniPCMultistepScheduler",
        "euler": "EulerDiscreteScheduler", "heun": "HeunDiscreteScheduler",
    }, "passes": {"max_sequence_length": 226}, "licence": "CogVideoX License",
    "condition": "free for research; commercial use asks for a registration with its authors, and stays below 1 million visits a month",
}  # fmt: skip
SVD: dict[str, Any] = {
    "levers": OF_ALL | {"backend": BACKENDS},
    "pipeline": "StableVideoDiffusionPipeline", "native_size": (576, 1024), "native_fps": 7, "size_multiple": 64,
    "sizes": {"576p": (576, 1024)}, "cuda_dtype": "float16", "scheduler_classes": {"euler": "EulerDiscreteScheduler"},
    "denoisers": ("unet",), "channels": 2,
    "takes": _takes(
        "min_guidance_scale", "motion_bucket_id", "noise_aug_strength",
        guidance_scale="max_guidance_scale", condition_fps="fps",
    ),
    "caches": ("deep", "pab", "taylor"), "passes": {"decode_chunk_size": 8}, "decode_chunk": ("decode_chunk_size", 1), "threads": True, "lora": False,
    "licence": "Stability AI Community License",
    "condition": "free for research, and for companies below 1 million US dollars of yearly revenue",
}  # fmt: skip

HUNYUAN: dict[str, Any] = {
    "native_fps": 24, "caches": ("pab", "taylor"), "licence": "Tencent Hunyuan Community License",
    "condition": "not for use in the European Union, the United Kingdom and South Korea; above 100 million monthly users it asks for "
    "a licence of its own",
}  # fmt: skip
LTX_2: dict[str, Any] = {
    "pipeline": "LTX2ImageToVideoPipeline", "indexed": ("LTX2Pipeline",), "native_size": (512, 768), "native_fps": 24,
    "size_multiple": 32, "frame_rule": FrameRule(8, 1, 9, 257), "scheduler_classes": {"euler": FLOW["euler"]}, "channels": -1, "shares": "tokens",
    "sizes": {"480p": (480, 704), "512p": (512, 768), "704p": (704, 1216), "720p": (704, 1280)}, "caches": (),
    "takes": _takes(*TEXT, condition_fps="frame_rate"),
    # As the pipeline runs LTX-2.0: without the guidance of later versions, which takes two more passes a step. The picture is not
    # compressed as a video first, which needs PyAV.
    "passes": {
        "stg_scale": 0.0, "audio_stg_scale": 0.0, "modality_scale": 1.0, "audio_modality_scale": 1.0, "guidance_rescale": 0.0,
        "audio_guidance_rescale": 0.0, "audio_guidance_scale": None, "spatio_temporal_guidance_blocks": None,
        "use_cross_timestep": False, "image_crf": 0, "max_sequence_length": 1024,
    },
    "licence": "LTX-2 Community License",
    "condition": "free below 10 million US dollars of yearly revenue",
}  # fmt: skip


# LoRAs that were distilled to few steps without guidance, by the hub id and name of their files, with the settings they were made for.
LIGHTNING = "lightx2v/Wan2.2-Lightning/Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1"
FEW_WAN: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 1.0, "flow_shift": 5.0, "scheduler": "euler"}
FEW_A14B = {
    **FEW_WAN,
    "guidance_scale_2": 1.0,
    "lora": f"high={LIGHTNING}/high_noise_model.safetensors,low={LIGHTNING}/low_noise_model.safetensors",
}
FEW_21 = {**FEW_WAN, "lora": "lightx2v/Wan2.1-Distill-Loras/wan2.1_i2v_lora_rank64_lightx2v_4step.safetensors"}
FEW_5B = {**FEW_WAN, "lora": "Kijai/WanVideo_comfy/LoRAs/Wan22-Turbo/Wan22_TI2V_5B_Turbo_lora_rank_64_fp16.safetensors"}
FEW_LTX_13B = {
    "num_inference_steps": 8, "guidance_scale": 1.0, "lora": "Lightricks/LTX-Video/ltxv-13b-0.9.7-distilled-lora128.safetensors",
}  # fmt: skip


def crop_sizes(area: int, step: int = 16, most: float = 4.0) -> tuple[tuple[int, int], ...]:
    """The sizes, (height, width), that HunyuanVideo 1.5 makes: for each shape up to `most` the largest of about area x area pixels.

    It takes the size from the picture, by ratios that it rounds to five digits: a picture of some sizes gives another one, so that
    nothing makes those. A test compares this with the pipeline.
    """
    cells, high, wide, found = round((area / step) ** 2), round((area / step) ** 2), 1, []
    while high > 0:
        if max(high, wide) / min(high, wide) <= most:
            found.append((high * step, wide * step))
        if high * (wide + 1) <= cells:
            wide += 1
        else:
            high -= 1
    ratios = [round(height / width, 5) for height, width in found]

    def made(height: int, width: int) -> tuple[int, int]:
        shape = height / width
        apart = [(abs(ratio - shape), n) for n, ratio in enumerate(ratios) if (ratio <= shape if shape >= 1 else ratio >= shape)]
        return found[min(apart)[1]]

    return tuple(size for size in found if made(*size) == size)


def _hunyuan_15(name: str, area: int, size: tuple[int, int], **more: Any) -> Family:
    standard = {
        "resolution": "auto", "num_frames": 121, "fps": 24, "num_inference_steps": 50, "guidance_scale": 6.0, "scheduler": "euler",
    }  # fmt: skip
    label = f"{min(size)}p"
    return Family(**{
        **HUNYUAN, "name": name, "pipeline": "HunyuanVideo15ImageToVideoPipeline", "signs": {"transformer.target_size": area},
        "native_size": size, "sizes": {label: size}, "only_sizes": crop_sizes(area), "size_multiple": 16, "lora": False,
        "frame_rule": FrameRule(4, 1, 5, 121), "scheduler_classes": {"euler": FLOW["euler"]},
        "takes": {
            "prompt": "prompt", "negative_prompt": "negative_prompt", "num_frames": "num_frames",
            "num_inference_steps": "num_inference_steps", "guidance_scale": "guider.guidance_scale",
        },
        "presets": _presets(standard, quick={"num_frames": 49, "num_inference_steps": 25}, fast={"cache": "taylor:2"}), **more,
    })  # fmt: skip


def _svd(name: str, frames: int, hub: str, **more: Any) -> Family:
    standard = {
        "resolution": "auto", "num_frames": frames, "fps": 7, "condition_fps": 7, "num_inference_steps": 25, "guidance_scale": 3.0,
        "min_guidance_scale": 1.0, "motion_bucket_id": 127, "noise_aug_strength": 0.02, "scheduler": "euler",
    }  # fmt: skip
    presets = _presets(standard, quick={"num_inference_steps": 12}, fast={"cache": "deep:3"}, high={"num_inference_steps": 40})
    return Family(**{**SVD, "name": name, "hub": hub, "frame_rule": FrameRule(1, 0, 2, frames), "presets": presets, **more})


def _wan(name: str, hub: str, standard: Mapping[str, Any], few_steps: Mapping[str, Any], **more: Any) -> Family:
    common = {"resolution": "auto", "num_frames": 81, "fps": 16, "scheduler": "unipc", "negative_prompt": WAN_NEGATIVE, **standard}
    quick = {"resolution": "480p", "num_frames": 33, "num_inference_steps": 20}
    fast = {"guidance_interval": "0-0.6", "cache": "taylor:2"}
    presets = _presets(common, quick=quick, few_steps=few_steps, fast=fast, high={"resolution": "720p"})
    given = {"takes": _takes(*TEXT), "presets": presets, **more}
    return Family(**{**WAN, "name": name, "hub": hub, **given})


def _ltx(name: str, hub: str, steps: int, few_steps: Mapping[str, Any], **more: Any) -> Family:
    standard = {
        "resolution": "auto", "num_frames": 97, "fps": 25, "condition_fps": 25, "num_inference_steps": steps, "guidance_scale": 3.0,
        "scheduler": "euler", "negative_prompt": LTX_NEGATIVE, "decode_timestep": 0.05, "decode_noise_scale": 0.025,
        "image_cond_noise_scale": 0.15,
    }  # fmt: skip
    presets = _presets(
        standard, quick={"num_frames": 49, "num_inference_steps": 20}, few_steps=few_steps, fast={"cache": "taylor:2"},
        high={"resolution": "704p", "num_frames": 161},
    )  # fmt: skip
    return Family(**{**LTX, "name": name, "hub": hub, "presets": presets, **more})


def _cog(name: str, hub: str, standard: Mapping[str, Any], quick: Mapping[str, Any], **more: Any) -> Family:
    common = {"resolution": "auto", "num_inference_steps": 50, "guidance_scale": 6.0, "scheduler": "ddim", **standard}
    return Family(**{**COG, "name": name, "hub": hub, "presets": _presets(common, quick=quick, fast={"cache": "faster:5"}), **more})


_ALL = (
    _wan(
        "wan2.2-ti2v-5b", "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        {"num_frames": 121, "fps": 24, "num_inference_steps": 50, "guidance_scale": 5.0, "flow_shift": 5.0}, FEW_5B,
        about="Wan 2.2, 5 billion parameters: 5 seconds at 24 frames a second on one consumer card with offloading.", size_gb=34.0,
        signs={"expand_timesteps": True, "transformer.in_channels": 48}, native_size=(704, 1280), native_fps=24, size_multiple=32,
        sizes={"480p": (480, 832), "704p": (704, 1280), "720p": (704, 1280)}, frame_rule=FrameRule(4, 1, 5, 121),
    ),
    _wan(
        "wan2.2-i2v-a14b", "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        {"num_inference_steps": 40, "guidance_scale": 3.5, "guidance_scale_2": 3.5, "flow_shift": 5.0}, FEW_A14B,
        about="Wan 2.2, two experts of 14 billion parameters: one for high noise, one for low.", size_gb=126.0,
        signs={"transformer_2": True}, native_size=(720, 1280), takes=_takes(*TEXT, "guidance_scale_2"),
        denoisers=("transformer", "transformer_2"),
    ),
    _wan(
        "wan2.1-i2v-480p", "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        {"num_inference_steps": 50, "guidance_scale": 5.0, "flow_shift": 3.0}, FEW_21,
        about="Wan 2.1, 14 billion parameters, trained for 480p.", size_gb=90.0, signs={"image_encoder": True}, native_size=(480, 832),
    ),
    _wan(
        "wan2.1-i2v-720p", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        {"num_inference_steps": 50, "guidance_scale": 5.0, "flow_shift": 5.0}, FEW_21,
        about="Wan 2.1, 14 billion parameters, trained for 720p.", size_gb=90.0, signs={"image_encoder": True}, native_size=(720, 1280),
    ),
    _ltx(
        "ltx-video", "Lightricks/LTX-Video-0.9.5", 40, {}, size_gb=25.0,
        about="LTX-Video 0.9.5, 2 billion parameters: the fastest of all here.",
    ),
    _ltx(
        "ltx-video-13b", "Lightricks/LTX-Video-0.9.7-dev", 30, FEW_LTX_13B, size_gb=46.0, signs={"transformer.num_layers": 48},
        about="LTX-Video 0.9.7, 13 billion parameters.",
    ),
    _cog(
        "cogvideox-5b-i2v", "THUDM/CogVideoX-5b-I2V", {"num_frames": 49, "fps": 8}, {"num_inference_steps": 25, "num_frames": 25},
        about="CogVideoX, 5 billion parameters: 6 seconds at 8 frames a second, in one size.", size_gb=21.0, native_size=(480, 720),
        native_fps=8, sizes={"480p": (480, 720)}, only_sizes=((480, 720),), frame_rule=FrameRule(8, 1, 9, 49),
    ),
    _cog(
        "cogvideox1.5-5b-i2v", "THUDM/CogVideoX1.5-5B-I2V", {"num_frames": 81, "fps": 16}, {"num_inference_steps": 25, "num_frames": 49},
        about="CogVideoX 1.5, 5 billion parameters: any shape, 5 or 10 seconds at 16 frames a second.", size_gb=21.0,
        signs={"transformer.patch_size_t": 2},
        native_size=(768, 1360), native_fps=16, sizes={"480p": (480, 720), "768p": (768, 1360)}, frame_rule=FrameRule(16, 1, 17, 161),
    ),
    Family(**{**HUNYUAN, "caches": ("pab", "taylor", "mag")}, name="hunyuanvideo-i2v", hub="hunyuanvideo-community/HunyuanVideo-I2V", size_gb=43.0,
        about="HunyuanVideo, 13 billion parameters: 5 seconds; guidance is an input of the network, true_cfg_scale a second pass.",
        pipeline="HunyuanVideoImageToVideoPipeline", signs={"transformer.image_condition_type": "token_replace"},
        native_size=(720, 1280), size_multiple=16, sizes={"540p": (544, 960), "720p": (720, 1280)}, frame_rule=FrameRule(4, 1, 5, 129),
        scheduler_classes={name: FLOW[name] for name in ("euler", "unipc")}, takes=_takes(*TEXT, "true_cfg_scale"),
        passes={"max_sequence_length": 256}, presets=_presets(
            {"resolution": "auto", "num_frames": 129, "fps": 24, "num_inference_steps": 50, "guidance_scale": 6.0, "true_cfg_scale": 1.0,
             "flow_shift": 7.0, "scheduler": "euler"},
            quick={"resolution": "540p", "num_frames": 61, "num_inference_steps": 30}, fast={"cache": "taylor:2"},
        ),
    ),
    Family(**{**HUNYUAN, "caches": ()}, name="framepack", hub="", size_gb=42.0,
        about="FramePack on HunyuanVideo: a section of 36 frames at a time, the end first; memory does not grow with the length.",
        pipeline="HunyuanVideoFramepackPipeline", indexed=("HunyuanVideoPipeline",), signs={"transformer.has_clean_x_embedder": True},
        native_size=(640, 640), size_multiple=16, sizes={"480p": (480, 832), "540p": (544, 720)}, frame_rule=FrameRule(36, 1, 37, 253),
        section=(36, 33), scheduler_classes={"euler": FLOW["euler"]}, takes=_takes(*TEXT, "true_cfg_scale"),
        passes={"max_sequence_length": 256, "latent_window_size": 9}, presets=_presets(
            {"resolution": "auto", "num_frames": 109, "fps": 30, "num_inference_steps": 30, "guidance_scale": 9.0, "true_cfg_scale": 1.0,
             "scheduler": "euler"},
            quick={"num_frames": 37, "num_inference_steps": 15},
        ),
    ),
    _hunyuan_15("hunyuanvideo-1.5-i2v-480p", 640, (480, 848), hub="hunyuanvideo-community/HunyuanVideo-1.5-480p_i2v", size_gb=35.0,
        about="HunyuanVideo 1.5, 8 billion parameters, trained for 480p: 5 seconds at 24 frames a second."),
    _hunyuan_15("hunyuanvideo-1.5-i2v-720p", 960, (720, 1280), hub="hunyuanvideo-community/HunyuanVideo-1.5-720p_i2v", size_gb=35.0,
        about="HunyuanVideo 1.5, 8 billion parameters, trained for 720p: 5 seconds at 24 frames a second."),
    Family(**LTX_2, name="ltx-2", hub="Lightricks/LTX-2", size_gb=68.0,
        about="LTX-2, 19 billion parameters: picture and sound together, which goes into the clip.",
        presets=_presets(
            {"resolution": "auto", "num_frames": 121, "fps": 24, "condition_fps": 24, "num_inference_steps": 40, "guidance_scale": 4.0,
             "scheduler": "euler", "negative_prompt": LTX_NEGATIVE},
            quick={"num_frames": 49, "num_inference_steps": 20}, high={"resolution": "704p"},
        ),
    ),
    _svd("svd", 14, "stabilityai/stable-video-diffusion-img2vid", signs={"unet.num_frames": 14}, size_gb=4.5,
         about="Stable Video Diffusion: 14 frames from a picture; it reads no prompt."),
    _svd("svd-xt", 25, "stabilityai/stable-video-diffusion-img2vid-xt", size_gb=4.5,
         about="Stable Video Diffusion XT: 25 frames from a picture; it reads no prompt."),
)  # fmt: skip

FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
"""{name: family}."""
