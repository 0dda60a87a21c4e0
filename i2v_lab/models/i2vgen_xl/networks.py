"""I2VGen-XL (Zhang et al. 2023, I2VGen-XL: High-quality image-to-video synthesis via cascaded diffusion models).

Our own pipeline over diffusers' and transformers' components, through the loop in sampling.py. A prompt and a picture
condition a video UNet in latent space:

    text      CLIP's text tower, last layer but one                        (B, 77, D)
    picture   CLIP's vision tower, zeros where the prompt is negative      (B, 1, D)
              VAE latents as frame 0, constant frames that encode the time   (B, 4, F, h, w)
    rate      condition_fps                                                (B,)

B is 2 under guidance, the negative prompt first, and 1 without. h and w are an eighth of the clip's height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from i2v_lab.clip.levers import cache_of, steps_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.video import Frames
from i2v_lab.errors import BadFrames
from i2v_lab.models.levers import Clock, caching
from i2v_lab.models.memory.tiers import TIERS, put_on, tiers_on, tile
from i2v_lab.models.sampling import denoise

CELL = 8  # pixels a latent, along each side
CLIP_TOKENS = 77  # what the text tower reads, begin and end marks included

# Latents to RGB from -1 to 1, without the VAE: a linear fit that the users of Stable Diffusion share, whose latents
# these are (first published by K. Turner in the Hugging Face forum, "Decoding latents to RGB without upscaling", 2022).
LATENT_RGB = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))


@dataclass(frozen=True)
class Conditions:
    """All inputs of the UNet except the noisy latents and the time; shapes are at the top of the module."""

    text: torch.Tensor  # (B, 77, D)
    picture: torch.Tensor  # (B, 1, D)
    latents: torch.Tensor  # (B, 4, F, h, w)
    fps: torch.Tensor  # (B,), int64

    def only(self, number: int) -> Conditions:
        """Those of one pass: -1 is the prompt's."""
        one = slice(number, number + 1 or None)
        return Conditions(self.text[one], self.picture[one], self.latents[one], self.fps[one])


