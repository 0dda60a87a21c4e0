"""How fast the record of runs is: `python tests/bench/bench_store.py [ROWS]`. Figures are printed, not asserted."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.devices.hardware import versions
from i2v_lab.store import Store

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@contextmanager
def timed(what: str, times: int = 1) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    print(f"{what:<44} {seconds:8.3f} s" + (f"  {seconds / times * 1e3:8.3f} ms each" if times > 1 else ""))


def some_records(count: int) -> Iterator[RunRecord]:
    """Done runs as a large sweep leaves them; all columns filled."""
    params = [ClipParams(image="sample:coffee", prompt=f"a cup, steam rising {i}", seed=i, guidance_scale=i / 7) for i in range(97)]
    seconds = {"load": 1.5, "encode": 0.25, "denoise": 12.5, "decode": 2.0, "write": 0.3, "total": 16.55}
    like = RunRecord(
        id="-", status="done", seconds=seconds, seconds_per_step=0.25, peak_ram_gib=3.5, predicted_peak_gib=3.25, requested_tier=0,
        actual_tier=0, file_bytes=123456, device="cpu", device_name="a CPU", dtype="float32", model_name="closed-form",
        model_fingerprint="f" * 64, image_sha256="a" * 64, versions=versions(), sweep="guidance",
        metrics={"motion": 1.25, "flicker": 0.5, "sharpness": None},
    )  # fmt: skip
    for i in range(count):
        created = BEGIN + timedelta(seconds=i)
        changes = {
            "id": new_id(created), "created": created, "finished": created + timedelta(seconds=16), "params": params[i % 97],
            "key": f"{i:064x}", "frames_sha256": f"{i * 7:064x}", "clip": f"clips/{i:06d}.mp4",
        }  # fmt: skip
        yield like.model_copy(update=changes)


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        with timed(f"save_many: {rows} rows"):
            store.save_many(some_records(rows))
        with timed("import pandas, pyarrow and numpy"):
            store.runs(status="failed")
        for _ in range(3):
            with timed(f"runs(): {rows} rows"):
                frame = store.runs()
        print(f"    {frame.shape[0]} x {frame.shape[1]}, {store.file.stat().st_size / 2**20:.0f} MiB on disk")
        with timed("runs(sweep=...), none found"):
            store.runs(sweep="none")
        with timed("open the store again"):
            store = Store(Path(folder))
        with timed("save: 100 rows one by one", 100):
            for record in some_records(100):
                store.save(record)
        with timed("find_done: 100 keys one by one", 100):
            for i in range(100):
                store.find_done(f"{i:064x}")
        for i in range(2000):
            (store.clips / f"{i:06d}.mp4").touch()
        with timed("find_all_done: 2000 keys, all done", 2000):
            found = store.find_all_done(f"{i:064x}" for i in range(2000))
        print(f"    {len(found)} found")
        with timed("records(limit=2000)", 2000):
            store.records(limit=2000)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
