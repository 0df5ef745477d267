"""uv's only index while some package names are private: asks, for each name, the one upstream that may know of it.

uv can be given several indexes, but not told which names each of them may be asked about, least of all for the dependencies that it finds on
its way. So it is given this: the simple API (PEP 503, 691) on a loopback port, behind a path that nobody can guess. A private name is looked
up in the private index alone, any other in the public ones alone, a denied one nowhere.

Pages go through here, files do not: their addresses are made absolute, and uv reads metadata (PEP 658) and wheels where they lie. Only
what needs a login is fetched by the relay, because uv would write an address with a password into its cache.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import aiohttp
from aiohttp import web
from mousebender import simple

from ephemeral import names
from ephemeral_sandboxd.environments.index import Index, without_login
from ephemeral_sandboxd.environments.policy import Policy
from ephemeral_sandboxd.errors import BadRequest

log = logging.getLogger(__name__)

_TORCH = ("torch", "torchvision", "torchaudio", "triton", "pytorch-triton")
"""What uv would have from PyTorch's own index without asking ours."""
_VALIDATORS = ("If-None-Match", "If-Modified-Since")
_FRESHNESS = ("ETag", "Last-Modified", "Cache-Control")
_OF_FILES = ("Content-Type", "Content-Length", "Content-Range", "Accept-Ranges", *_FRESHNESS)
_LARGE_PAGE = 256 << 10
_HOPS = 5
_ANCIENT = "1970-01-01T00:00:00Z"


