"""Nine prompts over two photographs, and a moving picture of some: the pictures of the README.

python experiments/contact_sheet.py [FOLDER]      writes contact_sheet.jpg and motions.gif (default: docs/images)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from i2v_lab import ClipParams, Progress, models, open_picture
from i2v_lab.clip import video as clips

PROMPTS = (
    "camera panning left", "镜头向上平移", "zoom in", "slowly zooming out", "camera rotating clockwise",
    "tilt up", "ocean waves", "wind blowing", "the sun sets and it gets darker",
)  # fmt: skip
PHOTOGRAPHS = ("sample:motorcycle", "sample:coffee")
MOVING = ("camera panning left", "zoom in", "camera rotating clockwise", "wind blowing")
SIDE, GAP, LABEL = 150, 4, 190  # pixels
FRAMES_SHOWN = (0, 7, 15)


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that matplotlib ships, or one of the system's that has Chinese, if the text needs it."""
    if text.isascii():
        return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
    import matplotlib.font_manager as fonts

    for font in fonts.fontManager.ttflist:
        if any(name in font.name for name in ("CJK", "Hei", "Zen Hei", "WenQuanYi", "Noto Sans SC", "PingFang")):
            return ImageFont.truetype(font.fname, size)
    raise SystemExit("a font with Chinese characters is needed: install fonts-wqy-microhei or Noto Sans CJK")


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def make(image: str, prompt: str) -> np.ndarray:
    """One clip with the default settings, small: uint8 RGB (16, SIDE, SIDE, 3)."""
    params = ClipParams(image=image, prompt=prompt, resolution=f"{SIDE}x{SIDE}", seed=3)
    return models.open("closed-form").load().generate(open_picture(image), params, Progress())


def sheet() -> Image.Image:
    """A row a prompt; of each photograph the first, a middle and the last frame."""
    columns = len(PHOTOGRAPHS) * len(FRAMES_SHOWN)
    page = Image.new("RGB", (LABEL + columns * (SIDE + GAP) + GAP, 24 + len(PROMPTS) * (SIDE + GAP) + GAP), "white")
    draw = ImageDraw.Draw(page)
    for column in range(columns):
        text = f"frame {FRAMES_SHOWN[column % len(FRAMES_SHOWN)]}"
        draw.text((LABEL + column * (SIDE + GAP) + SIDE / 2, 12), text, "black", _font(text, 12), anchor="mm")
    for row, prompt in enumerate(PROMPTS):
        top, font = 24 + row * (SIDE + GAP), _font(prompt, 15)
        draw.multiline_text((10, top + SIDE / 2), _wrapped(draw, prompt, font, LABEL - 20), "black", font, anchor="lm")
        for number, image in enumerate(PHOTOGRAPHS):
            frames = make(image, prompt)
            for place, index in enumerate(FRAMES_SHOWN):
                left = LABEL + (number * len(FRAMES_SHOWN) + place) * (SIDE + GAP)
                page.paste(Image.fromarray(frames[index]), (left, top))
    return page


def moving(folder: Path) -> None:
    """motions.gif: one photograph, four prompts, side by side, each under its prompt."""
    made = [make(PHOTOGRAPHS[0], prompt) for prompt in MOVING]
    frames = []
    for index in range(16):
        page = Image.new("RGB", (len(made) * (SIDE + GAP) + GAP, SIDE + 24), "white")
        draw = ImageDraw.Draw(page)
        for column, (prompt, clip) in enumerate(zip(MOVING, made, strict=True)):
            left = GAP + column * (SIDE + GAP)
            draw.text((left + SIDE / 2, 12), prompt, "black", _font(prompt, 11), anchor="mm")
            page.paste(Image.fromarray(clip[index]), (left, 24))
        frames.append(np.asarray(page))
    with tempfile.TemporaryDirectory() as scratch:
        info = clips.write(frames, Path(scratch), stem="motions", fps=Fraction(8), format="gif")
        shutil.copyfile(info.path, folder / "motions.gif")


def main() -> None:
    """Write both pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    sheet().save(folder / "contact_sheet.jpg", quality=88)
    moving(folder)


if __name__ == "__main__":
    main()
