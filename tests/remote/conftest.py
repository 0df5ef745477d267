"""Two machines: network namespaces with a wire between them. sandboxd's API is served in one, the visitor acts in the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ephemeral_certs import files, invitation
from ephemeral_certs.authority import Authority
from ephemeral_certs.tokens import TokenBook
from ephemeral_cli.host import certifying, inviting, joining

HERE = Path(__file__).parent
HOST, VISITOR, NEIGHBOUR = "10.213.7.1", "10.213.7.2", "10.213.7.3"


@dataclass(frozen=True)
class Network:
    """Names of the two namespaces; commands for each are prefixed with `at`."""

    host: str
    visitor: str

    @staticmethod
    def at(namespace: str) -> list[str]:
        return ["ip", "netns", "exec", namespace]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.fail("network namespaces need root and the Debian package iproute2")
    network = Network(f"eph-{os.getpid()}-host", f"eph-{os.getpid()}-visitor")
    try:
        for name in (network.host, network.visitor):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", network.host, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", network.visitor)
        for name, addresses in ((network.host, [HOST]), (network.visitor, [VISITOR, NEIGHBOUR])):
            for address in addresses:
                _ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            _ip("-n", name, "link", "set", "wire", "up")
        yield network
    finally:
        for name in (network.host, network.visitor):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Visitor:
    """The other machine. `do` gives an order (visitor.py) and returns what came of it."""

    def __init__(self, network: Network) -> None:
        self._process = subprocess.Popen(
            [*network.at(network.visitor), sys.executable, str(HERE / "visitor.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, what: str, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order | {"do": what}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate("", timeout=60)


@pytest.fixture(scope="module")
def visitor(network: Network) -> Iterator[Visitor]:
    visitor = Visitor(network)
    yield visitor
    visitor.close()


@dataclass
class Host:
    """A host that serves. `state` is its state directory, `port` the one that other machines see, `local_port` its loopback's."""

    state: Path
    port: int
    local_port: int
    ip: str = HOST
    neighbour: str = NEIGHBOUR
    """A second address of the visitor's."""

    @property
    def address(self) -> str:
        return f"https://{self.ip}:{self.port}"

    @property
    def authority(self) -> Authority:
        return Authority.open(self.state / "tls")

    @property
    def tokens(self) -> TokenBook:
        return TokenBook(self.state / "tokens.json")

    def certificate(self, name: str, days: float = 1) -> str:
        """A client certificate with its key; the path of the file."""
        path = self.state / f"{name}.pem"
        files.write(path, self.authority.issue_client(name, days=days).pem)
        return str(path)

    def to(self, certificate: str | None = None, token: str | None = None, **more: Any) -> dict[str, Any]:
        """An order's address and credentials."""
        order: dict[str, Any] = {"host": self.ip, "port": self.port, **more}
        if certificate is not None:
            order["certificate"] = certificate
        if token is not None:
            order["headers"] = {"Authorization": f"Bearer {token}"} | more.get("headers", {})
        return order


@pytest.fixture(scope="module")
def host(network: Network) -> Iterator[Host]:
    state = Path(tempfile.mkdtemp(prefix="eph-", dir="/tmp"))
    certifying.certify(state, [HOST, "sandbox.test"])
    with subprocess.Popen(
        [*network.at(network.host), sys.executable, str(HERE / "server.py"), str(state), "0.0.0.0:0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        local, remote = process.stdout.readline().split()
        yield Host(state, int(remote), int(local))
        process.communicate("", timeout=60)
    shutil.rmtree(state)


@pytest.fixture
def joined(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of a machine that has joined the host as `laptop`."""
    monkeypatch.setenv("EPHEMERAL_STATE", str(tmp_path / "laptop"))
    content, code = inviting.invite(host.state, "laptop", address=host.address, days=1, within_seconds=3600)
    assert invitation.describe(content)["client"] == "laptop"
    assert joining.join(content, code) == host.address
    return tmp_path / "laptop"
