"""The process in which stock pipelines run on fake tensors: what they patch of torch is patched for a whole process.

`ask` starts it, hands it requests, and lets it go after IDLE seconds without one. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from i2v_lab.errors import ModelError

IDLE = 20.0  # seconds; it holds 0.6 GB
_lock = threading.Lock()
_process: subprocess.Popen[str] | None = None
_over = False  # this process ends: a thread that still asks starts no other one


def ask(request: Mapping[str, Any]) -> dict[str, int]:
    """What `rehearse` finds (see cost_run.py) for {"spec", "dtype", "quantization", "gguf", "scheduler", "shift", "call", "size", "tiling", "cache"}.

    Raises:
        ModelError: in one line, why it cannot be predicted.
    """
    global _process  # noqa: PLW0603 - one for all
    line = json.dumps(request)
    with _lock, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as remarks:
        try:
            answer = _exchange(line) if _process is not None else ""
            if not answer:  # it was let go meanwhile
                stop()
                if not _over:
                    _process = _start(remarks)
                    answer = _exchange(line)
        except BaseException:  # Ctrl-C: an answer to this request would be taken for that to the next
            stop()
            raise
        if not answer:
            stop()
            remarks.seek(0)
            said = (remarks.read().strip().splitlines() or ["it ended"])[-1]
            raise ModelError(
                f"its memory cannot be predicted: the process for it failed ({said[:300]}); close other programs, try again"
            )
    found = json.loads(answer)
    if "error" in found:
        raise ModelError(f"its memory cannot be predicted: {found['error']}")
    return dict(found)


def _start(remarks: Any) -> subprocess.Popen[str]:
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "i2v_lab.models.stock.cost_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=remarks,
        text=True, encoding="utf-8", env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip


def _exchange(line: str) -> str:
    """The answer; nothing where the process is gone."""
    assert _process is not None  # noqa: S101 - its caller looks
    assert _process.stdin is not None  # noqa: S101
    assert _process.stdout is not None  # noqa: S101
    with contextlib.suppress(OSError):
        _process.stdin.write(line + "\n")
        _process.stdin.flush()
        return _process.stdout.readline()
    return ""


@atexit.register
def _end() -> None:
    global _over  # noqa: PLW0603
    _over = True
    stop()


def stop() -> None:
    """End the process, if there is one."""
    global _process  # noqa: PLW0603
    if _process is None:
        return
    _process.kill()
    with contextlib.suppress(OSError), _process:  # closes its pipes, and waits
        pass
    _process = None


# Inside the process


def serve() -> None:
    """Answer the requests that come in, until none comes for IDLE seconds or there is nobody to answer."""
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")

    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print now and then
    threading.Thread(target=listen, daemon=True).start()
    with contextlib.suppress(queue.Empty, KeyboardInterrupt, BrokenPipeError):
        while line := lines.get(timeout=IDLE):
            answers.write(json.dumps(answer(json.loads(line))) + "\n")
            answers.flush()


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """What `rehearse` finds, or {"error": why not}."""
    from i2v_lab.models.checkpoint import one_line
    from i2v_lab.models.stock.cost_fake import outside, pretend
    from i2v_lab.models.stock.cost_run import rehearse
    from i2v_lab.models.stock.schedulers import make_scheduler

    try:
        with pretend():
            pipe = _built(json.dumps(request["spec"]), request["dtype"], request["quantization"], json.dumps(request["gguf"]))
            with outside():
                pipe.scheduler = make_scheduler(request["scheduler"], pipe.scheduler, request["shift"])
            return rehearse(
                pipe,
                request["spec"]["denoisers"],
                request["call"],
                request["size"],
                tiling=request["tiling"],
                cache=request["cache"],
            )
    except ModelError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever diffusers raises on configs that do not fit
        return {
            "error": f"expected configs of {request['spec']['pipeline']}, got such as it does not run on ({one_line(error, 200)})"
        }


@functools.lru_cache(maxsize=1)
def _built(spec: str, dtype: str, quantization: str, gguf: str) -> Any:
    from i2v_lab.models.stock.cost_build import build

    return build(json.loads(spec), dtype, quantization, json.loads(gguf))


if __name__ == "__main__":
    serve()
