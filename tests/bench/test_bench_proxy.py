"""`ephemeral bench proxy`, as a person types it: the real proxy and the real mitmdump under a real, small load."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ephemeral_cli.bench import proxy_table
from ephemeral_proxy.bench import traffic
from ephemeral_proxy.bench.goals import goals, ratios
from ephemeral_proxy.bench.run import PREFIX, UnknownName, added, selected

PATIENCE = 120.0


def begin(state: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """With ``state`` for everything that it writes, and as its working directory: by that its processes are found."""
    environment = {**os.environ, "EPHEMERAL_STATE": str(state), "TMPDIR": str(state), **variables}
    command = [sys.executable, "-m", "ephemeral_cli", "bench", "proxy", f"--output={state / 'bench.json'}", *arguments]
    return subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=state)


def result_of(state: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    with begin(state, "--quick", "--json", *arguments, **variables) as bench:
        said, errors = bench.communicate(timeout=PATIENCE)
    assert bench.returncode == 0, errors
    found: dict[str, Any] = json.loads(said)
    assert found == json.loads((state / "bench.json").read_text())
    return found


def left(state: Path) -> list[str]:
    """What a run left: directories, and processes that work below ``state``."""
    found = [str(path) for path in state.glob(f"{PREFIX}*")]
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if Path(os.readlink(link)).is_relative_to(state):
                found.append(link.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


# ------------------------------------------------------------------------------------------------ the command


def test_a_quick_run_has_every_promised_key_and_leaves_nothing(state: Path) -> None:
    result = result_of(state, "--no-peers")
    ours = result["ephemeral"]
    for name in ("p50", "p99"):
        assert ours["added_ttft_ms"][name] > 0
    assert ours["added_chunk_ms"]["n"] > 0
    assert ours["streams"] == 500
    for name in ("rps32", "rps256", "rss_mb_start", "rss_mb_end"):
        assert ours[name] > 0
        assert name.startswith("rss") or result["direct"][name] > 0
    assert ours["all_cores"]["rps32"] > 0
    assert "failed" not in ours
    assert result["byte_identical"]["checked"] == sum(ours["answers"].values()) > 500
    assert result["byte_identical"]["identical"] == result["byte_identical"]["checked"]
    assert ours["events"]["received"] == ours["events"]["sent"] > 0
    assert {goal["measure"] for goal in result["goals"]} >= {"added_ttft_ms.p50", "added_ttft_ms.p99", "rps32", "rps256", "byte_identical"}
    assert "mitmdump" not in result
    assert set(result["machine"]) >= {"cores", "model", "memory_bytes", "kernel", "load_average", "python", "date"}
    assert left(state) == []


def test_mitmdump_is_measured_as_it_streams_and_litellm_says_why_it_is_not(state: Path) -> None:
    result = result_of(state, "--only=mitmdump.rps32", "--only=mitmdump.added_chunk_ms", "--only=litellm",
                       UV_OFFLINE="1", UV_CACHE_DIR=str(state / "uv"))
    assert result["mitmdump"]["rps32"] > 0
    assert "--mode reverse:http://127.0.0.1:" in result["mitmdump"]["command"]
    # A proxy that kept answers until they are complete would add what is left of the stream to each delta: 10 ms to 200.
    assert result["mitmdump"]["added_chunk_ms"]["min"] < 10
    litellm = result["litellm"]
    assert "litellm[proxy] cannot be installed" in litellm["missing"]
    assert litellm["rps32"] is litellm["rss_mb_end"] is litellm["added_ttft_ms"]["p50"] is None
    assert "ephemeral" not in result
    assert left(state) == []


def test_an_interrupted_run_stops_all_that_it_started(state: Path) -> None:
    with begin(state, "--only=ephemeral.rss_mb") as bench:
        deadline = time.monotonic() + PATIENCE
        while not any("bench.load" in line for line in left(state)):
            assert time.monotonic() < deadline
            assert bench.poll() is None
            time.sleep(0.05)
        bench.send_signal(signal.SIGINT)
        _, errors = bench.communicate(timeout=PATIENCE)
    assert bench.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not (state / "bench.json").exists()
    assert left(state) == []


def test_an_unknown_measure_is_one_sentence_that_names_those_there_are(state: Path) -> None:
    with begin(state, "--only=speed") as bench:
        _, errors = bench.communicate(timeout=PATIENCE)
    assert bench.returncode == 1
    assert "no such measure: speed" in errors
    assert "next: one of direct ephemeral mitmdump litellm" in errors
    assert "Traceback" not in errors


# ------------------------------------------------------------------------------------------------- what it rests on


DIGEST = b"0" * 64


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_an_answer_is_identical_only_when_every_byte_is() -> None:
    raw = traffic.answer_head(DIGEST) + traffic.BODY
    assert traffic.judge(raw, DIGEST) == traffic.IDENTICAL
    timed = traffic.stamped(raw, 12345, 67890)
    assert timed != raw
    assert traffic.judge(timed, DIGEST) == traffic.IDENTICAL
    for altered in (raw.replace(b"X-Request-SHA256", b"x-request-sha256"), raw.replace(b"Date: Sun", b"Date: Mon"), raw + b"\n"):
        assert traffic.judge(altered, DIGEST) != traffic.IDENTICAL
    assert traffic.judge(raw, b"1" * 64) != traffic.IDENTICAL  # the provider received another request


def test_other_chunks_and_other_json_are_told_from_another_stream() -> None:
    head, data = traffic.answer_head(DIGEST), traffic.dechunked(traffic.BODY)
    assert traffic.judge(head + chunked(data[:1000], data[1000:]), DIGEST) == traffic.REFRAMED
    spaced = data.replace(b'"index":0', b'"index": 0')
    assert traffic.judge(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(spaced), DIGEST) == traffic.SAME
    assert traffic.judge(head + chunked(data.replace(b"month", b"week")), DIGEST) == "another stream"
    assert traffic.judge(head + chunked(data.replace(b"[DONE]", b"{}")), DIGEST) == "no stream"
    assert traffic.judge(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\n{}", DIGEST) == "status 502"


def test_an_answer_ends_where_its_framing_says() -> None:
    raw = traffic.answer_head(DIGEST) + traffic.BODY
    assert [length for length in range(len(raw) + 1) if traffic.complete(raw[:length])] == [len(raw)]
    sized = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n{}"
    assert [length for length in range(len(sized) + 1) if traffic.complete(sized[:length])] == [len(sized)]


def test_every_request_is_new_and_its_digest_leaves_out_the_host_alone() -> None:
    requests = traffic.Requests(traffic.WHOLE, 1234, 7)
    (first, digest), (second, other) = requests.next(), requests.next()
    assert first != second
    assert digest != other
    assert traffic.request_length(first) == len(first) == len(second)
    assert traffic.digest(first.replace(b"127.0.0.1:1234", b"127.0.0.1:99")) == digest
    assert traffic.digest(first.replace(b"X-Stainless-Lang", b"x-stainless-lang")) != digest


def test_what_is_added_is_counted_from_the_median_without_a_proxy() -> None:
    assert added([1.0, 2.0, 9.0], [2.5, 3.0, 20.0]) == [0.5, 1.0, 18.0]


RESULT: dict[str, Any] = {
    "direct": {"rps32": 9000.0, "rps256": 8000.0},
    "ephemeral": {"added_ttft_ms": {"p50": 1.2, "p99": 11.0}, "rps32": 700.0, "rps256": 500.0, "rss_mb_start": 50.0, "rss_mb_end": 55.5,
                  "command": "python -m ephemeral_proxy", "version": "1"},
    "mitmdump": {"rps32": 200.0, "rps256": 250.0},
    "litellm": {"rps32": None, "rps256": None, "missing": "no network"},
    "byte_identical": {"checked": 10, "identical": 10, "reframed": 0},
    "how": {"load": "some"}, "quick": True,
    "machine": {"cores": 2, "model": "some", "memory_bytes": 8 << 30, "kernel": "6.18", "load_average": [0.1, 0.2, 0.3], "date": "2026-01-01T00:00:00Z"},
}


def test_goals_are_met_or_not_and_those_not_measured_are_left_out() -> None:
    met = {goal["measure"]: goal["met"] for goal in goals(RESULT)}
    assert met == {
        "added_ttft_ms.p50": True, "added_ttft_ms.p99": False, "rps32": True, "rps256": False, "rps32 / mitmdump.rps32": True,
        "rps256 / mitmdump.rps256": False, "rss_mb_end - rss_mb_start": True, "byte_identical": True}
    assert ratios(RESULT) == {"mitmdump": {"rps32": 3.5, "rps256": 2.0}}
    assert not any(goal["met"] for goal in goals({**RESULT, "ephemeral": {**RESULT["ephemeral"], "failed": {"status 502": 1}}}))


def test_the_tables_show_figures_goals_and_what_is_missing() -> None:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    proxy_table.show_all(console, {**RESULT, "ratios": ratios(RESULT), "goals": goals(RESULT)})
    shown = console.export_text()
    lines = {line.split("  ")[0].strip(): line for line in shown.splitlines()}
    assert lines["answers a second, 32 connections"].split()[5:] == ["9,000", "700", "200", "-", "1/s"]
    assert "not met" in lines["added_ttft_ms.p99"]
    assert "missing: litellm: no network" in shown
    assert "5 of 8 goals met (with few samples: --quick)" in shown
    assert "byte for byte the same: 10 of 10" in shown


def test_only_names_a_target_or_a_measure_of_one() -> None:
    assert selected(["ephemeral.rps32"], with_peers=True) == {"ephemeral": ("rps32",)}
    assert set(selected([], with_peers=False)) == {"direct", "ephemeral"}
    with pytest.raises(UnknownName, match="mitmdump"):
        selected(["mitmdump"], with_peers=False)
