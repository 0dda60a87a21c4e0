"""The API against its own description: schemathesis asks what it allows and what it does not, with all checks.

`FUZZ_CASES=500 pytest tests/test_api_fuzz.py` asks more often, and goes through the values at the edges first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import TOKEN, Server

CASES = os.environ.get("FUZZ_CASES", "")
PATIENCE = "300"  # seconds; predict waits for the clips that were asked for before
SMALL = {  # clips are made at once, and the queue is never full
    "I2V_LAB_SERVER__MAX_NUM_FRAMES": "3", "I2V_LAB_SERVER__MAX_SIDE": "256", "I2V_LAB_SERVER__QUEUE_LIMIT": "10000",
    "I2V_LAB_SERVER__BODY_MIB": "1",
}  # fmt: skip


@pytest.mark.slow
def test_the_api_keeps_to_its_description(tmp_path):
    server = Server(tmp_path / "fuzzed", **SMALL).start()
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ["PYTHONPATH"]]))
    words = ["run", f"{server.url}/api/openapi.json", "--header", f"Authorization: Bearer {TOKEN}", "--checks", "all",
             "--exclude-checks", "use_after_free",  # DELETE stops a clip: its job stays
             "--max-examples", CASES or "15", "--phases", "coverage,fuzzing,stateful" if CASES else "fuzzing,stateful",
             "--continue-on-failure", "--request-timeout", PATIENCE, "--max-response-time", PATIENCE, "--seed", "7", "--no-color"]  # fmt: skip
    script = "from schemathesis.cli import schemathesis; schemathesis()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, timeout=3000, check=False,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": path},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
        assert " 500 " not in (server.folder / "server.log").read_text()
    finally:
        server.end()
