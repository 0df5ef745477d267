"""Whose conversation is it?"""

from __future__ import annotations

import hashlib
import re
from typing import get_args

import pytest

from ephemeral import wire
from ephemeral.identity import Identity, app_of, session_id

USER = {"role": "user", "content": "plot data.csv"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"X-Ephemeral-Session-Id": "a", "Helicone-Session-Id": "b"}, {}, ("a", "x-ephemeral-session-id")),
        ({"x-litellm-session-id": "b", "X-LITELLM-TRACE-ID": "a"}, {}, ("a", "x-litellm-trace-id")),
        ({"Helicone-Session-Id": "a", "x-portkey-trace-id": "b"}, {}, ("a", "helicone-session-id")),
        ({"X-Claude-Code-Session-Id": "a", "session-id": "b"}, {}, ("a", "x-claude-code-session-id")),
        ({"thread-id": "b", "session-id": "a"}, {}, ("a", "session-id")),
        ({"X-Session-ID": "a", "baggage": "session.id=b"}, {}, ("a", "x-session-id")),
        ({"baggage": "user=x, session.id = a;p=1,z=2"}, {}, ("a", "baggage")),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, {}, (TRACE, "traceparent")),
        ({}, {"metadata": {"session_id": "a"}, "prompt_cache_key": "b"}, ("a", "body: metadata.session_id")),
        (
            {},
            {"metadata": {"user_id": "user_1_account__session_12345678-ab"}},
            ("12345678-ab", "body: metadata.user_id"),
        ),
        ({}, {"conversation": {"id": "conv_1"}}, ("conv_1", "body: conversation")),
        ({}, {"prompt_cache_key": "a"}, ("a", "body: prompt_cache_key")),
        ({"X-Session-ID": ""}, {"prompt_cache_key": "a"}, ("a", "body: prompt_cache_key")),
    ],
)
def test_what_the_app_says_comes_first_in_the_agreed_order(headers, body, expected) -> None:
    assert Identity().session_of(headers, body) == expected


@pytest.mark.parametrize("text", ["abc", "a b", "-a", "ü", "x" * 201, "a/b", "a\nb", "\ud800"])
def test_every_id_is_one_the_wire_accepts(text) -> None:
    pattern = next(piece.pattern for piece in get_args(wire.SessionId)[1].metadata if getattr(piece, "pattern", None))
    found, _ = Identity().session_of({"X-Ephemeral-Session-Id": text}, {})
    assert re.fullmatch(pattern, found)
    assert found == session_id(text)
    assert len(found) <= 200
    assert Identity().session_of({"X-Ephemeral-Session-Id": text}, {})[0] == found


def ask(identity: Identity, *messages: dict) -> str:
    session, how = identity.session_of({}, {"messages": list(messages)})
    assert how == "first turn"
    return session


def said(text: str) -> dict:
    return {"role": "assistant", "content": text}


def called(call: str) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": call, "type": "function"}]}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_growing_history_is_one_conversation() -> None:
    identity = Identity()
    first = ask(identity, USER)
    assert ask(identity, USER, said("Which column?"), {"role": "user", "content": "b"}) == first
    assert (
        ask(identity, USER, said("Which column?"), {"role": "user", "content": "b"}, called("c"), {"role": "tool"})
        == first
    )


def test_two_conversations_that_begin_alike_are_two() -> None:
    identity = Identity()
    assert ask(identity, USER) != ask(identity, USER)
    assert ask(Identity(), USER) != ask(Identity(), USER)


def test_a_continuation_goes_where_its_last_known_answer_was_given() -> None:
    identity = Identity()
    one, two = ask(identity, USER), ask(identity, USER)
    identity.answered(one, ["call_one"], sha(""))
    identity.answered(two, [], sha("Second."))
    assert ask(identity, USER, called("call_one"), {"role": "tool"}) == one
    assert ask(identity, USER, said("Second."), {"role": "user", "content": "go on"}) == two
    identity.answered(one, [], sha("And on."))
    assert ask(identity, USER, called("call_one"), {"role": "tool"}, said("And on."), USER) == one
    assert ask(identity, USER, said("nobody said this"), USER) == one  # the latest that spoke


def test_a_history_that_nobody_saw_begin_is_one_conversation_from_then_on() -> None:
    identity = Identity()
    history = [USER, said("Which column?"), {"role": "user", "content": "b"}]
    assert ask(identity, *history) == ask(identity, *history, said("Fine."), USER)


@pytest.mark.parametrize(
    "messages",
    [None, 7, [], [None, 7], [{"role": {}}], [{"role": "assistant", "tool_calls": [7, {"id": 3}], "content": 5}]],
)
def test_messages_of_no_shape_still_have_a_session(messages) -> None:
    session, _ = Identity().session_of(
        {}, {"messages": messages, "metadata": 7, "conversation": 8, "prompt_cache_key": []}
    )
    assert session.startswith("c-")


def test_the_memory_is_bounded() -> None:
    identity = Identity(conversations=10)
    for number in range(200):
        session = ask(identity, {"role": "user", "content": str(number)})
        identity.answered(session, [f"call_{number}"], sha(str(number)))
    assert len(identity._latest) == len(identity._first_turns) == 10
    assert len(identity._answers) <= 80


@pytest.mark.parametrize(
    ("headers", "app"),
    [
        ({"User-Agent": "OpenAI/Python 3.54.0"}, "OpenAI/Python"),
        ({"user-agent": "curl/8.5.0"}, "curl"),
        ({"User-Agent": "my-agent/v2.1 (linux)", "X-Ephemeral-App": "notebook"}, "notebook"),
        ({"User-Agent": "a<script>" + "b" * 100}, "ascript" + "b" * 53),
        ({}, ""),
    ],
)
def test_an_app_is_known_by_a_short_name(headers, app) -> None:
    assert app_of(headers) == app
