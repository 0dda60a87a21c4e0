"""Who may use the server: the token, other sites, paths that lead elsewhere."""

from __future__ import annotations

import re
import socket

import pytest
import requests
from servers import TOKEN, picture

from i2v_lab.store import Store

pytest_plugins = ("server_fixtures",)
PNG = picture(7)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/lab", "/api/clips/x/nothing", "/tree", "/login", "/logout", "/api", "/api/clips", "/api/clips/x", "/api/clips/x/events",
        "/api/clips/x/clip.mp4", "/api/models", "/api/plan", "/api/openapi.json", "/api/contents", "/api/kernels", "/api/status",
        "/api/predict", "/files/results/runs.db", "/voila", "/voila/render/notebooks/studio.ipynb", "/voila/files/results/runs.db",
        "/voila/static/voila.js", "/voila/templates/lab/static/voila.js", "/voila/labextensions/x", "/static/favicon.ico",
        "/static/style/style.min.css", "/lab/api/settings", "/lab/extensions/x", "/nowhere", "/metrics", "/terminals/websocket/1",
        "/api/kernels/1/channels", "/robots.txt", "/favicon.ico", "/lsp/status", "/%2e%2e/etc/passwd",
        "/docs", "/api/docs", "/api/docs/static/swagger-ui.css",
    ],
)  # fmt: skip
def test_without_the_token_everything_is_403(server, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = requests.get(server.url + path, headers=headers, allow_redirects=False, timeout=60)
        assert answer.status_code == 403, (path, answer.status_code, answer.text[:200])
    for method in ("POST", "DELETE", "PUT", "PATCH", "HEAD"):
        assert requests.request(method, server.url + path, timeout=60).status_code in (403, 405)
    assert requests.get(server.url + path, params={"token": "x" * 32}, timeout=60).status_code == 403


def test_the_token_is_taken_in_the_header_the_query_and_then_as_a_cookie(server):
    for headers in ({"Authorization": f"token {TOKEN}"}, {"Authorization": f"Bearer {TOKEN}"}):
        assert requests.get(f"{server.url}/api/clips", headers=headers, timeout=60).status_code == 200
    with requests.Session() as browser:
        page = browser.get(f"{server.url}/", params={"token": TOKEN}, allow_redirects=False, timeout=60)
        assert page.headers["Location"] == "/voila/render/notebooks/studio.ipynb"
        assert "samesite=lax" in page.headers["Set-Cookie"].lower().split(f"username-127-0-0-1-{server.port}=")[1]
        assert browser.get(f"{server.url}/api/clips", timeout=60).status_code == 200
        assert browser.post(f"{server.url}/api/clips", json={"image": "sample:coffee"}, timeout=60).status_code == 403
    health = requests.get(f"{server.url}/api/health", timeout=60)
    assert set(health.json()) == {"status", "version"}
    for languages, told in (("", "run <code>i2v-lab serve</code> again"), ("zh-CN,zh;q=0.9,en;q=0.8", "再运行一次")):
        page = requests.get(f"{server.url}/", headers={"Accept-Language": languages}, timeout=60)
        page.encoding = "utf-8"  # as its head says
        assert 'name="token"' in page.text
        assert told in page.text
        assert TOKEN not in page.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
def test_posts_of_other_sites_are_refused(open_server, headers):
    before = [job["id"] for job in open_server.get("/api/clips").json()["clips"]]
    body = {"image": "sample:coffee", "resolution": "64x64", "num_frames": 2}
    for kind in ({"json": body}, {"data": {"resolution": "64x64"}, "files": {"image": PNG}}):
        assert open_server.send("POST", "/api/clips", headers=headers, **kind).status_code == 403
    assert open_server.send("DELETE", "/api/clips/x", headers=headers).status_code == 403
    assert [job["id"] for job in open_server.get("/api/clips").json()["clips"]] == before
    own = {"Origin": open_server.url, "Sec-Fetch-Site": "same-origin"}
    assert open_server.send("POST", "/api/clips", json={**body, "seed": 77}, headers=own).status_code == 202


def sent(server, request: str) -> int:
    """The status of a request that no library has tidied; 400 where the connection was only closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(request.encode("latin-1"))
        return int((line.makefile("rb").readline() or b"closed 400").split()[1])


@pytest.mark.parametrize("path", ["/", "/lab", "/api/contents", "/api/clips", "/api/predict"])
def test_without_the_token_a_large_body_is_refused_before_it_comes(server, path):
    request = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 400000000\r\n\r\n"
    assert sent(server, request) in (400, 403)


def raw(server, target: str) -> int:
    """The status of a GET of this path, as it is."""
    return sent(server, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
                "Connection: close\r\n\r\n")  # fmt: skip


MALFORMED = {
    **{f"Content-Length: {length}": f"Content-Length: {length}\r\n\r\nhello" for length in (
        "1e3", "-1", "+5", "1_0", "0x10", "5 5", "", "9" * 20, "5, 6", "\xb2")},
    "another transfer encoding": "Transfer-Encoding: gzip\r\n\r\nhello",
    "two lengths": "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a chunk without a length": "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "an endless chunk": f"Transfer-Encoding: chunked\r\n\r\n{'F' * 16}\r\nhello",
    "no header": "nothing here\r\n\r\n",
    "a zero byte": "X: a\0b\r\n\r\n",
    "a long header": f"X: {'a' * 100_000}\r\n\r\n",
    "two hosts": "Host: elsewhere\r\n\r\n",
    "a broken form": "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 18\r\n\r\n--x\r\nbroken\r\n--x--",
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_refused_before_its_body_is_read(server, name):
    for path in ("/api/clips", "/api/health", "/api/predict", "/lab", "/"):
        for token in ("", f"Authorization: Bearer {TOKEN}\r\n"):
            request = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{token}{MALFORMED[name]}"
            assert 400 <= sent(server, request) < 500, (path, token)
    assert server.answers()


@pytest.mark.parametrize(
    "end",
    [
        "/../../runs.db", "/..%2f..%2fruns.db/clip.mp4", "/%2e%2e/%2e%2e/etc/passwd", "/clip.mp4/../../runs.db", "/clip.mp4%00",
        "/..%5c..%5cruns.db", "/%252e%252e%252fruns.db/clip.mp4", "//etc/passwd", "/clip.mp4/", "/clip.webm",
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_404(server, end):
    id = server.ask(seed=61)
    server.ended(id)
    assert raw(server, f"/api/clips/{id}/clip.mp4") == 200
    assert raw(server, f"/api/clips/{id}{end}") == 404
    assert raw(server, f"/api/clips{end}") == 404


def test_a_link_in_place_of_a_clip_is_404(server):
    id = server.ask(seed=62)
    job = server.ended(id)
    store = Store(server.folder / "results")
    clip = store.directory / store.get(job["result"]["run"]).clip
    secret = server.folder / "secret.mp4"
    secret.write_bytes(b"secret")
    clip.unlink()
    clip.symlink_to(secret)
    answer = server.get(job["result"]["url"])
    assert answer.status_code == 404
    assert b"secret" not in answer.content
    clip.unlink()
    assert server.get(job["result"]["url"]).status_code == 404


def test_a_method_that_is_none_says_which_are(server):
    answer = server.send("PUT", "/api/clips")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
    assert answer.json()["error"]["field"] == "method"


def test_the_description_is_a_page_that_needs_no_other_site(server):
    page = server.get("/docs")
    assert page.url.endswith("/api/docs")
    assert page.status_code == 200
    found = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(found) == 3
    for path in found:
        assert path.startswith("/api/docs/static/")
        assert len(server.get(path).content) > 500
    described = server.get("/api/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/predict", "/api/clips", "/api/clips/{id}", "/api/clips/{id}/events", "/api/clips/{id}/clip.mp4", "/api/models",
        "/api/plan", "/api/health", "/api/workers",
    }  # fmt: skip
    assert set(described["paths"]["/api/clips"]["post"]["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert "403" in described["paths"]["/api/models"]["get"]["responses"]
    assert "security" not in described["paths"]["/api/health"]["get"]
