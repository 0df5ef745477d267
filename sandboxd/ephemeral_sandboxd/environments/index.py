"""Where packages come from: our settings, else what pip on this machine is configured to use, else uv's own default."""

from __future__ import annotations

import configparser
import os
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from uv import find_uv_bin

from ephemeral import settings
from ephemeral_sandboxd.environments.target import Target

_NVIDIA_DEVICES = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")
_CUDA_LIBRARIES = ("nvidia-nccl", "nvidia-nccl-cu11", "nvidia-nccl-cu12", "nvidia-nccl-cu13")
"""What CPU users of packages outside PyTorch's own (xgboost) would download in vain: 300 MB that is only ever loaded beside a GPU."""

_PASSED_ON = ("PATH", "HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy",
              "https_proxy", "all_proxy", "no_proxy", "NETRC", "TMPDIR")
"""All that uv inherits of the daemon's environment."""


@dataclass(frozen=True)
class Index:
    """For the sandboxes of ``target``. ``url`` is empty for uv's default index. ``find_links`` are directories or pages; ``constraints`` hold for every resolution;
    ``excludes`` are packages that are left out even where another depends on them; ``minimum_age_days`` old has to be what is taken.
    ``private_url`` is for the relay: uv never gets it."""

    target: Target
    url: str = ""
    extra_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    cpu_torch: bool = False
    certificate: str = ""
    offline: bool = False
    private_url: str = ""
    minimum_age_days: int = 0

    @classmethod
    def configured(cls, target: Target) -> Index:
        """Read now from EPHEMERAL_INDEX_URL, EPHEMERAL_FIND_LINKS, EPHEMERAL_CONSTRAINTS, EPHEMERAL_PRIVATE_INDEX and
        EPHEMERAL_MINIMUM_AGE_DAYS, then from pip's variables and files.

        Without a GPU, PyTorch comes as its CPU build: pinned to the one that lies in a find-links directory, else by uv's own choice.
        """
        pip = _pip_options()
        find_links = tuple((settings.get("find_links") or pip.get("find-links", "")).split())
        constraints = tuple(settings.get("constraints").split())
        gpu = any(Path(device).exists() for device in _NVIDIA_DEVICES)
        local = "" if gpu or any(line.lower().startswith("torch=") for line in constraints) else _local_cpu_torch(find_links, target)
        return cls(
            target=target,
            url=settings.get("index_url") or pip.get("index-url", ""),
            extra_urls=tuple(url for url in pip.get("extra-index-url", "").split() if not url.startswith("file:")),
            find_links=find_links,
            constraints=(*constraints, f"torch=={local}") if local else constraints,
            excludes=() if gpu else _CUDA_LIBRARIES,
            cpu_torch=not gpu and not local,
            certificate=pip.get("cert", ""),
            offline=pip.get("no-index", "").lower() in ("1", "true", "yes", "on"),
            private_url=settings.get("private_index"),
            minimum_age_days=max(0, settings.get("minimum_age_days")),
        )

    @property
    def uv(self) -> str:
        """The uv to run: the one installed beside us."""
        return find_uv_bin()

    @property
    def arguments(self) -> list[str]:
        """For ``uv pip compile`` and ``uv pip install``: which wheels will do. ``environment`` says the rest."""
        return ["--no-config", "--no-progress", "--only-binary", ":all:", "--python-version", self.target.python,
                "--python-platform", self.target.uv_platform,
                *(["--torch-backend", "cpu"] if self.cpu_torch else []), *(["--no-index"] if self.offline else []),
                *(["--exclude-newer", self.newest_upload.isoformat()] if self.minimum_age_days else [])]

    @property
    def newest_upload(self) -> datetime:
        """What was uploaded later is too young: whole days, so that the answers of one day are alike."""
        return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=self.minimum_age_days)

    def environment(self, cache: Path) -> dict[str, str]:
        """uv's whole environment, with its cache in the directory ``cache`` (made if need be, and two small files written to it).

        Addresses travel here, not as arguments, because they may hold a password.
        """
        variables = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        variables.update(UV_CACHE_DIR=os.fspath(cache), UV_HTTP_RETRIES="2", UV_HTTP_TIMEOUT="30", LANG="C.UTF-8", NO_COLOR="1")
        for key in ("NO_PROXY", "no_proxy"):  # what listens on this machine is not to be had through another
            variables[key] = ",".join(filter(None, (variables.get(key, ""), "127.0.0.1")))
        if self.certificate:
            variables.setdefault("SSL_CERT_FILE", self.certificate)
        for key, value in (("UV_DEFAULT_INDEX", self.url), ("UV_INDEX", " ".join(self.extra_urls)), ("UV_FIND_LINKS", ",".join(self.find_links))):
            if value:
                variables[key] = value
        cache.mkdir(parents=True, exist_ok=True)
        for key, lines in (("UV_CONSTRAINT", self.constraints), ("UV_EXCLUDE", self.excludes)):
            if lines:
                file, text = cache / f"{key.lower()}.txt", "".join(f"{line}\n" for line in lines)
                if not file.exists() or file.read_text() != text:  # a uv that runs now may be reading it
                    file.write_text(text)
                variables[key] = os.fspath(file)
        return variables

    def tls(self) -> ssl.SSLContext:
        """Trusts what pip is told to trust."""
        return ssl.create_default_context(cafile=self.certificate or None)

    def login(self, url: str) -> aiohttp.BasicAuth | None:
        """The name and password that the configured address of ``url``'s host carries, if any."""
        host = urlsplit(url).netloc
        for known in (self.url, *self.extra_urls, *self.find_links, self.private_url):
            parts = urlsplit(known)
            if parts.username and parts.netloc.rpartition("@")[2] == host:
                return aiohttp.BasicAuth(unquote(parts.username), unquote(parts.password or ""))
        return None

    def key(self) -> list[object]:
        """All that can change the outcome of a resolution, for cache keys.

        Of the minimum age it is the days and not the date: what was old enough once stays so.
        """
        return [self.target.python, self.target.uv_platform, self.url, self.extra_urls, self.find_links, self.constraints, self.excludes, self.cpu_torch, self.offline,
                *([self.private_url, self.minimum_age_days] if self.private_url or self.minimum_age_days else [])]


