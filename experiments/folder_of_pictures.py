"""Make a clip of each picture in a folder, one after another, on a server started with `i2v-lab serve`.

    python experiments/folder_of_pictures.py FOLDER [URL] [TOKEN]

Each clip is written next to its picture. A clip that exists is not made again, so an interrupted run can be continued.
"""

import sys
from pathlib import Path

from i2v_lab import Client, I2VLabError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

if len(sys.argv) < 2 or not Path(sys.argv[1]).is_dir():
    sys.exit("expected a folder of pictures: python experiments/folder_of_pictures.py FOLDER [URL] [TOKEN]")
folder = Path(sys.argv[1])
client = Client(sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:7860", sys.argv[3] if len(sys.argv) > 3 else "")
failed = 0
for picture in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
    target = picture.with_name(f"{picture.name}.mp4")  # so cat.png and cat.jpg get a clip each
    if target.exists():
        continue
    try:
        clip = client.generate(picture, "camera zooming in slowly", resolution="256p", num_frames=16, wait=True)
        print(f"{clip.save(target)}: {clip.seconds:.1f} s")
    except I2VLabError as error:
        failed += 1
        print(f"{picture}: {error}", file=sys.stderr)
sys.exit(1 if failed else 0)