class Networks:
    """The networks of I2VGen-XL, and each step of a clip that one of them takes. `I2VGenXL` puts the steps together.

    Attributes:
        tokenizer, text_encoder, feature_extractor, image_encoder, unet, vae: the components.
        scheduler_config: the noise schedule that the checkpoint was trained with, as diffusers keeps it.
        tier: the tier of the memory ladder that it runs on. quantization: how the UNet keeps its weights.
    """

    def __init__(
        self, *, tokenizer: Any, text_encoder: Any, feature_extractor: Any, image_encoder: Any, unet: Any, vae: Any,
        scheduler_config: Mapping[str, Any], fingerprint: str, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.feature_extractor = feature_extractor
        self.image_encoder = image_encoder
        self.unet = unet
        self.vae = vae
        self.scheduler_config = dict(scheduler_config)
        self.fingerprint = fingerprint
        self.torch_device = torch.device(device or unet.device)  # where it computes; the weights may wait elsewhere
        self.torch_dtype: torch.dtype = unet.dtype
        self.device = str(self.torch_device)
        self.dtype = str(self.torch_dtype).removeprefix("torch.")
        self.tier, self.quantization = 0, "none"
        self.loras: str | None = None
        self.offloaders: dict[str, Any] = {}  # of accelerate, by network; for models/tiers.py
        self._settled = True  # on `tier`, whole

    def use_tier(self, number: int) -> None:
        """Run on a tier from now on; see models/tiers.py. Where the weights do not fit, another tier can still be used."""
        if number not in (possible := tiers_on(self.device)):
            raise ValueError(f"expected a tier of {', '.join(map(str, possible))} on {self.device}, got {number}")
        if self._settled and number == self.tier:
            return
        self.tier, self._settled = number, False
        put_on(self, number, self.torch_device)
        self._settled = True

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Token numbers, int64 (B, 77): longer texts are cut, shorter ones filled up."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        tokens = self.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return torch.as_tensor(tokens.input_ids)

    def encode_prompt(self, tokens: torch.Tensor) -> torch.Tensor:
        """The UNet's input for texts: the text tower's last layer but one, through its last norm. (B, 77, D)."""
        states = self.text_encoder(tokens.to(self.torch_device), output_hidden_states=True).hidden_states
        return torch.as_tensor(self.text_encoder.final_layer_norm(states[-2]))

    def encode_picture(
        self, pixels: npt.NDArray[np.uint8], text: torch.Tensor, params: ClipParams, generator: torch.Generator, progress: Progress
    ) -> Conditions:
        """All conditions of the UNet: the text's embedding, and the picture through CLIP and through the VAE.

        Args:
            pixels: the crop, uint8 RGB, (H, W, 3).
            text: from `encode_prompt`, (B, 77, D).
            generator: draws the sample of the picture's latents.
            progress: receives a step after each of the two.
        """
        seen = self.look(self.clip_pixels(pixels, params.width))  # (1, 1, D)
        progress.step()
        picture = torch.cat([torch.zeros_like(seen), seen][-len(text) :])  # (B, 1, D)
        whole = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]  # (1, 3, H, W)
        noise = torch.randn((1, self.unet.config.in_channels, params.height // CELL, params.width // CELL), generator=generator)
        first = self.to_latents(whole.to(self.torch_device, self.torch_dtype), noise)  # (1, 4, h, w)
        if not torch.isfinite(first).all():
            raise _not_finite("the picture's latents", "encode")
        progress.step()
        latents = self.tell_time(first, params.num_frames).repeat(len(text), 1, 1, 1, 1)  # (B, 4, F, h, w)
        fps = torch.full((len(text),), params.condition_fps, device=self.torch_device)  # (B,)
        return Conditions(text, picture, latents, fps)

    def clip_pixels(self, pixels: npt.NDArray[np.uint8], width: int) -> torch.Tensor:
        """The crop as CLIP's vision tower takes it, (1, 3, 224, 224).

        As in the published code it is enlarged until its shorter side is the clip's width, the square in the middle is
        cut out, and that made small. That code rounds a side down and pads with a black line at some sizes; this does not.
        """
        height = len(pixels)
        scale = max(1.0, width / height)
        size = (max(width, round(width * scale)), max(width, round(height * scale)))
        left, top = (size[0] - width) // 2, (size[1] - width) // 2
        crop_size = self.feature_extractor.crop_size
        square = Image.fromarray(pixels).resize(size, Image.Resampling.BOX).crop((left, top, left + width, top + width))
        small = square.resize((crop_size["width"], crop_size["height"]), Image.Resampling.BILINEAR)
        array = np.asarray(small, np.float32).transpose(2, 0, 1) / 255  # (3, 224, 224)
        normed = self.feature_extractor(
            images=array, do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=True, return_tensors="pt"
        )
        return torch.as_tensor(normed.pixel_values).to(self.torch_device, self.torch_dtype)

    def look(self, pixels: torch.Tensor) -> torch.Tensor:
        """CLIP's embedding of a picture: (1, 3, 224, 224) to (1, 1, D)."""
        return torch.as_tensor(self.image_encoder(pixels).image_embeds)[:, None]

    def to_latents(self, pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """A sample of the VAE's latents: pixels from -1 to 1 (1, 3, H, W), normal noise (1, 4, h, w), to (1, 4, h, w)."""
        self.vae.disable_tiling()  # else the whole clip would be another
        found = self.vae.encode(pixels).latent_dist
        return torch.as_tensor((found.mean + found.std * noise.to(found.mean)) * self.vae.config.scaling_factor)

    def tell_time(self, first: torch.Tensor, num_frames: int) -> torch.Tensor:
        """The picture's latents (1, 4, h, w) as frame 0, then constant frames that rise to 1. (1, 4, F, h, w)."""
        times = torch.arange(num_frames, device=first.device) / (num_frames - 1)  # (F,)
        rest = times[1:].to(first).view(1, 1, -1, 1, 1).expand(*first.shape[:2], -1, *first.shape[2:])
        return torch.cat([first[:, :, None], rest], 2)

    def predict(self, conditions: Conditions, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """One forward pass of the UNet: noisy latents (F, 4, h, w) to its prediction under each condition, (B, F, 4, h, w).

        The loop around it stays in float32 whatever the network's dtype is.
        """
        batch = latents.to(self.torch_dtype).permute(1, 0, 2, 3).expand(len(conditions.fps), -1, -1, -1, -1)  # (B, 4, F, h, w)
        (predicted,) = self.unet(
            batch,
            timestep,
            fps=conditions.fps,
            image_latents=conditions.latents,
            image_embeddings=conditions.picture,
            encoder_hidden_states=conditions.text,
            return_dict=False,
        )
        return torch.as_tensor(predicted).permute(0, 2, 1, 3, 4).float()

    def denoise(
        self,
        noise: torch.Tensor,
        conditions: Conditions,
        scheduler: Any,
        *,
        params: ClipParams,
        generator: torch.Generator,
        progress: Progress,
    ) -> torch.Tensor:
        """Noise (F, 4, h, w), float32, to latents of the same shape. BadFrames unless they are finite."""

        clock, alone = Clock(steps_of(params, len(scheduler.timesteps))), conditions.only(-1)

        def predict(latents: torch.Tensor, timestep: torch.Tensor, with_negative: bool) -> torch.Tensor:
            predicted = self.predict(conditions if with_negative else alone, latents, timestep)
            clock.next_step()
            return predicted

        with caching([self.unet], cache_of(params), clock):
            latents = denoise(predict, noise, scheduler, params, generator, progress, preview)
        if not torch.isfinite(latents).all():
            raise _not_finite("the latents", "denoise")
        return latents

    def decode(self, latents: torch.Tensor, progress: Progress) -> Frames:
        """Latents (F, 4, h, w) to frames, uint8 RGB (F, H, W, 3), one at a time. BadFrames unless they are finite.

        On tier 0 the frames wait on the device until the last is made, so that it never waits for them to be fetched.
        """
        progress.stage("decode", len(latents))
        size = (CELL * latents.shape[2], CELL * latents.shape[3])
        if self.tier == 0:
            pixels = torch.empty((len(latents), 3, *size), device=self.torch_device)
            for number, latent in enumerate(latents):
                pixels[number] = self.decode_frame(latent[None])[0]
                progress.step()
            return self.to_bytes(pixels).cpu().numpy()
        frames = np.empty((len(latents), *size, 3), np.uint8)
        for number, latent in enumerate(latents):
            frames[number] = self.to_bytes(self.decode_frame(latent[None]), number)[0].cpu().numpy()
            progress.step()
        return frames

    def to_bytes(self, pixels: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Pixels from about -1 to 1, float32 (n, 3, H, W), which are overwritten, to uint8 (n, H, W, 3).

        Args:
            first: the number of the first of these frames, for the error.
        """
        if not torch.isfinite(torch.stack(pixels.aminmax())).all():  # a NaN is both the least and the greatest
            wrong = next(number for number, frame in enumerate(pixels, first) if not torch.isfinite(frame).all())
            raise _not_finite(f"frame {wrong}", "decode")
        whole = pixels.div_(2).add_(0.5).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
        return whole.permute(0, 2, 3, 1).contiguous()

    def decode_frame(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (1, 4, h, w) to pixels from about -1 to 1, float32 (1, 3, H, W)."""
        if TIERS[self.tier].changes_pixels:
            tile(self.vae)
        scaled = (latents / self.vae.config.scaling_factor).to(self.torch_dtype)
        return torch.as_tensor(self.vae.decode(scaled, return_dict=False)[0]).float()


def prompts(params: ClipParams) -> list[str]:
    """The texts that the UNet runs under, in the order of its batch: negative, prompt; without guidance the prompt alone."""
    return [params.negative_prompt, params.prompt] if params.guidance_scale > 1 else [params.prompt]


def preview(latents: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Noisy latents (F, 4, h, w) as small pictures, uint8 RGB (F, h, w, 3). No network: some milliseconds."""
    # Some schedulers keep latents at the size of the noise, up to 4096 times too large: they show as noise of size 1.
    plain = latents.float() / latents.float().std().clamp(min=1)
    rgb = plain.permute(0, 2, 3, 1) @ torch.tensor(LATENT_RGB, device=latents.device)  # (F, h, w, 3)
    shown: npt.NDArray[np.uint8] = ((rgb / 2 + 0.5).nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return shown


def _not_finite(what: str, stage: str) -> BadFrames:
    return BadFrames(
        f"{stage}: expected finite numbers, got others in {what}; use dtype float32 or bfloat16, or another scheduler such as ddim"
    )
