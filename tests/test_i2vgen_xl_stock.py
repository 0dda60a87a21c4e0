"""I2VGen-XL against diffusers' own pipeline, which makes the same frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BASE, folder_fixture, model_fixture, picture_fixture  # noqa: F401
from PIL import Image

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Progress
from i2v_lab.models.i2vgen_xl.model import I2VGenXL
from i2v_lab.models.sampling import SCHEDULERS, make_scheduler


def stock(model: I2VGenXL, pixels: np.ndarray, params: ClipParams) -> np.ndarray:
    """The same clip by diffusers' own pipeline: its frames, float (F, H, W, 3) from 0 to 1.

    It gets the noise and the sample of the picture's latents that a seed means to us. The text tower's embeddings are
    passed in, since it looks for them where transformers no longer has them.
    """
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    pipeline = diffusers.I2VGenXLPipeline(
        vae=model.vae, text_encoder=model.text_encoder, tokenizer=model.tokenizer, image_encoder=model.image_encoder,
        feature_extractor=model.feature_extractor, unet=model.unet,
        scheduler=make_scheduler(params.scheduler, model.scheduler_config),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(params.seed)
    latent_shape = (4, params.height // 8, params.width // 8)
    sample_noise = torch.randn((1, *latent_shape), generator=generator)
    noise = torch.randn((params.num_frames, *latent_shape), generator=generator)
    encode = model.vae.encode

    class Drawn:
        def __init__(self, distribution: Any) -> None:
            self.latent_dist = self
            self.distribution = distribution

        def sample(self) -> torch.Tensor:
            return self.distribution.mean + self.distribution.std * sample_noise

    def words(text: str) -> torch.Tensor:
        tokens = model.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            return model.text_encoder.final_layer_norm(model.text_encoder(tokens, output_hidden_states=True).hidden_states[-2])

    model.vae.encode = lambda image: Drawn(encode(image).latent_dist)
    try:
        frames = pipeline(
            prompt_embeds=words(params.prompt), negative_prompt_embeds=words(params.negative_prompt), image=Image.fromarray(pixels),
            height=params.height, width=params.width, target_fps=params.condition_fps, num_frames=params.num_frames,
            num_inference_steps=params.num_inference_steps, guidance_scale=params.guidance_scale, generator=generator,
            latents=noise.permute(1, 0, 2, 3)[None], output_type="np",
        ).frames[0]  # fmt: skip
    finally:
        del model.vae.encode
    return np.asarray(frames)


class Unrounded:
    """Keeps the frames that the model decodes, before they become bytes."""

    def __init__(self, model: I2VGenXL, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: list[np.ndarray] = []
        decode = model.decode_frame

        def keep(latents: torch.Tensor) -> torch.Tensor:
            frame = decode(latents)
            self.frames.append((frame[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy())
            return frame

        monkeypatch.setattr(model, "decode_frame", keep)


def _cases() -> list[Any]:
    """Every scheduler; those that are built like another one run with the slow tests."""
    fast = ("ddim", "euler", "dpm++-2m")
    return [(name, 9.0) if name in fast else pytest.param(name, 9.0, marks=pytest.mark.slow) for name in SCHEDULERS]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # the stock pipeline's own
@pytest.mark.parametrize(("scheduler", "guidance"), [*_cases(), ("ddim", 1.0)])
def test_equals_the_stock_pipeline(
    model: I2VGenXL, picture: Picture, monkeypatch: pytest.MonkeyPatch, scheduler: str, guidance: float
) -> None:
    params = BASE.replace(scheduler=scheduler, guidance_scale=guidance, num_inference_steps=4, condition_fps=7)
    expected = stock(model, picture.crop(64, 96), params)
    unrounded = Unrounded(model, monkeypatch)
    frames = model.generate(picture, params, Progress())
    assert np.abs(np.stack(unrounded.frames) - expected).max() < 1e-4
    assert np.abs(frames.astype(int) - (expected * 255).round().astype(int)).max() <= 1
    assert expected.std() > 0.05  # else they would agree on nothing


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("resolution", ["64x64", "96x64", "72x104"])
def test_equals_the_stock_pipeline_in_any_shape(
    model: I2VGenXL, picture: Picture, monkeypatch: pytest.MonkeyPatch, resolution: str
) -> None:
    params = BASE.replace(resolution=resolution, num_inference_steps=2)
    expected = stock(model, picture.crop(params.height, params.width), params)
    unrounded = Unrounded(model, monkeypatch)
    model.generate(picture, params, Progress())
    assert np.abs(np.stack(unrounded.frames) - expected).max() < 1e-4
