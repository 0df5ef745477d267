"""What can be done with an execution and a session beyond running code: streamed, interrupted, fed, with files and another size."""

from __future__ import annotations

import asyncio
import time

import pytest

from ephemeral import wire
from ephemeral_sandboxd.errors import BadRequest, NotFound, Refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def streamed(house, code: str, on_piece=None, **fields: object) -> list[wire.Piece]:
    pieces: list[wire.Piece] = []

    def tell(piece: wire.Piece) -> None:
        pieces.append(piece)
        if on_piece:
            on_piece(piece)

    await house.daemon.execute(wire.ExecutionRequest.model_validate({"code": code, **fields}), time.perf_counter(), tell)
    return pieces


async def test_an_execution_tells_everything_as_it_happens(house):
    pieces = await streamed(house, "print('one')\n1 + 1", session="stream-1")
    assert [piece.kind for piece in pieces] == ["accepted", "started", "stdout", "done"]
    assert pieces[0].execution.state == "preparing"
    assert pieces[0].execution.id == pieces[-1].execution.id
    assert pieces[-1].execution.result == "2"


async def test_what_is_waited_for_is_told(house):
    pieces = await streamed(house, "import unidecode\nunidecode.unidecode('é')", session="stream-2")
    assert any(piece.kind == "preparing" and "unidecode" in piece.text for piece in pieces)
    assert pieces[-1].execution.result == "'e'"


async def test_an_execution_can_be_interrupted_by_its_id_and_its_session_goes_on(house):
    def on_piece(piece: wire.Piece) -> None:
        if piece.kind == "stdout" and not tasks:  # by then the variable is there
            tasks.append(asyncio.get_running_loop().create_task(house.daemon.interrupt(identity[0])))
        elif piece.kind == "accepted":
            identity.append(piece.execution.id)

    identity: list[str] = []
    tasks: list[asyncio.Task[None]] = []
    pieces = await streamed(house, "kept = 1\nprint('there', flush=True)\nimport time\ntime.sleep(60)", on_piece, session="stop-1")
    assert pieces[-1].execution.verdict == "interrupted"
    assert "variables" in pieces[-1].execution.error
    assert (await house.run("kept", session="stop-1")).result == "1"
    with pytest.raises(NotFound):
        await house.daemon.interrupt(identity[0])


async def test_interactive_code_is_fed_by_its_id_and_other_code_is_not(house):
    def on_piece(piece: wire.Piece) -> None:
        if piece.kind == "accepted":
            identity.append(piece.execution.id)
        if piece.kind == "stdout":
            house.daemon.feed(identity[0], wire.Feed(text="42\n", close=True))

    identity: list[str] = []
    pieces = await streamed(house, "int(input('? ')) + 1", on_piece, session="feed-1", interactive=True)
    assert pieces[-1].execution.result == "43"

    def on_deaf(piece: wire.Piece) -> None:
        if piece.kind == "started":
            with pytest.raises(BadRequest):
                house.daemon.feed(deaf[0], wire.Feed(text="x"))
        elif piece.kind == "accepted":
            deaf.append(piece.execution.id)

    deaf: list[str] = []
    await streamed(house, "1", on_deaf, session="feed-1")


async def test_pip_inside_the_code_goes_through_policy_and_store(house):
    execution = await house.run("name = 'human' + 'ize'\n!pip install {name}\nimport importlib\nimportlib.import_module(name).intcomma(1000)", session="pip-1")
    assert (execution.verdict, execution.result) == ("ok", "'1,000'"), execution
    refused = await house.run("!pip install no-such-package-on-earth-xyz", session="pip-1")
    assert refused.verdict == "refused" or "not among the known packages" in refused.stderr + (refused.traceback or "")
    shell = await house.run("pip install inflect && python3 -c 'import inflect; print(inflect.__name__)'", session="pip-2", language="shell")
    assert (shell.verdict, shell.stdout.splitlines()[-1]) == ("ok", "inflect"), shell


async def test_one_shot_code_leaves_the_session_alone(house):
    await house.run("x = 1", session="shot-1")
    assert (await house.run("x = 2\nx", session="shot-1", one_shot=True)).result == "2"
    assert (await house.run("x", session="shot-1")).result == "1"


