"""Clips as other tools write them, of kinds that not every browser plays; the upper half of clip number n has `colour(n)`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
from PIL import Image
from sweeps import clip_frames

H264 = "-c:v libx264 -preset veryfast -qp 12"
# name: (FFmpeg's arguments, what the player calls it; "" where every browser plays the file itself)
KINDS = {
    "plain.mp4": (f"{H264} -pix_fmt yuv420p", ""),
    "with sound.mp4": (f"{H264} -pix_fmt yuv420p -c:a aac -shortest", ""),
    "vp9.webm": ("-c:v libvpx-vp9 -crf 12 -b:v 0 -pix_fmt yuv420p", ""),
    "av1.mp4": ("-c:v libsvtav1 -crf 12 -preset 10 -svtav1-params log=-1 -pix_fmt yuv420p", ""),
    "444.mp4": (f"{H264} -pix_fmt yuv444p", "H.264, not 8-bit 4:2:0"),
    "ten bits.mp4": (f"{H264} -pix_fmt yuv420p10le", "H.264, not 8-bit 4:2:0"),
    "opencv.mp4": ("-c:v mpeg4 -q:v 1 -pix_fmt yuv420p", "MPEG-4 part 2"),
    "opencv.avi": ("-c:v mpeg4 -vtag XVID -q:v 1 -pix_fmt yuv420p", "MPEG-4 part 2"),
    "phone.mov": ("-c:v libx265 -crf 8 -preset ultrafast -x265-params log-level=error -pix_fmt yuv420p10le -tag:v hvc1", "HEVC"),
    "turned.mov": (f"{H264} -pix_fmt yuv420p", "H.264 in MOV"),
    "obs.mkv": (f"{H264} -pix_fmt yuv420p -c:a aac -shortest", "H.264 in MKV"),
    "uneven.mp4": (f"-vf select=not(between(n\\,3\\,8)) -fps_mode vfr {H264} -pix_fmt yuv420p", "H.264, variable frame rate"),
    "猫 🐈.gif": ("-filter_complex [0:v]split[a][b];[a]palettegen[p];[b][p]paletteuse", "GIF"),
}
NAMES = [*KINDS, "animated.webp"]
SIZE = (96, 160)  # height, width
FRAMES = 16


def make_foreign(folder: Path) -> dict[str, str]:
    """The clips, 16 frames of 160x96 at 8 a second (uneven.mp4 without six of them). Returns {name: what the player calls it}."""
    for number, (name, (arguments, _)) in enumerate(KINDS.items()):
        pixels = clip_frames(number, FRAMES, *SIZE)
        source = f"-f rawvideo -pix_fmt rgb24 -s {SIZE[1]}x{SIZE[0]} -r 8 -i pipe:0"
        if "-c:a" in arguments:
            source += " -f lavfi -i sine=frequency=440:duration=2"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source.split(), *arguments.split(), str(folder / name)]
        subprocess.run(command, input=pixels.tobytes(), check=True, timeout=60, capture_output=True)
    if (turned := folder / "turned.mov").is_file():  # as a phone that is held upright writes it
        whole = folder / "whole.mov"
        turned.rename(whole)
        turn = ["-display_rotation", "90", "-i", str(whole), "-c", "copy", str(turned)]
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *turn], check=True, timeout=60, capture_output=True)
        whole.unlink()
    first, *others = map(Image.fromarray, clip_frames(len(KINDS), FRAMES, *SIZE))
    first.save(folder / NAMES[-1], save_all=True, append_images=others, duration=125, quality=95)
    return {name: kind for name, (_, kind) in KINDS.items()} | {NAMES[-1]: "WebP"}
