"""The queue of clips: order, versions, limits, forecasts."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import jobs_of

from i2v_lab.clip.params import ClipParams
from i2v_lab.store.jobs import QueueFull, forecast
from i2v_lab.store.processes import lives, own_name


def params(**fields):
    return ClipParams(image="sample:coffee", resolution="64x64", num_frames=2, **fields)


def test_jobs_are_taken_in_their_order_and_each_once(tmp_path):
    queue = jobs_of(tmp_path)
    ids = [queue.add_clip(params(seed=seed), 100).id for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        taken = [job.id for job in pool.map(lambda number: queue.claim(f"worker {number}"), range(40))]
    assert sorted(taken) == sorted(ids)
    assert queue.claim("one more") is None
    first = queue.get(ids[0])
    assert [job.id for job in queue.active()] == ids
    assert queue.end(first, "done", result="{}")
    assert not queue.end(first, "failed", "by one who thought it dead")
    assert (queue.get(ids[0]).state, queue.get(ids[0]).reason) == ("done", "")


def test_a_full_queue_takes_no_more_and_a_stopped_job_makes_room(tmp_path):
    queue = jobs_of(tmp_path)
    ids = [queue.add_clip(params(), 2).id for _ in range(2)]
    with pytest.raises(QueueFull):
        queue.add_clip(params(), 2)
    assert queue.stop(ids[0], "by hand").state == "stopped"
    queue.add_clip(params(), 2)
    running = queue.claim("a worker")
    assert running.id == ids[1]
    assert queue.stop(running.id, "by hand").state == "running"
    assert queue.note(running.id, "denoise", 3, 10, 0.0).stop == "by hand"
    assert queue.stop("no such", "by hand") is None


def test_every_change_has_a_version_of_its_own(tmp_path):
    queue = jobs_of(tmp_path)
    first, second = queue.add_clip(params(), 9), queue.add_clip(params(), 9)
    before = queue.last_version()
    queue.claim("a worker")
    queue.note(first.id, "denoise", 1, 10, 0.0)
    active, changed = queue.look(before)
    assert [job.id for job in active] == [first.id, second.id]
    assert [(job.id, job.stage, job.step) for job in changed] == [(first.id, "denoise", 1)]
    assert changed[0].version == queue.last_version() == before + 2


def test_the_time_left_is_drawn_from_steps_and_from_earlier_jobs(tmp_path):
    queue = jobs_of(tmp_path)
    ids = [queue.add_clip(params(num_inference_steps=steps), 9).id for steps in (15, 15, 35)]
    queue.claim("a worker")
    queue.note(ids[0], "denoise", 5, 15, 100.0)
    found = forecast(queue.active(), 2 / queue.get(ids[1]).work, now=110.0)
    # 5 steps took 10 s, so 10 more take 20; an equal job takes 2 s; one of (35 + 5) in place of (15 + 5) steps takes 4.
    assert [round(found[id], 6) for id in ids] == [20.0, 22.0, 26.0]
    assert forecast(queue.active(), None, now=110.0)[ids[1]] is None


def test_a_process_is_known_to_be_gone_though_its_number_came_again():
    host, pid, began = own_name().split(":")
    assert lives(own_name())
    assert not lives(f"{host}:{pid}:{float(began) - 100}")
    assert lives(f"another-host:{pid}:{began}")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not lives(f"{host}:{gone.pid}:{began}")
