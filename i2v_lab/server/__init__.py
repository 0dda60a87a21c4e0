"""The web page and the API on one port: `i2v-lab serve`.

Two processes. Jupyter Server listens on the port: the studio at `/` (rendered by Voilà), JupyterLab at `/lab`. The API, a
FastAPI application, has a process of its own on a private Unix socket; Jupyter Server checks the token and passes `/api/...`
on to it. So a page that keeps Jupyter busy does not hold up the API, and the other way round.

    app.py       the Jupyter server, configured by code; ports and state files
    front.py     what is added to it: the token for every request, the way to the API
    process.py   the API's process: how it is started, kept running and ended
    api.py       the calls of the API
    state.py     what the calls share: settings, store, job runner, limits
    body.py      reads requests: JSON, forms, pictures
    schemas.py   requests and answers as pydantic models, made from ClipParams
    plans.py     plans, computed in a process of their own
    client.py    the client for scripts
"""
