"""Checkpoints of the stock families, tiny and with random weights, in diffusers' layout: as real as published ones, but for their size.

`make_checkpoint(name, folder)` writes one; `PIPELINES[name]()` is the pipeline that it is written from.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers as df
import numpy as np
import tiny_hunyuan
import torch
import transformers as tf
from PIL import Image

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.models.checkpoint import quiet_libraries
from i2v_lab.models.sampling import numpy_quiet
from i2v_lab.models.stock.families import FAMILIES, Family, crop_sizes
from i2v_lab.models.stock.model import PipelineModel, model_class

LETTERS = "abcdefghijklmnopqrstuvwxyz.,"


def seeded(make: Callable[..., Any], *args: Any, seed: int = 0, **options: Any) -> Any:
    """A network whose random weights are the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(*args, **options).eval()


def t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    return tf.T5Tokenizer(vocab=pieces, extra_ids=0)


def t5(kind: Any = tf.T5EncoderModel, config: Any = tf.T5Config) -> Any:
    sizes = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    return seeded(kind, config(**sizes, feed_forward_proj="gated-gelu", dropout_rate=0.1))


def clip_vision(**sizes: Any) -> Any:
    common = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return seeded(tf.CLIPVisionModelWithProjection, tf.CLIPVisionConfig(**{**common, **sizes}))


# Wan


def wan_vae(**sizes: Any) -> Any:
    common = {"base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [False, True, True]}
    return seeded(df.AutoencoderKLWan, **{**common, **sizes})


def wan_transformer(seed: int = 0, **sizes: Any) -> Any:
    common = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 36, "out_channels": 16,
        "text_dim": 32, "freq_dim": 256, "ffn_dim": 32, "num_layers": 3, "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 32,
    }  # fmt: skip
    return seeded(df.WanTransformer3DModel, seed=seed, **{**common, **sizes})


def wan(shift: float, **parts: Any) -> Any:
    scheduler = df.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    common = {
        "tokenizer": t5_tokenizer(), "text_encoder": t5(tf.UMT5EncoderModel, tf.UMT5Config), "vae": wan_vae(), "scheduler": scheduler,
    }  # fmt: skip
    return df.WanImageToVideoPipeline(**{**common, **parts})


def wan_21(shift: float) -> Any:
    processor = tf.CLIPImageProcessorPil(crop_size=32, size=32)
    encoder = clip_vision(hidden_size=4, projection_dim=4, image_size=32, patch_size=1)
    return wan(shift, transformer=wan_transformer(image_dim=4), image_encoder=encoder, image_processor=processor)


def wan_22_a14b() -> Any:
    return wan(5.0, transformer=wan_transformer(), transformer_2=wan_transformer(seed=1), boundary_ratio=0.9)


def wan_22_5b() -> Any:
    vae = wan_vae(
        z_dim=48, in_channels=12, out_channels=12, is_residual=True, patch_size=2, latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
        scale_factor_spatial=16, scale_factor_temporal=4,
    )  # fmt: skip
    return wan(5.0, vae=vae, transformer=wan_transformer(in_channels=48, out_channels=48), expand_timesteps=True)


# LTX


def ltx(layers: int = 3) -> Any:
    transformer = seeded(
        df.LTXVideoTransformer3DModel, in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4,
        attention_head_dim=8, cross_attention_dim=32, num_layers=layers, caption_channels=32,
    )  # fmt: skip
    vae = seeded(
        df.AutoencoderKLLTXVideo, in_channels=3, out_channels=3, latent_channels=8, block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8), layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, True, False), decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(True,) * 5, upsample_residual=(False,) * 4, upsample_factor=(1,) * 4, timestep_conditioning=True,
        patch_size=4, patch_size_t=1, encoder_causal=True, decoder_causal=False,
    )  # fmt: skip
    scheduler = df.FlowMatchEulerDiscreteScheduler(shift=1.0)
    return df.LTXConditionPipeline(
        transformer=transformer, vae=vae, scheduler=scheduler, text_encoder=t5(), tokenizer=t5_tokenizer()
    )


