"""The web page and the API on one port: `i2v-lab serve`.

Jupyter Server listens on the port: the studio at `/` (rendered by Voilà), JupyterLab at `/lab`. It checks the token, and hands
`/api/...` to the API, a FastAPI application in the same process. What takes long happens in threads or in other processes.

    app.py       the Jupyter server, configured by code; ports and state files
    page.py      the page: its notebook, its language, its kernel
    front.py     what is added to it: the token for every request, the calls of the API
    api.py       the calls of the API
    state.py     what the calls share: settings, store, job runner, limits
    body.py      reads requests: JSON, forms, pictures
    schemas.py   requests and answers as pydantic models, made from ClipParams
    plans.py     plans, computed in a process of their own
    client.py    the client for scripts
"""
