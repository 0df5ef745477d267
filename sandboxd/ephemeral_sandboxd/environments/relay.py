"""One index out of two: private names come from the private index and are never looked up publicly, public names never privately.

uv prefers one index over another, but it asks the other when the first has nothing: a private name that was misspelt, retired, or that a
public package depends on would be asked for in public, where anybody may have registered it (dependency confusion). So where private
names are configured uv knows only this relay, which sends each name to one place, and answers 404 for what the operator denies.

It speaks the Simple repository API (PEP 503, 691) on loopback, and only fetches pages; what they link to stays where it is, except that
files of the private index come through here too, since uv must not know the password for it.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Callable
from typing import Literal
from urllib.parse import urljoin, urlsplit, urlunsplit

import aiohttp
from aiohttp import web

from ephemeral import names
from ephemeral_sandboxd.environments.index import Index

log = logging.getLogger(__name__)

JSON = "application/vnd.pypi.simple.v1+json"
ACCEPTED = f"{JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
PAGE_BYTES = 64 << 20
FILES = "/files/"

Route = Literal["private", "public", "denied"]


class Relay:
    """``route`` says where a name (in normal form) belongs."""

    def __init__(self, index: Index, route: Callable[[str], Route]):
        self._index = index
        self._route = route
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a loopback port of the kernel's choice. Does nothing the second time."""
        if self._runner:
            return
        app = web.Application()
        app.router.add_get("/simple/{name}/", self._page)
        app.router.add_get(FILES + "{name:.*}", self._file)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), trust_env=True,
                                              connector=aiohttp.TCPConnector(ssl=self._index.tls()))

    async def close(self) -> None:
        if self._session:
            await self._session.close()
        if self._runner:
            await self._runner.cleanup()
        self._runner = None

    @staticmethod
    def original(url: str) -> str:
        """The true address of a file that a page of ours linked to."""
        path = urlsplit(url).path
        if not path.startswith(FILES):
            return url
        try:
            return base64.urlsafe_b64decode(path.removeprefix(FILES).partition("/")[0]).decode()
        except ValueError:
            return url

    async def _page(self, request: web.Request) -> web.Response:
        self._ours(request)
        name = names.normalize(request.match_info["name"])
        route = self._route(name)
        if route == "denied":
            raise web.HTTPNotFound(text=f"{name} is denied by the operator")
        bases = [self._index.private_url] if route == "private" else [self._index.url, *self._index.extra_urls]
        for base in bases:
            status, kind, body, url = await self._get(f"{base.rstrip('/')}/{name}/")
            if status == 200:
                return web.Response(body=self._linked(kind, body, url, private=route == "private"), headers={"Content-Type": kind})
            if status != 404:
                raise web.HTTPBadGateway(text=f"the {route} index answered {status} for {name}")
        raise web.HTTPNotFound(text=f"the {route} index has no {name}")

    async def _file(self, request: web.Request) -> web.Response:
        """A file of the private index (in practice the metadata beside a wheel), with the password that its address carries."""
        self._ours(request)
        url = self.original(request.path)
        if not self._index.private_url or urlsplit(url).hostname != urlsplit(self._index.private_url).hostname:
            raise web.HTTPNotFound
        status, kind, body, _ = await self._get(url + (".metadata" if request.path.endswith(".metadata") else ""))
        return web.Response(status=status, body=body, headers={"Content-Type": kind})

    async def _get(self, url: str) -> tuple[int, str, bytes, str]:
        assert self._session
        parts = urlsplit(url)
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        try:
            async with self._session.get(bare, headers={"Accept": ACCEPTED}, auth=self._index.login(bare)) as answer:
                body = await answer.content.read(PAGE_BYTES)
                return answer.status, answer.headers.get("Content-Type", "text/html"), body, str(answer.url)
        except (aiohttp.ClientError, TimeoutError) as problem:
            log.warning("index page cannot be had: %s", type(problem).__name__)
            raise web.HTTPBadGateway(text=f"the index does not answer: {type(problem).__name__}") from None

    def _linked(self, kind: str, body: bytes, url: str, *, private: bool) -> bytes:
        """The page with absolute addresses, those of private files being ours."""
        if kind.startswith(JSON):
            page = json.loads(body)
            for file in page.get("files", ()):
                file["url"] = self._address(urljoin(url, file["url"]), private)
            return json.dumps(page).encode()
        text = body.decode("utf-8", "replace")
        return re.sub(r"""(<a\b[^>]*?\bhref\s*=\s*)(["'])(.*?)\2""", lambda link: f'{link[1]}"{self._address(urljoin(url, link[3]), private)}"', text,
                      flags=re.IGNORECASE | re.DOTALL).encode()

    def _address(self, url: str, private: bool) -> str:
        if not private:
            return url
        bare, hash_, fragment = url.partition("#")
        return f"{self.url}{FILES}{base64.urlsafe_b64encode(bare.encode()).decode()}/{urlsplit(bare).path.rpartition('/')[2]}{hash_}{fragment}"

    def _ours(self, request: web.Request) -> None:
        """Only programs that were given this very address: a page that rebinds its name comes with its own Host."""
        if request.headers.get("Host") != urlsplit(self.url).netloc or "Origin" in request.headers:
            raise web.HTTPForbidden
