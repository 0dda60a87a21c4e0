"""What is no picture, or a hostile one: each ends in one clear line, soon and without much memory."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import blocks, chunk, encode, heic, png
from PIL import Image

from i2v_lab.clip.picture import MAX_FILE_BYTES, open_picture
from i2v_lab.errors import PictureError


def half(kind: str, **options: object) -> Callable[[], bytes]:
    def make() -> bytes:
        noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        data = encode(Image.fromarray(noise), kind, **options)
        return data[: len(data) // 2]

    return make


def heic_bomb(side: int) -> bytes:
    """A HEIC that says it has `side` x `side` pixels."""
    data = re.sub(rb"(ispe\0{4}).{8}", lambda found: found[1] + struct.pack(">II", side, side), heic(), flags=re.DOTALL)
    return data.replace(b"clap", b"free")  # the crop to the true size


BOMB = png(30000, 30000, 8, 2, b"")
SCANS = encode(blocks(), "JPEG", progressive=True)
LAST_SCAN = SCANS[SCANS.rindex(b"\xff\xda") : -2]
# name, bytes, a word that the message must hold
BAD: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty.png", lambda: b"", "empty"),
    ("text.jpg", lambda: b"hello, this is no picture\n" * 50, "something else"),
    ("noise.png", lambda: np.random.default_rng(0).bytes(5000), "something else"),
    ("noise.tga", lambda: b"\0" * 500, "something else"),
    ("tga.bin", lambda: encode(blocks(), "TGA"), "something else"),
    ("page.jpg", lambda: b"<!DOCTYPE html><html><svg></svg></html>", "web page"),
    ("drawing.svg", lambda: b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ("slow.svg", lambda: b"<!---->" * 2000, "something else"),
    ("paper.pdf", lambda: b"%PDF-1.7\n%\xe2\xe3", "PDF"),
    ("drawing.eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS"),
    ("phone.heic", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC"),
    ("clip.mp4", lambda: b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(99), "video"),
    ("layers.psd", lambda: b"8BPS\0\x01" + bytes(99), "Photoshop"),
    ("camera.NEF", lambda: encode(blocks(), "TIFF"), "raw"),
    ("bomb.png", lambda: BOMB, "900.0"),
    ("bomb.heic", lambda: heic_bomb(16_000), "256.0"),
    ("larger_bomb.heic", lambda: heic_bomb(40_000), "1600.0"),
    ("header.heic", lambda: heic()[:200], "damaged"),
    ("big.png", lambda: png(9500, 9500, 8, 0, b""), "90.2"),
    ("scans.jpg", lambda: SCANS[:-2] + LAST_SCAN * 2000 + b"\xff\xd9", "scans"),
    ("header.png", lambda: BOMB[:20], "damaged"),
    ("header.jpg", lambda: b"\xff\xd8\xff\xe0", "damaged"),
    *[(f"half.{kind.lower()}", half(kind), "damaged") for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF", "JPEG2000", "HEIF")],
    ("half.ppm", half("PPM"), "damaged"),
    ("half.ico", half("ICO"), "damaged"),
    ("half.tga", half("TGA"), "damaged"),
    ("half.tif", half("TIFF", compression="tiff_lzw"), "damaged"),
    ("half_progressive.jpg", half("JPEG", progressive=True), "damaged"),
    ("crc.png", lambda: encode(blocks(), "PNG").replace(b"IDAT", b"IDAT\xff", 1), "damaged"),
    ("text_bomb.png", lambda: png(1, 1, 8, 0, b"\0\0", *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21)))]), "damaged"),
    ("new\nline\x1b[31m.png", lambda: b"no", "something else"),
]  # fmt: skip


def one_line(message: str, path: Path) -> bool:
    shown = path.name if path.name.isprintable() else repr(path.name)[1:-1]
    return message.isprintable() and shown in message and len(message) < 600


@pytest.mark.parametrize(("name", "make", "word"), BAD, ids=[row[0].encode("unicode_escape").decode() for row in BAD])
def test_what_is_no_picture_is_one_clear_line(tmp_path: Path, name: str, make: Callable[[], bytes], word: str) -> None:
    path = tmp_path / name
    path.write_bytes(make())
    start = time.monotonic()
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    assert time.monotonic() - start < 5
    assert one_line(str(caught.value), path)
    assert word in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no chain of Pillow's own


@pytest.mark.parametrize(
    "source", ["missing.png", "", "a\0b.png", "x" * 5000, "https://example.org/a.png", "sample:dog", "sample:"]
)
def test_names_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PictureError) as caught:
        open_picture(source)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_special_files_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 2**20)
    for path, word in [
        (tmp_path, "folder"), (tmp_path / "pipe.png", "pipe"), (Path("/dev/zero"), "device"), (tmp_path / "loop.png", "error"),
        (tmp_path / "gone.png", "no such file"), (tmp_path / "huge.png", "257 MiB"),
    ]:  # fmt: skip
        with pytest.raises(PictureError, match=word) as caught:
            open_picture(path)
        assert one_line(str(caught.value), path)


def test_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(BOMB)
    # In a process of its own that may take 200 MB more than it begins with; decoding would take 3.6 GB.
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom i2v_lab.clip.picture import open_picture\n"
        "most = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize() + 200 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "try: open_picture(sys.argv[1])\nexcept Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("PictureError")
    assert "expected at most 89.5 megapixels, got 900.0" in done.stdout


def test_damaged_heic_never_ends_the_process(tmp_path: Path) -> None:
    """200 files with bytes changed at random: each opens or is one clear line."""
    whole, rng, path = np.frombuffer(heic(more=1), np.uint8), np.random.default_rng(0), tmp_path / "damaged.heic"
    ends = []
    for _ in range(200):
        data = whole.copy()
        data[rng.integers(12, data.size, rng.integers(1, 12))] = rng.integers(0, 256)
        path.write_bytes(data.tobytes()[: data.size if rng.random() < 0.8 else rng.integers(20, data.size)])
        try:
            ends.append(open_picture(path).rgb.ndim)
        except PictureError as error:
            assert one_line(str(error), path)
            ends.append(0)
    assert 0 < ends.count(0) < 200


def test_pillow_heif_is_imported_only_for_a_heic(tmp_path: Path) -> None:
    (tmp_path / "phone.heic").write_bytes(heic())
    script = (
        "import sys, i2v_lab.clip.picture as p; p.open_picture('sample:coffee'); print('pillow_heif' in sys.modules)\n"
        "p.open_picture(sys.argv[1]); print('pillow_heif' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "phone.heic")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "True"]