async def test_files_go_in_before_the_first_code_and_come_out_after_it(house):
    async def pieces():
        yield b"a,b\n"
        yield b"1,2\n"

    files = house.daemon.files
    written = await files.write("files-1", "in.csv", pieces())
    assert (written.path, written.size_bytes) == ("/scratch/in.csv", 8)
    execution = await house.run("open('out.txt', 'w').write(open('in.csv').read().upper())", session="files-1")
    assert execution.verdict == "ok", execution
    assert b"".join([piece async for piece in files.read("files-1", "out.txt")]) == b"A,B\n1,2\n"
    assert {file.path for file in await files.list("files-1", ".")} == {"/scratch/in.csv", "/scratch/out.txt"}
    await files.delete("files-1", "out.txt")
    with pytest.raises(NotFound):
        [piece async for piece in files.read("files-1", "out.txt")]
    with pytest.raises(Refused):
        await files.write("files-1", "/etc/passwd", pieces())


async def test_a_plan_chooses_the_size_and_the_time(house):
    await house.plan("size-1", [], memory_bytes=1 << 30, cpus=0.5, disk_bytes=64 << 20, timeout_seconds=0.5)
    await house.until(lambda: house.sandbox("size-1") and house.sandbox("size-1").state == "ready")
    sandbox = house.sandbox("size-1")
    assert (sandbox.memory_limit_bytes, sandbox.cpus, sandbox.disk_bytes) == (1 << 30, 0.5, 64 << 20)
    assert (await house.run("import time\ntime.sleep(30)", session="size-1")).verdict == "timeout"
    full = await house.run("open('/scratch/x', 'wb').write(bytes(80 << 20))", session="size-1", timeout_seconds=30)
    assert "No space left" in full.traceback


async def test_the_kernel_says_what_an_execution_took(house):
    execution = await house.run("x = bytearray(100 << 20)\nsum(range(3_000_000))", session="took-1")
    assert execution.peak_memory_bytes > 100 << 20
    assert execution.cpu_ms > 10


async def test_a_session_learns_that_its_sandbox_is_gone(house):
    await house.run("x = 1", session="gone-1")
    await house.daemon.delete_sandbox(house.sandbox("gone-1").id)
    execution = await house.run("'x' in globals()", session="gone-1")
    assert execution.result == "False"
    assert "killed by its operator" in execution.notice
    assert (await house.run("1", session="gone-1")).notice is None


async def test_an_unknown_root_filesystem_is_named(house):
    with pytest.raises(NotFound, match="no-such-root"):
        house.daemon.open_session(wire.SessionRequest(id="root-1", root="no-such-root"))


async def test_a_network_can_be_granted_and_taken_away_and_refusals_are_noted(house):
    house.daemon.open_session(wire.SessionRequest(id="net-1", network=["example.com"]))
    code = "import urllib.request, urllib.error\ntry:\n    urllib.request.urlopen('http://not-granted.example/', timeout=20)\nexcept urllib.error.HTTPError as e:\n    print(e.code)\nexcept OSError as e:\n    print('none')"
    assert (await house.run(code, session="net-1")).stdout == "403\n"
    assert any(moment.kind == "egress" and moment.data["verdict"] == "refused" for moment in await house.moments("net-1"))
    assert (await house.daemon.grant_network("net-1", wire.NetworkGrant(allow=[]))).network == []
    assert (await house.run(code, session="net-1")).stdout == "403\n"
    assert (await house.run(code, session="net-2")).stdout == "none\n"
    with pytest.raises(BadRequest):
        await house.daemon.grant_network("net-1", wire.NetworkGrant(allow=["0x7f.1"]))


async def test_environments_can_be_made_pinned_and_dropped(house):
    made = await house.daemon.make_environment(wire.EnvironmentRequest(packages=["attrs"]))
    assert "attrs" in made.packages
    assert (await house.daemon.pin_environment(made.id, True)).pinned
    assert not (await house.daemon.pin_environment(made.id, False)).pinned
    with pytest.raises(NotFound):
        await house.daemon.drop_environment("no-such-environment")
