"""Many clients at once on one server, with the fake model: what came of each job, and how fast /api/health answered.

python tests/bench/bench_server.py [SECONDS] [CLIENTS]
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import Server, data_url, picture, shows

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
clients = int(sys.argv[2]) if len(sys.argv) > 2 else 50
accepted: list[tuple[str, int]] = []
refused: list[int] = []
over = threading.Event()


# In a process of its own: among the threads of the clients it would measure those.
PROBE = """
import http.client, json, sys, threading, time
line, over, found = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60), threading.Event(), []
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
while not over.wait(0.05):
    began = time.perf_counter()
    line.request("GET", "/api/health")
    answer = line.getresponse()
    answer.read()
    assert answer.status == 200
    found.append(time.perf_counter() - began)
print(json.dumps(found))
"""


def client(number: int, server: Server, until: float) -> None:
    random_pause = random.Random(number)  # noqa: S311
    with requests.Session() as session:
        session.headers.update(server.session.headers)
        seed = 0
        while time.monotonic() < until:
            seed += 1
            body: dict[str, str | int] = {
                "image": data_url(picture(number)),
                "resolution": "64x64",
                "num_frames": 2,
                "num_inference_steps": 1,
                "seed": seed,
            }
            answer = session.post(f"{server.url}/api/clips", json=body, timeout=60)
            if answer.status_code == 429:
                refused.append(int(answer.headers["Retry-After"]))
                over.wait(random_pause.uniform(0.2, 1.0))
                continue
            assert answer.status_code == 202, answer.text
            accepted.append((answer.json()["id"], number))


with tempfile.TemporaryDirectory() as folder:
    server = Server(Path(folder) / "server", I2V_LAB_SERVER__QUEUE_LIMIT="60").start()
    try:
        probe = subprocess.Popen(
            [sys.executable, "-c", PROBE, str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as pool:
            for done in [pool.submit(client, number, server, until) for number in range(clients)]:
                done.result()
        asked = len(accepted)
        jobs = [(server.ended(id), number) for id, number in accepted]
        health = sorted(json.loads(probe.communicate()[0]))
        clips = [(server.get(job["result"]["url"]).content, number) for job, number in jobs if job["state"] == "done"]
        mixed = [number for clip, number in clips if not shows(clip, number, Path(folder))]
    finally:
        server.end()
states = {state: sum(job["state"] == state for job, _ in jobs) for state in {job["state"] for job, _ in jobs}}
print(
    f"{clients} clients, {seconds:g} s: {asked} jobs accepted, {len(refused)} refused with 429; ended: {states}; mixed up: {len(mixed)}"
)
print(f"/api/health, {len(health)} times: median {1000 * health[len(health) // 2]:.1f} ms, 99 % below "
      f"{1000 * health[int(0.99 * len(health))]:.1f} ms, slowest {1000 * health[-1]:.1f} ms")  # fmt: skip
sys.exit(int(bool(mixed) or set(states) != {"done"}))