# CogVideoX


def cogvideox(*, newer: bool = False) -> Any:
    height, width = FAMILIES["cogvideox-5b-i2v"].native_size  # its positions are learned, for one size
    own = (
        {
            "patch_size_t": 2,
            "ofs_embed_dim": 2,
            "use_learned_positional_embeddings": False,
            "sample_width": 300,
            "sample_height": 300,
        }
        if newer
        else {"use_learned_positional_embeddings": True, "sample_width": width // 8, "sample_height": height // 8}
    )
    transformer = seeded(
        df.CogVideoXTransformer3DModel, num_attention_heads=2, attention_head_dim=16, in_channels=8, out_channels=4, time_embed_dim=2,
        text_embed_dim=32, num_layers=3, sample_frames=9, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=226,
        use_rotary_positional_embeddings=True, **own,
    )  # fmt: skip
    blocks: dict[str, Any] = {"down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4}
    vae = seeded(
        df.AutoencoderKLCogVideoX, in_channels=3, out_channels=3, **blocks, block_out_channels=(8, 8, 8, 8), latent_channels=4,
        layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4, invert_scale_latents=newer,
    )  # fmt: skip
    scheduler = df.CogVideoXDDIMScheduler(
        snr_shift_scale=1.0, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction",
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, set_alpha_to_one=True, clip_sample=False,
    )  # fmt: skip
    return df.CogVideoXImageToVideoPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5(), vae=vae, transformer=transformer, scheduler=scheduler
    )


# Stable Video Diffusion


def svd(frames: int) -> Any:
    unet = seeded(
        df.UNetSpatioTemporalConditionModel, block_out_channels=(32, 64), layers_per_block=1, sample_size=32, in_channels=8,
        out_channels=4, down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), cross_attention_dim=32, num_attention_heads=(4, 8),
        projection_class_embeddings_input_dim=96, addition_time_embed_dim=32, num_frames=frames,
    )  # fmt: skip
    scheduler = df.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", interpolation_type="linear", prediction_type="v_prediction",
        sigma_max=700.0, sigma_min=0.002, steps_offset=1, timestep_spacing="leading", timestep_type="continuous",
        use_karras_sigmas=True,
    )  # fmt: skip
    vae = seeded(
        df.AutoencoderKLTemporalDecoder, block_out_channels=[32, 64], in_channels=3, out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=4,
    )  # fmt: skip
    encoder = clip_vision(
        hidden_size=32, projection_dim=32, num_attention_heads=4, image_size=224, intermediate_size=37, patch_size=14
    )
    processor = tf.CLIPImageProcessorPil(crop_size=224, size=224)
    return df.StableVideoDiffusionPipeline(
        vae=vae, image_encoder=encoder, unet=unet, scheduler=scheduler, feature_extractor=processor
    )


PIPELINES: Mapping[str, Callable[[], Any]] = {
    "wan2.2-ti2v-5b": wan_22_5b,
    "wan2.2-i2v-a14b": wan_22_a14b,
    "wan2.1-i2v-480p": lambda: wan_21(3.0),
    "wan2.1-i2v-720p": lambda: wan_21(5.0),
    "ltx-video": ltx,
    "ltx-video-13b": lambda: ltx(layers=48),
    "cogvideox-5b-i2v": cogvideox,
    "cogvideox1.5-5b-i2v": lambda: cogvideox(newer=True),
    "hunyuanvideo-i2v": tiny_hunyuan.hunyuan,
    "framepack": tiny_hunyuan.framepack,
    "hunyuanvideo-1.5-i2v-480p": tiny_hunyuan.hunyuan_15,
    "hunyuanvideo-1.5-i2v-720p": tiny_hunyuan.hunyuan_15,
    "ltx-2": tiny_hunyuan.ltx_2,
    "svd": lambda: svd(14),
    "svd-xt": lambda: svd(25),
}

