"""Official clients as they are: nothing that they see or send is other through the proxy, and the proxy knows what was said.

Each client's programs run once against the fake providers and once through the proxy. See ``programs/record.py``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import pytest
from llm.answers import CODE, REASONING, TEXT, TOOL
from llm.server import FakeProviders, Seen

OPENAI = ["openai_chat", "openai_responses", "openai_rest"]
CLIENTS = {
    "openai3": OPENAI,
    "openai2": OPENAI,
    "anthropic": ["anthropic_messages"],
    "gemini": ["gemini_content"],
    "ollama": ["ollama_chat"],
    "agents": ["agents_sdk"],
    "langchain": ["langchain_chat"],
}
BY_NAME = {"openai2": "/openai"}
"""Clients that go to OpenAI by its name in the path; the others go where a bare ``/v1`` leads."""

PER_RUN = (
    (re.compile(r"(?i)^(sec-websocket-key): .*"), r"\1: any"),  # random by RFC 6455
    (re.compile(r"(?i)(multipart/form-data; boundary=)\S+"), r"\1any"),  # random by the client, and again in the body
)
"""What differs between any two runs of a client. Not Host: a provider is told its own name either way."""

OPENAI_CONVERSATIONS = (("chat", 0), ("responses", 1), ("custom", 0), ("responses socket", 0), ("realtime", 0))
CONVERSATIONS = [
    *(("openai3", protocol, "openai", reasons) for protocol, reasons in OPENAI_CONVERSATIONS),
    *(("openai2", protocol, "openai", reasons) for protocol, reasons in OPENAI_CONVERSATIONS),
    ("anthropic", "messages", "anthropic", 2),
    ("anthropic", "whole", "anthropic", 0),
    ("gemini", "content", "gemini", 2),
    ("gemini", "array", "gemini", 0),
    ("gemini", "partial", "gemini", 0),
    ("ollama", "chat", "ollama", 2),
    ("agents", "responses", "openai", 0),
    ("agents", "chat", "openai", 0),
    ("langchain", "openai", "openai", 0),
    ("langchain", "openai responses", "openai", 0),
    ("langchain", "anthropic", "anthropic", 0),
]
"""Client, protocol, provider, and how many of the two answers have their reasoning written out."""


@pytest.fixture(scope="session")
def both(start_client: Callable, providers: FakeProviders, proxy: str) -> Callable:
    """Both runs of a client's programs: straight to the providers, and through the proxy. Each happens once."""
    done: dict[str, tuple] = {}

    def runs(client: str) -> tuple:
        if client not in done:
            through = {name: f"{proxy}/{name}" for name in providers.urls}
            through["openai"] = proxy + BY_NAME.get(client, "")
            running = start_client(client, CLIENTS[client])
            try:
                done[client] = (running.run(providers.urls), running.run(through))
            finally:
                running.stop()
        return done[client]

    return runs


@pytest.mark.parametrize(("client", "program"), [(client, one) for client, all in CLIENTS.items() for one in all])
def test_a_client_sees_the_same_through_the_proxy(both: Callable, client: str, program: str) -> None:
    direct, proxied = (run.saw[program] for run in both(client))
    assert direct.keys() == proxied.keys()
    assert {step: proxied[step] for step in direct if direct[step] != proxied[step]} == {}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_provider_sees_the_same_requests_through_the_proxy(both: Callable, client: str) -> None:
    direct, proxied = (sorted(_comparable(one) for one in run.requests) for run in both(client))
    assert len(direct) > 3
    assert proxied == direct


@pytest.mark.parametrize("client", ["openai3", "openai2", "anthropic", "gemini", "ollama"])
def test_a_client_that_leaves_early_ends_the_providers_stream(
    both: Callable, providers: FakeProviders, client: str
) -> None:
    direct, proxied = both(client)
    assert direct.deserted > 0
    assert proxied.deserted == direct.deserted


@pytest.mark.parametrize("client", CLIENTS)
def test_the_programs_of_a_client_saw_what_the_provider_said(both: Callable, client: str) -> None:
    """A comparison of two runs says nothing when both failed alike."""
    for program, steps in both(client)[0].saw.items():
        for step, saw in steps.items():
            failed = isinstance(saw, dict) and saw.get("raised")
            assert not failed or failed in EXPECTED.get(step, ()), f"{program}.{step}: {saw}"


EXPECTED = {
    "wrong_key": ("AuthenticationError", "ClientError", "ResponseError"),
    "retried_by_the_client": ("RateLimitError", "OverloadedError"),
    "unknown_path": ("NotFoundError",),
    "refused": ("BadRequestError",),
}
"""The steps that end in an error, and whose."""


@pytest.mark.parametrize(("client", "protocol", "provider", "reasons"), CONVERSATIONS)
def test_a_conversation_of_two_turns_becomes_the_events_of_one_session(
    both: Callable, predictor, client: str, protocol: str, provider: str, reasons: int
) -> None:
    both(client)
    events = predictor.conversation(f"[{client} {protocol}] Fit a line, please.", turns=2)

    def texts(kind: str) -> list[str]:
        return [event["text"] for event in events if event["kind"] == kind]

    assert {event["provider"] for event in events if event["kind"] == "turn_started"} == {provider}
    assert TOOL in [event["name"] for event in events if event["kind"] == "tool_declared"]
    started = [event for event in events if event["kind"] == "tool_call_started"]
    assert [event["name"] for event in started] == [TOOL]
    assert "".join(texts("code")) == CODE
    digests = [event["digest"] for event in events if event["kind"] == "code_done"]
    assert digests == [hashlib.sha256(CODE.encode()).hexdigest()]
    assert "".join(texts("reasoning_text")) == REASONING * reasons
    assert "".join(texts("tool_result")).count("héllo 🐍") == 1
    said = "".join(texts("assistant_text"))
    assert said.startswith(TEXT)
    assert said.endswith("and that is all. ")
    kinds = [event["kind"] for event in events]
    assert [one for one in dict.fromkeys(kinds) if one in ORDER] == [one for one in ORDER if one in kinds]
    assert kinds.count("turn_started") == kinds.count("turn_ended") == 2
    assert kinds[-1] == "turn_ended"


ORDER = ["turn_started", "assistant_text", "tool_call_started", "code", "code_done", "turn_ended", "tool_result"]
"""In which order these kinds come first."""


def _comparable(seen: Seen) -> tuple:
    """A request without what differs between any two runs."""
    headers = [f"{name}: {value}" for name, value in seen.headers]
    body = seen.body
    for boundary in re.findall(r"boundary=(\S+)", "\n".join(headers)):
        body = body.replace(boundary.encode(), b"any")
    for pattern, instead in PER_RUN:
        headers = [pattern.sub(instead, header) for header in headers]
    return seen.provider, seen.method, seen.target, body, headers, seen.frames
