"""Tiny checkpoints of the families whose text encoders are language models: HunyuanVideo, its successors, and LTX-2."""

from __future__ import annotations

import re
from typing import Any

import diffusers as df
import torch
import transformers as tf
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video_framepack, pipeline_hunyuan_video_image2video
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import Unigram

SPECIAL = (
    "<pad>", "</s>", "<unk>", "<s>", "<|end_header_id|>", "<|start_header_id|>", "<|eot_id|>", "<image>", "\n\n", "<boi>", "<eoi>",
)  # fmt: skip
IMAGE = SPECIAL.index("<image>")
TEMPLATES = (
    pipeline_hunyuan_video_image2video.DEFAULT_PROMPT_TEMPLATE["template"],
    pipeline_hunyuan_video_framepack.DEFAULT_PROMPT_TEMPLATE["template"],
)
VOCABULARY = 200


def seeded(make: Any, *args: Any, **options: Any) -> Any:
    """A network whose random weights are the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*args, **options).eval()


def tokenizer(**options: Any) -> Any:
    """One token for each word of the pipelines' own templates, which so keep their places; one for each letter of other words."""
    words = sorted(set(re.findall(r"\w+", " ".join(TEMPLATES))))
    letters = [chr(code) for code in range(33, 127)]
    pieces = (
        [(word, 0.0) for word in SPECIAL] + [(word, -2.0) for word in words if len(word) > 1] + [(one, -5.0) for one in letters]
    )
    made = Tokenizer(Unigram(pieces[:VOCABULARY], unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>",  # noqa: S106
        additional_special_tokens=list(SPECIAL[4:]), **options,
    )  # fmt: skip


LLAMA = {
    "bos_token_id": 3, "eos_token_id": 1, "pad_token_id": 0, "hidden_size": 16, "intermediate_size": 37, "num_attention_heads": 4,
    "num_hidden_layers": 3, "vocab_size": VOCABULARY,
}  # fmt: skip


def clip_text() -> Any:
    config = tf.CLIPTextConfig(
        bos_token_id=3, eos_token_id=1, pad_token_id=0, hidden_size=8, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2,
        vocab_size=VOCABULARY, projection_dim=32,
    )  # fmt: skip
    return seeded(tf.CLIPTextModel, config)


def vae() -> Any:
    return seeded(
        df.AutoencoderKLHunyuanVideo, latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    )  # fmt: skip


TRANSFORMER: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 10, "num_layers": 2, "num_single_layers": 2,
    "num_refiner_layers": 1, "patch_size": 1, "patch_size_t": 1, "guidance_embeds": True, "text_embed_dim": 16,
    "pooled_projection_dim": 8, "rope_axes_dim": (2, 4, 4),
}  # fmt: skip
SCHEDULER = df.FlowMatchEulerDiscreteScheduler


def hunyuan() -> Any:
    seen = tf.CLIPVisionConfig(
        hidden_size=8, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, image_size=336, patch_size=14
    )
    llava = tf.LlavaConfig(vision_config=seen, text_config=tf.LlamaConfig(**LLAMA), pad_token_id=0, image_token_index=IMAGE)
    return df.HunyuanVideoImageToVideoPipeline(
        transformer=seeded(df.HunyuanVideoTransformer3DModel, **TRANSFORMER, image_condition_type="token_replace"), vae=vae(),
        scheduler=SCHEDULER(shift=7.0), text_encoder=seeded(tf.LlavaForConditionalGeneration, llava), text_encoder_2=clip_text(),
        tokenizer=tokenizer(padding_side="right"), tokenizer_2=tokenizer(model_max_length=77),
        image_processor=tf.CLIPImageProcessorPil(crop_size=336, size=336),
    )  # fmt: skip


def siglip(**sizes: Any) -> Any:
    return seeded(tf.SiglipVisionModel, tf.SiglipVisionConfig(num_hidden_layers=2, intermediate_size=37, **sizes))


def framepack() -> Any:
    own = {
        "num_layers": 1,
        "num_single_layers": 1,
        "patch_size": 2,
        "has_image_proj": True,
        "image_proj_dim": 32,
        "has_clean_x_embedder": True,
    }
    return df.HunyuanVideoFramepackPipeline(
        transformer=seeded(df.HunyuanVideoFramepackTransformer3DModel, **{**TRANSFORMER, **own}, image_condition_type=None), vae=vae(),
        scheduler=SCHEDULER(shift=7.0), text_encoder=seeded(tf.LlamaModel, tf.LlamaConfig(**LLAMA)), text_encoder_2=clip_text(),
        tokenizer=tokenizer(padding_side="right"), tokenizer_2=tokenizer(model_max_length=77),
        feature_extractor=tf.SiglipImageProcessorPil(size={"height": 30, "width": 30}),
        image_encoder=siglip(hidden_size=32, num_attention_heads=4, image_size=30, patch_size=2),
    )  # fmt: skip