SMALL: Mapping[str, Mapping[str, Any]] = {
    "wan": {"prompt": "a boat sails by", "negative_prompt": "blurred", "resolution": "64x96", "num_frames": 9},
    "ltx": {"prompt": "a boat sails by", "negative_prompt": "blurred", "resolution": "64x96", "num_frames": 9},
    "cogvideox-5b-i2v": {"prompt": "a boat sails by", "num_frames": 9},
    "cogvideox1.5-5b-i2v": {"prompt": "a boat sails by", "resolution": "64x96", "num_frames": 17},
    "hunyuanvideo-i2v": {
        "prompt": "a boat sails by",
        "negative_prompt": "blurred",
        "resolution": "64x96",
        "num_frames": 9,
        "true_cfg_scale": 2.0,
    },
    "framepack": {"prompt": "a boat sails by", "resolution": "64x64", "num_frames": 37},
    "hunyuanvideo-1.5": {"prompt": "a boat sails by", "negative_prompt": "blurred", "resolution": "64x96", "num_frames": 5},
    "svd": {"resolution": "64x64", "num_frames": 3},
}
"""Fields of the smallest clip that is worth a test, by the beginning of the family's name."""


WHOLE = dict(FAMILIES)
SMALLER: dict[str, dict[str, Any]] = {
    "cogvideox-5b-i2v": {"native_size": (64, 96), "sizes": {"480p": (64, 96)}, "only_sizes": ((64, 96),)},
    **{
        f"hunyuanvideo-1.5-i2v-{size}": {
            "native_size": (64, 96), "sizes": {size: (64, 96)}, "only_sizes": crop_sizes(tiny_hunyuan.TARGET),
            "signs": {"transformer.target_size": tiny_hunyuan.TARGET},
        }
        for size in ("480p", "720p")
    },
}  # fmt: skip


@contextlib.contextmanager
def small_sizes() -> Iterator[None]:
    """Inside, families of few sizes have those that their tiny networks are made for; CogVideoX's own takes 8 s a clip."""
    FAMILIES.update({name: dataclasses.replace(WHOLE[name], **fields) for name, fields in SMALLER.items()})
    try:
        yield
    finally:
        FAMILIES.update(WHOLE)


def small(name: str, **fields: Any) -> dict[str, Any]:
    """Fields of ClipParams, without model and picture, for a clip of some seconds by a family."""
    own = next(found for beginning, found in SMALL.items() if name.startswith(beginning))
    return {**own, "num_inference_steps": 3, "seed": 5, **fields}


def make_checkpoint(name: str, folder: Path) -> Path:
    """Write the family's checkpoint into a folder."""
    with quiet_libraries():
        pipe = PIPELINES[name]()
        pipe.save_pretrained(folder)
    return folder


def params_for(name: str, folder: Path, **fields: Any) -> ClipParams:
    return models.resolve(ClipParams(model=str(folder), image="sample:coffee", **small(name, **fields)))


def loaded(name: str, folder: Path, **options: Any) -> PipelineModel:
    return model_class(FAMILIES[name]).load(folder, **options)


def by_hand(
    folder: Path, family: Family, params: ClipParams, picture: Picture, prepare: Callable[[Any], None] = lambda pipe: None
) -> Any:
    """The clip as somebody makes it with diffusers alone; `prepare` changes the pipeline first."""
    with numpy_quiet(), quiet_libraries():
        pipe = getattr(df, family.pipeline).from_pretrained(folder)
        prepare(pipe)
    pipe.set_progress_bar_config(disable=True)
    plain = params.plain()
    given = {argument: plain[field] for field, argument in family.takes.items() if field in plain}
    for argument in [name for name in given if "." in name]:
        part, _, name = argument.partition(".")
        setattr(pipe, part, type(getattr(pipe, part))(**{name: given.pop(argument)}))
    given |= {**{side: getattr(params, side) for side in ("height", "width") if side in family.takes}, **family.passes}
    given["num_frames"] = family.asked_frames(params.num_frames)
    torch.manual_seed(params.seed)
    crop = Image.fromarray(picture.crop(params.height, params.width))
    with numpy_quiet():
        made = pipe(image=crop, **given, generator=torch.Generator().manual_seed(params.seed), output_type="np")
    return (made.frames[0] * 255).round().astype(np.uint8)
