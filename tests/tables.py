"""Tables of runs without clips, whose metrics are known."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd


def table_of(values, *, seeds=5, images=("a.png", "b.png", "c.png"), scales=(1.0, 5.0, 9.0), **more) -> pd.DataFrame:
    """A table of runs; `values(scale, seed, image)` gives its metrics."""
    rows = []
    for scale, seed, image in product(scales, range(seeds), images):
        row = {"status": "done", "guidance_scale": scale, "seed": seed, "image": image, "seconds_total": 2.0 + scale / 10, "seconds_load": 1.0,
               "peak_vram_allocated_gib": math.nan, "peak_ram_gib": 1.0}  # fmt: skip
        rows.append({**row, **more, **{f"metric_{name}": value for name, value in values(scale, seed, image).items()}})
    return pd.DataFrame(rows)


def noisy(scale: float, seed: int, image: str) -> dict[str, float]:
    """Agreement grows with the scale; sharpness is luck; the pictures differ; flicker follows motion."""
    luck = np.random.default_rng([seed, ord(image[0])]).normal(size=3)
    noise = np.random.default_rng([int(10 * scale), seed, ord(image[0])]).normal(size=4)
    return {"prompt_agreement": scale / 10 + 0.02 * luck[0] + 0.01 * noise[0], "sharpness": 100 * ord(image[0]) + 30 * luck[1] + 20 * noise[1],
            "motion": 5 - scale / 3 + 0.05 * noise[2], "temporal_flickering": 0.9 + scale / 200 + 1e-4 * noise[3]}  # fmt: skip