TARGET = 80  # pixels: a size of the tiny checkpoint is as many as a square of this side has


def hunyuan_15() -> Any:
    qwen = tf.Qwen2_5_VLTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, vocab_size=VOCABULARY,
        rope_scaling={"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}, rope_theta=1e6,
    )  # fmt: skip
    byte = tf.T5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu")
    chat = tokenizer()
    chat.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return df.HunyuanVideo15ImageToVideoPipeline(
        transformer=seeded(
            df.HunyuanVideo15Transformer3DModel, in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
            num_refiner_layers=1, mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=16, text_embed_2_dim=32,
            image_embed_dim=12, rope_axes_dim=(2, 2, 4), target_size=TARGET, task_type="i2v",
        ),
        vae=seeded(
            df.AutoencoderKLHunyuanVideo15, latent_channels=4, block_out_channels=(8,) * 5, layers_per_block=1,
            spatial_compression_ratio=16, temporal_compression_ratio=4, downsample_match_channel=False, upsample_match_channel=False,
        ),
        scheduler=SCHEDULER(shift=5.0), text_encoder=seeded(tf.Qwen2_5_VLTextModel, qwen), tokenizer=chat,
        text_encoder_2=seeded(tf.T5EncoderModel, byte), tokenizer_2=tf.ByT5Tokenizer(), guider=df.ClassifierFreeGuidance(guidance_scale=6.0),
        image_encoder=siglip(hidden_size=12, num_attention_heads=2, image_size=54, patch_size=2),
        feature_extractor=tf.SiglipImageProcessorPil(size={"height": 54, "width": 54}),
    )  # fmt: skip


# LTX-2


def gemma() -> Any:
    text = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 16, "vocab_size": VOCABULARY, "sliding_window": 8, "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 1,
    }  # fmt: skip
    seen = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    places = {"image_token_index": IMAGE, "boi_token_index": SPECIAL.index("<boi>"), "eoi_token_index": SPECIAL.index("<eoi>")}
    config = tf.Gemma3Config(text_config=text, vision_config=seen, mm_tokens_per_image=4, **places)
    return seeded(tf.Gemma3ForConditionalGeneration, config)


def ltx_2() -> Any:
    transformer = seeded(
        df.LTX2VideoTransformer3DModel, in_channels=4, out_channels=4, patch_size=1, patch_size_t=1, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=16, audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2,
        audio_attention_head_dim=4, audio_cross_attention_dim=8, num_layers=2, qk_norm="rms_norm_across_heads", caption_channels=32,
        rope_double_precision=False, rope_type="split",
    )  # fmt: skip
    sides = {
        f"{side}_connector_{name}": value
        for side in ("video", "audio")
        for name, value in {
            "num_attention_heads": 4,
            "attention_head_dim": 8,
            "num_layers": 1,
            "num_learnable_registers": None,
        }.items()
    }
    connectors = seeded(
        LTX2TextConnectors, caption_channels=32, text_proj_in_factor=3, connector_rope_base_seq_len=32, rope_theta=10000.0,
        rope_double_precision=False, causal_temporal_positioning=False, rope_type="split", **sides,
    )  # fmt: skip
    pictures = seeded(
        df.AutoencoderKLLTX2Video, latent_channels=4, block_out_channels=(4, 8, 16, 32), decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 4, spatio_temporal_scaling=(True,) * 4,
        decoder_spatio_temporal_scaling=(True,) * 3, decoder_inject_noise=(False,) * 4,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"), upsample_residual=(True,) * 3,
        upsample_factor=(2,) * 3, timestep_conditioning=False, patch_size=4, patch_size_t=1, encoder_causal=True, decoder_causal=False,
        spatial_compression_ratio=32, temporal_compression_ratio=8,
    )  # fmt: skip
    sound = seeded(
        df.AutoencoderKLLTX2Audio, base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, attn_resolutions=None,
        in_channels=2, resolution=32, latent_channels=2, norm_type="pixel", causality_axis="height", dropout=0.0,
        mid_block_add_attention=False, sample_rate=16000, mel_hop_length=160, is_causal=True, mel_bins=8,
    )  # fmt: skip
    vocoder = seeded(
        LTX2Vocoder, in_channels=16, hidden_channels=32, out_channels=2, upsample_kernel_sizes=[32, 20], upsample_factors=[16, 10],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], leaky_relu_negative_slope=0.1, output_sampling_rate=16000,
    )  # fmt: skip
    scheduler = SCHEDULER(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    return df.LTX2ImageToVideoPipeline(
        scheduler=scheduler, vae=pictures, audio_vae=sound, text_encoder=gemma(), tokenizer=tokenizer(model_max_length=1024),
        connectors=connectors, transformer=transformer, vocoder=vocoder,
    )  # fmt: skip
