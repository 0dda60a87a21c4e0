"""One of the processes that make a clip together: `python -m i2v_lab.models.parallel.rank`, started by group.py.

It has a device, and the whole model on it. Its standard input brings requests, its standard output takes answers, both pickled: tuples
whose first part says what it is. Where its input ends, the process that asked is gone, and it ends too.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.clip.sound import sound_of
from i2v_lab.errors import Stop
from i2v_lab.models import open as open_model
from i2v_lab.models.memory.ladder import one_line
from i2v_lab.models.parallel.split import sharing


class _Told(Progress):
    """Says to the process that asked where the clip is. Of several ranks the first alone does; the others end before they decode."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank

    def stage(self, name: str, total: int | None = None) -> None:
        if self.rank.number == 0:
            self.rank.say("stage", name, total)
        elif name == "decode":
            raise Stop("the first process decodes")

    def step(self, preview: Preview | None = None) -> None:
        self.rank.preview = preview or self.rank.preview
        if self.rank.number == 0:
            self.rank.say("step", preview is not None)


class Rank:
    """This process, as one of `count`."""

    mesh: Any

    def __init__(self, number: int, device: str, answers: BinaryIO) -> None:
        self.number, self.device, self._answers = number, torch.device(device), answers
        self.preview: Preview | None = None
        self._lock = threading.Lock()

    def meet(self, count: int, meeting: Path) -> None:
        """Find the others, of whom there are `count` with this one, through a file."""
        on_cuda = self.device.type == "cuda"
        if on_cuda:
            torch.cuda.set_device(self.device)
        else:
            # diffusers divides by the number of accelerators, which is 0 here (diffusers 0.42, `_resolve_parallel_config`).
            torch.accelerator.device_count = lambda: 1
            torch.set_num_threads(max(1, torch.get_num_threads() // count))
        dist.init_process_group(
            "nccl" if on_cuda else "gloo", init_method=meeting.absolute().as_uri(), rank=self.number, world_size=count,
            device_id=self.device if on_cuda else None,
        )  # fmt: skip
        self.mesh = init_device_mesh(self.device.type, (1, count), mesh_dim_names=("ring", "ulysses"))

    def say(self, *answer: Any) -> None:
        with self._lock:  # a preview is answered by another thread
            pickle.dump(answer, self._answers)
            self._answers.flush()

    def listen(self, requests: BinaryIO, found: SimpleQueue[tuple[Any, ...]]) -> None:
        """Answer requests for previews, and put the others into the queue; at the end of them the process ends."""
        try:
            while True:
                what, *rest = pickle.load(requests)  # noqa: S301 - the process that started this one
                if what == "preview":
                    self.say("preview", self._rendered())
                else:
                    found.put((what, *rest))
        except Exception:  # noqa: BLE001 - the end of the pipe, in whatever form
            os._exit(0)

    def _rendered(self) -> Any:
        """The newest preview; None where there is none, or it fails: that is no reason for the clip to fail."""
        with suppress(Exception):
            return self.preview and self.preview()
        return None

    def make(self, model: str, dtype: str, tier: int, params: str | None = None, picture: Picture | None = None) -> None:
        """Load the model if it is not yet, and make a clip where one is given."""
        progress, self.preview = _Told(self), None
        loaded: Any = open_model(model, str(self.device), dtype).load(progress, tier)
        if params is None or picture is None:
            self.say("loaded")
            return
        loaded.use_tier(tier)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        frames, clip = None, ClipParams.model_validate_json(params)
        try:
            with sharing(loaded, clip, self.mesh):
                frames = loaded.generate(picture, clip, progress)
        except Stop:
            pass
        self.say("made", frames if self.number == 0 else None, None if frames is None else sound_of(frames), self._memory())

    def _memory(self) -> dict[str, float]:
        """Bytes: the most that was used, by the names that a record has for it, and what is held now."""
        if self.device.type == "cuda":
            peaks = {
                "peak_vram_allocated_gib": torch.cuda.max_memory_allocated(),
                "peak_vram_reserved_gib": torch.cuda.max_memory_reserved(),
            }
            return {**peaks, "held": torch.cuda.memory_reserved()}
        import psutil

        info = psutil.Process().memory_info()
        return {"peak_ram_gib": getattr(info, "peak_wset", _peak_bytes()) or info.rss, "held": info.rss}


def _peak_bytes() -> int:
    """The highest resident memory of this process; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """The entry point; the arguments are number, count, device, and the file at which the processes meet."""
    number, count, device, meeting = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    logging.basicConfig(level=logging.WARNING)
    rank, requests = Rank(int(number), device, answers), SimpleQueue[tuple[Any, ...]]()
    threading.Thread(target=rank.listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    try:
        rank.meet(int(count), Path(meeting))
    except Exception as error:  # noqa: BLE001 - the last line is what a user sees
        traceback.print_exc()
        sys.exit(f"it could not meet the others: {one_line(error)}")
    rank.say("ready")
    while True:
        try:
            rank.make(*requests.get())
        except Exception as error:  # noqa: BLE001 - the process that asked decides
            traceback.print_exc()
            rank.say("error", error)


if __name__ == "__main__":
    main()
