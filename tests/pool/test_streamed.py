"""The real daemon behind the real API: readers who stay, and readers who go."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from ephemeral import wire
from ephemeral_sandboxd.api import build, executions, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def client(house) -> AsyncIterator[aiohttp.ClientSession]:
    socket = house.state / "api.sock"
    served = await serve(build(house.daemon, house.recorder, token="t", dashboard=None), socket, 0)
    async with aiohttp.ClientSession("http://sandboxd", connector=aiohttp.UnixConnector(str(socket))) as session:
        yield session
    await served.close()


def streamed(client: aiohttp.ClientSession, code: str, session: str):
    return client.post("/v1/executions", json={"code": code, "session": session}, headers={"Accept": "text/event-stream"})


async def test_a_streamed_execution_is_a_row_of_events_and_ends_with_its_record(client):
    async with streamed(client, "print('one')\n1 + 1", "sse-1") as answer:
        lines = [line.decode().rstrip() async for line in answer.content]
    assert [line.removeprefix("event: ") for line in lines if line.startswith("event: ")] == ["accepted", "started", "stdout", "done"]
    done = wire.Piece.model_validate_json(next(line for line in reversed(lines) if line.startswith("data: ")).removeprefix("data: "))
    assert done.execution.result == "2"


async def test_a_reader_who_goes_ends_code_that_says_nothing(house, client, monkeypatch):
    monkeypatch.setattr(executions, "HEARTBEAT_SECONDS", 0.1)
    async with streamed(client, "import time\ntime.sleep(60)", "sse-2") as answer:
        async for line in answer.content:
            if line.startswith(b"event: started"):
                break
        answer.close()
    await house.until(lambda: house.sandbox("sse-2").state == "ready", 30)
    await house.recorder.flush()
    assert [execution.verdict for execution in (await house.recorder.executions("sse-2", 10, None)).items] == ["interrupted"]


async def test_a_download_whose_reader_goes_leaves_the_session_to_others(house, client):
    await house.run("open('large', 'wb').write(bytes(32 << 20))", session="sse-3")
    async with client.get("/v1/sessions/sse-3/files/content?path=large") as answer:
        assert len(await answer.content.read(1000)) > 0
        answer.close()
    assert (await house.run("1 + 1", session="sse-3")).result == "2"
