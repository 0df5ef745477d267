"""Small wheels made here, and a real package index on a local port that serves them, well or badly."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from ephemeral_sandboxd.environments.index import Index
from ephemeral_sandboxd.environments.target import Target


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("EPHEMERAL_", "UV_"))]:
        monkeypatch.delenv(name)


def build_wheel(folder: Path, name: str, version: str, files: dict[str, bytes], requires: tuple[str, ...] = (), tag: str = "py3-none-any",
                raw: Callable[[zipfile.ZipFile], None] | None = None) -> Path:
    """An honest wheel with ``files``; ``raw`` may add dishonest entries to the archive."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {line}\n" for line in requires)
    content = {**files, f"{info}/METADATA": metadata.encode(),
               f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()}
    record = "".join(f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}\n"
                     for path, data in content.items())
    file = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in content.items():
            archive.writestr(path, data)
        if raw:
            raw(archive)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return file


class FakeIndex:
    """A package index. ``announce`` overrides the sha256 that it claims for a file; ``cut`` breaks a file's answers off half-way, that
    many times; ``stall`` are files of which only the first half ever comes; ``down`` answers everything with 503; ``uploaded`` (file name ->
    time) makes its pages JSON that tells them; ``moved`` (name -> address) redirects; ``requests`` lists the paths that were asked for,
    ``ranges`` the parts of files, ``revalidated`` counts the pages that had not changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.announce: dict[str, str] = {}
        self.cut: dict[str, int] = {}
        self.stall: set[str] = set()
        self.uploaded: dict[str, str] = {}
        self.moved: dict[str, str] = {}
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.revalidated = 0
        self.down = False
        self.url = ""

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/simple/{name}/", self._page)
        application.router.add_get("/files/{file}", self._file)
        return application

    async def _page(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        if self.down:
            raise web.HTTPServiceUnavailable
        files = [file for file in sorted(self.folder.glob("*.whl")) if file.name.partition("-")[0] == request.match_info["name"].replace("-", "_")]
        if request.match_info["name"] in self.moved:
            raise web.HTTPFound(self.moved[request.match_info["name"]])
        if not files:
            raise web.HTTPNotFound
        if self.uploaded:
            return self._json(request, files)
        links = "".join(
            f'<a href="/files/{file.name}#sha256={self.announce.get(file.name) or hashlib.sha256(file.read_bytes()).hexdigest()}" '
            f'data-core-metadata="true">{file.name}</a>' for file in files)
        return web.Response(text=f"<!DOCTYPE html><html><body>{links}</body></html>", content_type="text/html")

    def _json(self, request: web.Request, files: list[Path]) -> web.Response:
        page = {"meta": {"api-version": "1.1"}, "name": request.match_info["name"], "versions": [file.name.split("-")[1] for file in files], "files": [
            {"filename": file.name, "url": f"../../files/{file.name}", "hashes": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
             "size": file.stat().st_size, "core-metadata": True, "upload-time": self.uploaded.get(file.name, "2020-01-01T00:00:00Z")} for file in files]}
        tag = f'"{hashlib.sha256(json.dumps(page).encode()).hexdigest()}"'
        headers = {"ETag": tag, "Cache-Control": "max-age=0, must-revalidate"}
        if request.headers.get("If-None-Match") == tag:
            self.revalidated += 1
            return web.Response(status=304, headers=headers)
        return web.Response(text=json.dumps(page), content_type="application/vnd.pypi.simple.v1+json", headers=headers)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        self.ranges += [request.headers["Range"]] if "Range" in request.headers else []
        if self.down:
            raise web.HTTPServiceUnavailable
        name = request.match_info["file"]
        if name.endswith(".metadata"):
            with zipfile.ZipFile(self.folder / name.removesuffix(".metadata")) as archive:
                entry = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
                return web.Response(body=archive.read(entry))
        if self.cut.get(name, 0) <= 0 and name not in self.stall:
            return web.FileResponse(self.folder / name)
        self.cut[name] = self.cut.get(name, 0) - 1
        data = (self.folder / name).read_bytes()
        answer = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await answer.prepare(request)
        await answer.write(data[:len(data) // 2])
        while name in self.stall and request.transport is not None:
            await asyncio.sleep(0.02)
        assert request.transport is not None or self.stall
        if request.transport is None:
            return answer
        request.transport.close()
        return answer


@pytest.fixture
async def fake_index(tmp_path: Path) -> AsyncIterator[FakeIndex]:
    index = FakeIndex(tmp_path / "index")
    index.folder.mkdir()
    runner = web.AppRunner(index.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    index.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield index
    await runner.cleanup()


@pytest.fixture
def wheel() -> Callable[..., Path]:
    return build_wheel


@pytest.fixture
def target() -> Target:
    return Target("3.11")


@pytest.fixture
def real_index(target: Target) -> Index:
    """The index that pip on this machine uses."""
    return Index.configured(target)
