"""The page of the server: its language, its kernels, and who makes its clips."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys

import psutil
import pytest
import requests
from servers import TOKEN, Server, jobs_of, wait_for

from i2v_lab.server import page
from i2v_lab.server.page import OF_PAGE, PageKernels, language_of
from i2v_lab.store.processes import MAKER, asker_name, may_take, own_name

# A kernel asks for a clip, as the studio on the page does.
ASK = """
from i2v_lab import Store
from i2v_lab.clip.params import ClipParams
from i2v_lab.jobs import shared_runner
from i2v_lab.settings import load_settings

settings = load_settings()
store = Store(settings.output.directory)
runner = shared_runner(store, settings)
runner.prepare()
print(runner.jobs.add_clip(ClipParams(image="sample:coffee", model="fake", resolution="64x64", num_frames=2)).id)
assert runner.posts[0].process is None
"""


@pytest.mark.parametrize(
    ("header", "setting", "language"),
    [
        ("", "auto", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "auto", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "auto", "en"),
        ("fr,zh-TW;q=0.7,en;q=0.3", "auto", "zh"),
        ("fr,de;q=0.5", "auto", "en"),
        ("en;q=what, zh;q=0.1", "auto", "zh"),
        ("zh", "en", "en"),
        ("en", "zh", "zh"),
    ],
)
def test_the_page_begins_in_the_browsers_language(header, setting, language):
    assert language_of(header, setting) == language


def test_a_job_is_made_by_the_process_that_its_asker_named_and_by_any_once_that_has_ended(monkeypatch):
    me = own_name()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        server = own_name(other.pid)
        monkeypatch.setenv(MAKER, server)
        asker = asker_name()
        assert asker == f"{me}@{server}"
        assert may_take(asker, server)
        assert not may_take(asker, me)
        assert may_take(me, me)
    assert may_take(asker, me)
    assert asker_name() == me


def kernels_of(server: Server) -> set[str]:
    return {kernel["id"] for kernel in server.get("/api/kernels").json()}


def open_page(server: Server, **headers: str) -> tuple[requests.Session, str, str]:
    """(the browser, the page, its kernel)."""
    browser = requests.Session()
    page = browser.get(f"{server.url}/", params={"token": TOKEN}, headers=headers, timeout=60)
    assert page.status_code == 200
    (kernel,) = re.findall(r'"kernelId": "([^"]+)"', page.text)
    return browser, page.text, kernel


@pytest.mark.slow
def test_a_kernel_ends_when_nobody_has_its_page_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "LEFT_SECONDS", 0.5)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    wanted = {"kernel_name": "python3", "path": "", "env": {**os.environ, OF_PAGE: "http://127.0.0.1/"}}

    async def gone(kernels: PageKernels, kernel: str) -> None:
        async with asyncio.timeout(60):
            while kernel in kernels:
                await asyncio.sleep(0.05)

    async def use() -> None:
        kernels = PageKernels(root_dir=str(tmp_path))
        kernels.make_ready()
        ready = await kernels._ready
        assert await kernels.start_kernel(**wanted) == ready  # a page takes the one that is ready
        kernels.notify_connect(ready)
        notebook = await kernels.start_kernel(kernel_name="python3", path="")
        never = await kernels.start_kernel(**wanted)
        await gone(kernels, never)
        assert ready in kernels  # somebody looks
        kernels.notify_disconnect(ready)
        await gone(kernels, ready)
        assert notebook in kernels
        await kernels.shutdown_kernel(notebook, now=True)

    asyncio.run(use())


@pytest.mark.slow
def test_a_page_ends_its_kernel_and_its_clip_goes_on(tmp_path, monkeypatch):
    server = Server(tmp_path / "own").start()
    try:
        pages = [open_page(server), open_page(server, **{"Accept-Language": "zh-CN"})]
        assert kernels_of(server) >= {kernel for _, _, kernel in pages}
        for (_, text, _), language in zip(pages, ("en", "zh"), strict=True):
            assert f'<html lang="{language}">' in text
            assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]+', text) == []  # nothing of another host
            assert "notebook-only" not in text
        assert psutil.Process(server.process.pid).children(recursive=True) != []
        assert len(server.workers()) == 1  # of the server: it is ready before a clip is asked for
        with server.device_taken(monkeypatch):
            asked = {**server.environment(), MAKER: own_name(server.process.pid)}
            id = subprocess.run(
                [sys.executable, "-c", ASK], cwd=server.folder, env=asked, capture_output=True, text=True, check=True, timeout=60
            ).stdout.strip()
            wait_for(lambda: server.job(id)["state"] == "running")
            for browser, _, kernel in pages:
                url = f"{server.url}/voila/api/shutdown/{kernel}"
                assert browser.post(url, timeout=60).status_code == 403  # of another site
                assert browser.post(url, data={"_xsrf": browser.cookies["_xsrf"]}, timeout=60).status_code == 204
            assert not kernels_of(server) & {kernel for _, _, kernel in pages}
        assert server.ended(id)["state"] == "done"
        assert jobs_of(server.folder / "results").get(id).owner.endswith(f"@{own_name(server.process.pid)}")
    finally:
        server.end()
