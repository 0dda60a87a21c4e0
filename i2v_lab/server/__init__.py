"""The web page and the API on one port: an extension of Jupyter's own server.

`/` is the studio rendered by Voilà, `/lab` is JupyterLab, `/api/...` the API. `i2v-lab serve` starts it (see app.py); an
extension loaded into another Jupyter server would take over its `/`, so nothing enables it but that command.

    app.py         one Jupyter server process, configured by code
    extension.py   what is added to it: the handlers, who may come in
    handlers.py    the calls of the API; api.py is what they share, body.py reads what they are sent, plans.py plans
    schemas.py     what is asked and answered, made from ClipParams; openapi.py describes it
    queue.py       the jobs, in SQLite: they survive a restart
    supervisor.py  starts the worker, notices that it died, knows where each job stands
    worker.py      the process that makes the clips, one after another
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "i2v_lab.server"}]


def _load_jupyter_server_extension(serverapp: Any) -> None:
    from i2v_lab.server.extension import load

    load(serverapp)