def without_login(url: str) -> str:
    """The address as it may be written down."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def local_path(url: str) -> Path | None:
    """The file or directory that a find-links entry or a wheel's address names, when it is on this machine."""
    if url.startswith("file:"):
        return Path(unquote(urlsplit(url).path))
    return None if "://" in url else Path(url)


def _local_cpu_torch(find_links: tuple[str, ...], target: Target) -> str:
    """The newest version of a CPU build of torch that lies in a find-links directory and fits the sandbox's Python, or ``""``."""
    found = []
    for entry in find_links:
        folder = local_path(entry)
        if folder is None or not folder.is_dir():
            continue
        for wheel in folder.glob("torch-*.whl"):
            try:
                version = parse_wheel_filename(wheel.name)[1]
            except InvalidWheelFilename:
                continue
            if version.local == "cpu" and target.preference(wheel.name) is not None:
                found.append(version)
    return str(max(found)) if found else ""


def _pip_options() -> dict[str, str]:
    """pip's effective options: its files from the least to the most specific, then its variables (as ``pip config list`` merges them)."""
    options: dict[str, str] = {}
    for file in _pip_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue  # pip itself would complain; for us an unreadable file says nothing
        for section in ("global", "install"):
            if parser.has_section(section):
                options.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    options.update({key[4:].lower().replace("_", "-"): value for key, value in os.environ.items() if key.startswith("PIP_") and value})
    return options


def _pip_files() -> Iterator[Path]:
    explicit = os.environ.get("PIP_CONFIG_FILE", "")
    if explicit == os.devnull:
        return
    home = Path.home()
    for folder in reversed(os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")):
        yield Path(folder) / "pip/pip.conf"
    yield Path("/etc/pip.conf")
    yield home / ".pip/pip.conf"
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if explicit:
        yield Path(explicit)