class Relay:
    """Serves from the first index() to close(). Raises BadRequest when it is not said where public names come from."""

    def __init__(self, index: Index, policy: Policy) -> None:
        if not index.url and not index.offline:
            raise BadRequest("half a private index", "beside a private index the public one has to be named", "set EPHEMERAL_INDEX_URL")
        self._index = index
        self._policy = policy
        self._public = () if index.offline else (*index.extra_urls, index.url)
        self._token = secrets.token_urlsafe(16)
        self._private_files: dict[str, set[str]] = {}
        """Private name -> addresses of the files that the private index has for it."""
        self._starting = asyncio.Lock()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._address = ""

    async def index(self, configured: Index | None = None) -> Index:
        """What uv is to be given instead of the ``configured`` index, by default the one of the relay."""
        async with self._starting:
            if self._runner is None:
                await self._start()
        configured = configured or self._index
        cpu_torch = configured.cpu_torch and not any(self._policy.is_private(name) for name in _TORCH)
        return dataclasses.replace(configured, url=f"{self._address}/simple", extra_urls=(), private_url="", cpu_torch=cpu_torch, offline=False)

    def origin(self, url: str) -> str:
        """Where a file lies whose address in a lock may be one of ours."""
        if not self._address or not url.startswith(f"{self._address}/files/"):
            return url
        return _decode(url.removeprefix(f"{self._address}/files/").partition("/")[0])

    def of_private_index(self, name: str, url: str) -> bool:
        """Whether the private index listed the file at ``url`` for the private ``name``."""
        return url in self._private_files.get(name, ())

    def anonymous(self, text: str) -> str:
        """``text`` (uv's complaint) without our address, which is a secret and says nothing to a reader."""
        return text.replace(f"{self._address}/simple/", "") if self._address else text

    async def close(self) -> None:
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    # ------------------------------------------------------------------------------------------------------- serving

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_get(f"/{self._token}/simple/{{name}}/", self._page)
        application.router.add_get(f"/{self._token}/files/{{address}}/{{filename}}", self._file)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._address = f"http://127.0.0.1:{runner.addresses[0][1]}/{self._token}"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=30),
                                              connector=aiohttp.TCPConnector(ssl=self._index.tls()), trust_env=True, auto_decompress=True)
        self._runner = runner

    async def _page(self, request: web.Request) -> web.Response:
        name = names.normalize(request.match_info["name"])
        private = self._policy.is_private(name)
        if name in self._policy.deny:
            raise web.HTTPNotFound(text=f"{name} is denied by the operator")
        upstreams = (self._index.private_url,) if private else self._public
        # A validator is of one upstream's page; with several, it could be mistaken for another's.
        validators = {key: request.headers[key] for key in _VALIDATORS if key in request.headers} if len(upstreams) == 1 else {}
        for upstream in upstreams:
            try:
                answer = await self._ask(upstream, name, private, validators)
            except (aiohttp.ClientError, TimeoutError) as problem:
                raise web.HTTPBadGateway(text=f"{_host(upstream)} did not answer: {type(problem).__name__}") from None
            if answer is not None:
                return answer
        raise web.HTTPNotFound

    async def _ask(self, upstream: str, name: str, private: bool, validators: Mapping[str, str]) -> web.Response | None:
        """One upstream's page for ``name``, as JSON; None when it has none."""
        url = simple.create_project_url(without_login(upstream), name)
        for _ in range(_HOPS):
            async with self._client().get(url, headers={"Accept": simple.ACCEPT_SUPPORTED, **validators}, auth=self._index.login(url), allow_redirects=False) as answer:
                freshness = {key: answer.headers[key] for key in _FRESHNESS if key in answer.headers}
                if answer.status == 304:
                    return web.Response(status=304, headers=freshness)
                if answer.status in (301, 302, 303, 307, 308):
                    target = urljoin(url, answer.headers.get("Location", ""))
                    # Some index servers send whoever asks for what they do not have to a public index.
                    if private and _origin(target) != _origin(url):
                        log.warning("the private index sends those who ask for %s to %s: not followed", name, _host(target))
                        return None
                    url = without_login(target)
                    continue
                if answer.status in (404, 410):
                    return None
                if answer.status != 200:
                    raise web.HTTPBadGateway(text=f"{_host(upstream)} answered {answer.status}")
                text, kind = await answer.text(), answer.content_type
            work = (text, kind, name, url, private)
            page = await asyncio.to_thread(self._rewrite, *work) if len(text) > _LARGE_PAGE else self._rewrite(*work)
            return web.Response(text=page, content_type=simple.ACCEPT_JSON_V1, headers=freshness)
        raise web.HTTPBadGateway(text=f"{_host(upstream)} redirects in circles")

    def _rewrite(self, text: str, kind: str, name: str, url: str, private: bool) -> str:
        """A project's page as JSON with absolute addresses."""
        try:
            page: dict[str, Any] = dict(simple.parse_project_details(text, kind, name))
            files: list[dict[str, Any]] = page["files"]
            listed = set()
            for file in files:
                file["url"] = without_login(urljoin(url, file["url"]))
                listed.add(file["url"])
                if self._index.login(file["url"]):
                    file["url"] = f"{self._address}/files/{_encode(file['url'])}/{quote(file['filename'])}"
                if private:
                    file["upload-time"] = _ANCIENT  # the operator's own may be as young as they like
        except (ValueError, KeyError, TypeError, simple.UnsupportedMIMEType, simple.UnsupportedAPIVersion) as problem:
            raise web.HTTPBadGateway(text=f"the page for {name} cannot be read: {problem}") from None
        if private:
            self._private_files[name] = listed
        return json.dumps(page)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """A file that needs a login, or its metadata; whole or in part."""
        url = _decode(request.match_info["address"])
        if urlsplit(url).scheme not in ("http", "https") or not self._index.login(url):
            raise web.HTTPNotFound
        if request.match_info["filename"] != unquote(urlsplit(url).path).rpartition("/")[2]:
            parts = urlsplit(url)
            url = parts._replace(path=f"{parts.path}.metadata").geturl()
        headers = {key: request.headers[key] for key in ("Accept", "Range", *_VALIDATORS) if key in request.headers}
        try:
            upstream = await self._client().request(request.method, url, headers={"Accept-Encoding": "identity", **headers}, auth=self._index.login(url))
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise web.HTTPBadGateway(text=f"{_host(url)} did not answer: {type(problem).__name__}") from None
        async with upstream:
            answer = web.StreamResponse(status=upstream.status, headers={key: upstream.headers[key] for key in _OF_FILES if key in upstream.headers})
            await answer.prepare(request)
            try:
                async for chunk in upstream.content.iter_any():
                    await answer.write(chunk)
            except (aiohttp.ClientError, TimeoutError):
                if request.transport:  # breaks off here too: the length was announced
                    request.transport.close()
            return answer

    def _client(self) -> aiohttp.ClientSession:
        assert self._session is not None  # made before the first request can come
        return self._session


def _encode(url: str) -> str:
    return base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def _decode(text: str) -> str:
    """``""`` for what _encode did not make."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(without_login(url))
    return parts.scheme, parts.netloc


def _host(url: str) -> str:
    """For messages: never a password."""
    return urlsplit(without_login(url)).netloc
