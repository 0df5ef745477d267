"""The dashboard's files. It routes on the client, so every page address (`/sessions/x`) is its `index.html`."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from ephemeral_sandboxd.api.keys import DASHBOARD

NOT_BUILT = """<!doctype html><meta charset="utf-8"><title>Ephemeral</title>
<h1>sandboxd is running; its dashboard is not built</h1>
<p>In the repository, type <code>make dashboard</code> and reload. The API is described at
<a href="/openapi.json">/openapi.json</a>.</p>
"""


async def serve_index(request: web.Request) -> web.StreamResponse:
    dashboard = request.app.get(DASHBOARD)
    index = dashboard / "index.html" if dashboard else None
    if index is None or not index.is_file():
        return web.Response(text=NOT_BUILT, content_type="text/html", headers={"Cache-Control": "no-store"})
    return web.FileResponse(index, headers={"Cache-Control": "no-cache"})


async def serve_file(request: web.Request) -> web.StreamResponse:
    """A file of the dashboard; else its index for a page's address, 404 for what looks like a file or the API."""
    path = request.match_info["path"]
    file = _find(request.app.get(DASHBOARD), path)
    if file is not None:
        # Vite names what lies in assets/ by its content, so it can be kept for ever.
        caching = "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
        return web.FileResponse(file, headers={"Cache-Control": caching})
    if path.startswith(("v1/", "assets/")) or path == "v1" or "." in path.rpartition("/")[2]:
        raise web.HTTPNotFound
    return await serve_index(request)


def _find(dashboard: Path | None, path: str) -> Path | None:
    if dashboard is None or not path or "\0" in path:
        return None
    root = dashboard.resolve()
    file = (root / path).resolve()
    return file if file.is_relative_to(root) and file.is_file() else None
