"""The other machine: does what it is told, one JSON object a line, in the network namespace that it was started in.

Answers are one JSON object a line: what came of it, or {"error": type, "says": text}.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
from typing import Any

from ephemeral import AsyncClient, Client, errors

SECONDS = 60
held: dict[str, socket.socket] = {}


def sdk(order: dict[str, Any]) -> dict[str, Any]:
    """Use the SDK as a program does that sets EPHEMERAL_HOST and nothing else (a token, where one is given)."""
    os.environ.update({"EPHEMERAL_STATE": order["state"], "EPHEMERAL_HOST": order["address"], "EPHEMERAL_TOKEN": order.get("token", "")})

    async def asked() -> str:
        async with AsyncClient() as client:
            return (await client.host()).isolation

    try:
        if order.get("asynchronous"):
            return {"isolation": asyncio.run(asked())}
        with Client() as client:
            return {"isolation": client.host().isolation}
    except errors.EphemeralError as problem:
        return {"error": type(problem).__name__, "says": str(problem)}


def dial(order: dict[str, Any]) -> socket.socket:
    plain = socket.create_connection((order["host"], order["port"]), SECONDS, (order["source"], 0) if "source" in order else None)
    if order.get("plain"):
        return plain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # these orders are about what the server accepts
    if "certificate" in order:
        context.load_cert_chain(order["certificate"])
    if order.get("old"):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context.wrap_socket(plain, server_hostname=order["host"])


def ask(connection: socket.socket, order: dict[str, Any]) -> dict[str, Any]:
    """One request; the status of the answer, and its head and the beginning of its body."""
    lines = [f"GET {order.get('path', '/v1/host')} HTTP/1.1", f"Host: {order.get('name', order['host'])}"]
    lines += [f"{name}: {value}" for name, value in order.get("headers", {}).items()]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = connection.recv(1 << 16)
    if not answer:
        return {"error": "closed", "says": ""}
    return {"status": int(answer.split()[1]), "answer": answer.decode(errors="replace")}


def raw(order: dict[str, Any]) -> dict[str, Any]:
    with dial(order) as connection:
        return ask(connection, order)


def hold(order: dict[str, Any]) -> dict[str, Any]:
    """A connection that stays open under a name; one request over it at once, unless it is to say nothing."""
    connection = held[order["as"]] = dial(order)
    return {} if order.get("silent") else ask(connection, order)


def again(order: dict[str, Any]) -> dict[str, Any]:
    return ask(held[order["as"]], order)


def closed(order: dict[str, Any]) -> dict[str, Any]:
    """Wait until the other side has closed the connection."""
    with held.pop(order["as"]) as connection:
        try:
            while connection.recv(1 << 16):
                pass
        except TimeoutError:
            return {"closed": False}
        except OSError:
            pass
        return {"closed": True}


def drop(order: dict[str, Any]) -> dict[str, Any]:
    held.pop(order["as"]).close()
    return {}


def serial(order: dict[str, Any]) -> dict[str, Any]:
    """The certificate that the server shows to a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(order["ca"])
    context.load_cert_chain(order["certificate"])
    with socket.create_connection((order["host"], order["port"]), SECONDS) as plain, context.wrap_socket(plain, server_hostname=order["host"]) as connection:
        return {"serial": (connection.getpeercert() or {}).get("serialNumber", "").lstrip("0")}


ORDERS = {"sdk": sdk, "raw": raw, "hold": hold, "again": again, "closed": closed, "drop": drop, "serial": serial}


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = ORDERS[order["do"]](order)
        except OSError as problem:
            answer = {"error": type(problem).__name__, "says": str(problem)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
