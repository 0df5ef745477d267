"""Whose conversation is it?"""

from __future__ import annotations

import json
import re
import uuid
from typing import get_args

import pytest

from ephemeral import wire
from ephemeral.identity import Identity, app_of, session_id
from ephemeral.streams.chat_completions import turn
from ephemeral.streams.turn import Message, Turn, mark_of, mark_of_call

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
UUID = "0199d3c0-5d6e-7c3a-9f10-3b1f6f1d2a4b"
RETRY = {"X-Stainless-Retry-Count": "1"}
LONG = "Please plot the revenue of each region in data.csv by month."


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def system(text: str) -> dict:
    return {"role": "system", "content": text}


def said(text: str) -> dict:
    return {"role": "assistant", "content": text}


def called(call: str) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": call, "type": "function"}]}


def result(call: str, text: str = "ok") -> dict:
    return {"role": "tool", "tool_call_id": call, "content": text}


def new_call() -> str:
    return f"call_{uuid.uuid4().hex}"


USER = user("plot data.csv")


def ask(identity: Identity, *messages: dict, headers: dict | None = None, **body: object) -> str:
    return identity.session_of(headers or {}, body, turn({"messages": list(messages)}))[0]


def tell(identity: Identity, session: str, text: str = "", *ids: str) -> None:
    identity.answered(session, [*ids, *([mark_of(text)] if text else [])])


# ------------------------------------------------------------------------------------------------ what the app says


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"X-Ephemeral-Session-Id": "a", "Helicone-Session-Id": "b"}, {}, ("a", "x-ephemeral-session-id")),
        ({"x-litellm-session-id": "b", "X-LITELLM-TRACE-ID": "a"}, {}, ("a", "x-litellm-trace-id")),
        ({"Helicone-Session-Id": "a", "x-portkey-trace-id": "b"}, {}, ("a", "helicone-session-id")),
        ({"X-Claude-Code-Session-Id": UUID, "session-id": "b"}, {}, (UUID, "x-claude-code-session-id")),
        ({"thread-id": "b", "session-id": "a"}, {}, ("a", "session-id")),
        ({"X-Session-ID": "a", "baggage": "session.id=b"}, {}, ("a", "x-session-id")),
        ({"X-Grok-Conv-Id": "a"}, {}, ("a", "x-grok-conv-id")),
        ({"baggage": "user=x, session.id = a;p=1,z=2"}, {"metadata": {"session_id": "b"}}, ("a", "baggage")),
        ({}, {"metadata": {"session_id": "a"}, "conversation": "b"}, ("a", "body: metadata.session_id")),
        (
            {},
            {"metadata": {"user_id": "user_1_account__session_12345678-ab"}},
            ("12345678-ab", "body: metadata.user_id"),
        ),
        (
            {},
            {"metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "", "session_id": UUID})}},
            (UUID, "body: metadata.user_id"),
        ),
        ({}, {"conversation": {"id": "conv_1"}, "prompt_cache_key": UUID}, ("conv_1", "body: conversation")),
        ({}, {"conversation": "conv_1"}, ("conv_1", "body: conversation")),
        (TRACEPARENT, {"metadata": {"session_id": "a"}}, ("a", "body: metadata.session_id")),
        (TRACEPARENT, {"prompt_cache_key": UUID}, (TRACE, "traceparent")),
        ({}, {"prompt_cache_key": UUID}, (UUID, "body: prompt_cache_key")),
        ({"X-Session-ID": " "}, {"prompt_cache_key": UUID}, (UUID, "body: prompt_cache_key")),
    ],
)
def test_what_the_app_says_comes_first_in_the_agreed_order(headers, body, expected) -> None:
    assert Identity().session_of(headers, body, turn({"messages": [USER]})) == expected


@pytest.mark.parametrize("text", ["abc", "a b", "-a", "ü", "x" * 201, "a/b", "a\nb", "\ud800"])
def test_every_id_is_one_the_wire_accepts(text) -> None:
    pattern = next(piece.pattern for piece in get_args(wire.SessionId)[1].metadata if getattr(piece, "pattern", None))
    found = ask(Identity(), headers={"X-Ephemeral-Session-Id": text})
    assert re.fullmatch(pattern, found)
    assert found == session_id(text)
    assert len(found) <= 200
    assert re.fullmatch(pattern, Identity().session_of({}, {}, Turn(previous=text))[0])


@pytest.mark.parametrize(
    "key",
    [
        UUID,
        f"my-app:{UUID}",
        uuid.uuid4().hex,
        "01JD3Q8Z7M5K2W9X4V6B1N0C8R",
        "conv_68f3a1c9e7b24d5082ab6f19",
        "chat-V1StGXR8Z5jdHi6BmyT9k",
    ],
)
def test_a_cache_key_that_looks_like_one_conversations_counts(key) -> None:
    assert Identity().session_of({}, {"prompt_cache_key": key}, turn({"messages": [USER]})) == (
        session_id(key),
        "body: prompt_cache_key",
    )


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a",
        "my-app-v1",
        "customer-support-agent-2026-11-24",
        "customerSupportAgentForAcmeCorporation",
        "0123456789abcdef",
        "11111111111111111111",
        "00000000-0000-0000-0000-000000000000",
        str(uuid.uuid5(uuid.NAMESPACE_DNS, "example.com")),
        mark_of("You are a helpful assistant."),  # the sha256 of a system prompt
        "5d41402abc4b2a76b9719d911017c592",  # an md5
    ],
)
def test_a_cache_key_that_many_conversations_may_share_does_not_count(key) -> None:
    session, how = Identity().session_of({}, {"prompt_cache_key": key}, turn({"messages": [USER]}))
    assert how == "first turn"
    assert session.startswith("c-")


def test_a_cache_key_under_which_two_conversations_began_differently_counts_no_longer() -> None:
    identity = Identity()
    assert ask(identity, USER, prompt_cache_key=UUID) == UUID
    assert ask(identity, USER, said("unknown"), user("b"), prompt_cache_key=UUID) == UUID
    other = ask(identity, user("something else"), prompt_cache_key=UUID)
    assert other != UUID
    assert ask(identity, user("a third"), prompt_cache_key=UUID) not in (UUID, other)
    assert ask(identity, USER, prompt_cache_key=UUID) != UUID


def test_a_known_history_goes_before_traces_and_cache_keys() -> None:
    identity = Identity()
    call = new_call()
    session = ask(identity, USER, headers=TRACEPARENT)
    assert session == TRACE
    tell(identity, session, "", call)
    other = {"traceparent": f"00-{'a' * 32}-00f067aa0ba902b7-01"}
    history = [USER, called(call), result(call)]
    assert ask(identity, *history, headers=other) == TRACE
    assert ask(identity, *history, prompt_cache_key=UUID) == TRACE
    assert ask(identity, *history, headers={"X-Session-ID": "said"}) == "said"


@pytest.mark.parametrize(
    "metadata",
    [7, [], {"user_id": 7}, {"user_id": "u-1"}, {"user_id": "{"}, {"user_id": "{}"}, {"user_id": '{"session_id": 7}'},
     {"user_id": "{" + '"a":{' * 5000}, {"session_id": ""}, {"session_id": 7}],
)  # fmt: skip
def test_metadata_that_says_nothing_of_a_session_is_passed_over(metadata) -> None:
    assert ask(Identity(), USER, metadata=metadata).startswith("c-")


# --------------------------------------------------------------------------------------------------- previous answers


def test_a_previous_answer_is_found_in_the_session_it_was_given_in() -> None:
    identity = Identity()
    session = ask(identity, USER)
    for number in range(5):
        tell(identity, session, "Done.", f"resp_{number}")
        again = identity.session_of({}, {}, Turn(messages=(Message("user", "next"),), previous=f"resp_{number}"))
        assert again == (session, "body: previous_response_id")


def test_an_unknown_previous_answer_names_a_session_in_which_what_follows_stays() -> None:
    identity = Identity()
    following = Turn(messages=(Message("user", "next"),), previous="resp_unknown")
    session, how = identity.session_of({}, {}, following)
    assert how == "body: previous_response_id"
    assert "resp_unknown" not in session
    assert identity.session_of({}, {}, following)[0] == session
    assert Identity().session_of({}, {}, following)[0] == session
    tell(identity, session, "Done.", "resp_1")
    assert identity.session_of({}, {}, Turn(messages=(Message("user", "more"),), previous="resp_1"))[0] == session


def test_the_result_of_a_known_call_is_enough_where_the_answer_itself_is_left_out() -> None:
    identity = Identity()
    call = new_call()
    session = ask(identity, USER)
    tell(identity, session, "", call)
    alone = Turn(messages=(Message("tool", "ok", call),), previous="resp_somebody_elses")
    assert identity.session_of({}, {}, alone) == (session, "history")


def test_a_previous_id_that_a_provider_gave_twice_joins_nobody() -> None:
    identity = Identity()
    one, two = ask(identity, USER), ask(identity, user("else"))
    tell(identity, one, "", "resp_1")
    tell(identity, two, "", "resp_1")
    third = identity.session_of({}, {}, Turn(messages=(Message("user", "next"),), previous="resp_1"))[0]
    assert third not in (one, two)


# ------------------------------------------------------------------------------------------------------- the history


def test_a_growing_history_is_one_conversation() -> None:
    identity = Identity()
    history = [USER]
    session = ask(identity, *history)
    for text in ("Which column?", "Sure!", "Sure!", "Done."):
        tell(identity, session, text)
        history += [said(text), user("b")]
        assert ask(identity, *history) == session


def test_two_conversations_that_begin_alike_are_two() -> None:
    identity = Identity()
    assert ask(identity, USER) != ask(identity, USER)
    assert ask(Identity(), USER) != ask(Identity(), USER)


def test_a_continuation_goes_where_its_last_known_answer_was_given() -> None:
    identity = Identity()
    one, two = ask(identity, USER), ask(identity, USER)
    call = new_call()
    tell(identity, one, "", call)
    tell(identity, two, "Second.")
    assert ask(identity, USER, called(call), result(call)) == one
    assert ask(identity, USER, said("Second."), user("go on")) == two
    tell(identity, one, "And on.")
    assert ask(identity, USER, called(call), result(call), said("And on."), USER) == one
    assert ask(identity, USER, said("nobody said this"), USER) not in (one, two)


def test_a_history_that_nobody_saw_begin_is_one_conversation_from_its_next_answer_on() -> None:
    identity = Identity()
    history = [USER, said("Which column?"), user("b")]
    session = ask(identity, *history)
    tell(identity, session, "Fine.")
    assert ask(identity, *history, said("Fine."), USER) == session


@pytest.mark.parametrize("call", ["random", "counted"])
def test_an_app_may_trim_summarise_and_reword_what_was_said(call) -> None:
    identity = Identity()
    session = ask(identity, system("It is 9:01."), user(LONG))
    name = new_call() if call == "random" else "call_0"
    tell(identity, session, "Let me see.", name)
    spoken = {**called(name), "content": "Let me see."}
    assert ask(identity, system("It is 9:02."), user(LONG), spoken, result(name)) == session
    tell(identity, session, "Here it is.")
    history = [user(LONG), spoken, result(name), said("Here it is."), user("In red.")]
    assert ask(identity, system("It is 9:03."), *history) == session
    tell(identity, session, "Sure!")
    history += [said("Sure!"), user("Now in blue, and put the legend outside of it.")]
    assert ask(identity, system("It is 9:04."), *history) == session
    tell(identity, session, "Sure!")
    history += [said("Sure!"), user("Thanks")]
    assert ask(identity, system("Summary: they plot data."), *history[-3:]) == session
    assert ask(identity, history[0], *history[-3:]) == session


def test_a_short_text_that_occurs_everywhere_joins_no_conversations() -> None:
    identity = Identity()
    session = ask(identity, user("hi"))
    tell(identity, session, "Sure!")
    assert ask(identity, user("hello"), said("Sure!"), user("go on")) != session
    assert ask(identity, said("Sure!"), user("go on")) != session
    assert ask(identity, user("hi"), said("Sure!"), user("go on"), headers={"User-Agent": "else/1"}) != session


@pytest.mark.parametrize("call", ["call_0", "call_1", "functions.search:0", "functions.getPlotOfTheYear2024:12",
                                  "D681PevKs", mark_of_call("search", {"q": "x"}), "0000000000000000001"])  # fmt: skip
def test_an_id_that_others_may_have_too_joins_no_conversations(call) -> None:
    identity = Identity()
    session = ask(identity, user("hi"))
    tell(identity, session, "", call)
    assert ask(identity, user("hello"), called(call), result(call)) != session
    assert ask(identity, user("hi"), called(call), result(call)) == session


@pytest.mark.parametrize(
    "call",
    ["call_9Qm2TzK4aXv7Lr1BnW8dYe3H", "toolu_01A09q90qw90lq917835lq9", f"chatcmpl-tool-{uuid.uuid4().hex}", f"call_0_{UUID}",
     "msg_01XFDUDYJgAACzvnptvVoYEL", "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b"],
)  # fmt: skip
def test_a_random_id_is_enough_alone(call) -> None:
    identity = Identity()
    session = ask(identity, user("hi"))
    tell(identity, session, "", call)
    assert ask(identity, user("whatever the app made of it"), called(call), result(call)) == session


def test_conversations_that_say_the_same_and_are_told_the_same_never_meet() -> None:
    identity = Identity()
    seen: dict[str, int] = {}
    histories: list[list[dict]] = [[USER], [USER], [USER]]
    for _ in range(4):
        sessions = [ask(identity, *history) for history in histories]
        for number, session in enumerate(sessions):
            assert seen.setdefault(session, number) == number
            tell(identity, session, "Sure!", "call_0")
            histories[number] += [{**called("call_0"), "content": "Sure!"}, result("call_0")]


def test_a_program_that_is_run_again_with_the_same_answers_has_a_conversation_each_time() -> None:
    identity = Identity()
    sessions = []
    for _ in range(3):
        history = [USER]
        sessions.append(ask(identity, *history))
        for text in ("Which column?", "Sure!", "Done."):
            tell(identity, sessions[-1], text)
            if text != "Done.":
                history += [said(text), user("b")]
                assert ask(identity, *history) == sessions[-1]
    assert len(set(sessions)) == 3


def test_examples_that_an_app_puts_before_every_question_join_nobody() -> None:
    identity = Identity()
    examples = [
        system("Answer briefly."),
        user("An example of a question, not a short one."),
        said("An example answer."),
    ]
    one, two = ask(identity, *examples, user("one")), ask(identity, *examples, user("two"))
    assert one != two
    tell(identity, one, "1")
    tell(identity, two, "2")
    assert ask(identity, *examples, user("one"), said("1"), user("more")) == one
    assert ask(identity, *examples, user("two"), said("2"), user("more")) == two


def test_asking_again_and_branching_stay_in_the_session() -> None:
    identity = Identity()
    session = ask(identity, USER)
    tell(identity, session, "Which column?")
    for tail in ("b", "b", "c"):
        assert ask(identity, USER, said("Which column?"), user(tail)) == session
        tell(identity, session, f"Column {tail}.")
    assert ask(identity, USER, said("Which column?"), user("c"), said("Column c."), user("more")) == session
    assert ask(identity, USER, said("Which column?"), user("b"), said("Column b."), user("more")) == session


def test_answers_that_come_in_another_order_than_their_requests_are_all_known() -> None:
    identity = Identity()
    session = ask(identity, USER)
    tell(identity, session, "Which column?")
    tails = [[USER, said("Which column?"), user(tail)] for tail in "abc"]
    assert {ask(identity, *tail) for tail in tails} == {session}
    for tail in reversed("abc"):
        tell(identity, session, f"Column {tail}.")
    for tail, history in zip("abc", tails, strict=True):
        assert ask(identity, *history, said(f"Column {tail}."), user("more")) == session


# ------------------------------------------------------------------------------------------------------------ retries


def test_a_retry_is_the_same_session() -> None:
    identity = Identity()
    session = ask(identity, USER)
    assert ask(identity, USER, headers=RETRY) == session  # the client gave up before we heard of it
    identity.failed(session)
    assert ask(identity, USER, headers={"x-stainless-retry-count": "2"}) == session
    tell(identity, session, "Hello.")
    assert ask(identity, USER, headers={"x-stainless-retry-count": "0"}) != session


@pytest.mark.parametrize("count", ["", "x", "-1", "²"])
def test_a_retry_count_that_is_no_number_says_nothing(count) -> None:
    identity = Identity()
    assert ask(identity, USER) != ask(identity, USER, headers={"X-Stainless-Retry-Count": count})


def test_without_a_word_a_first_turn_is_repeated_only_when_it_failed_and_none_is_under_way() -> None:
    identity = Identity()
    one = ask(identity, USER)
    identity.failed(one)
    assert ask(identity, USER) == one
    two = ask(identity, USER)
    assert two != one
    identity.failed(one)
    assert ask(identity, USER) not in (one, two)  # the second is under way
    assert ask(identity, USER, headers=RETRY) == one
    assert ask(identity, USER, headers={"User-Agent": "another/2", **RETRY}) not in (one, two)


def test_a_retry_that_may_be_either_of_two_is_neither() -> None:
    identity = Identity()
    sessions = {ask(identity, USER), ask(identity, USER)}
    assert ask(identity, USER, headers=RETRY) not in sessions


def test_a_failed_attempt_is_not_waited_for_for_ever() -> None:
    now = [0.0]
    identity = Identity(clock=lambda: now[0])
    session = ask(identity, USER)
    identity.failed(session)
    now[0] = 601.0
    assert ask(identity, USER) != session


def test_a_conversation_that_went_on_after_its_answer_broke_off_is_nobody_elses() -> None:
    identity = Identity()
    session = ask(identity, user(LONG))
    identity.failed(session, [mark_of("I was about to say")])
    assert ask(identity, user(LONG), said("I was about"), user("Stop. Do it otherwise.")) == session
    assert ask(identity, user(LONG)) != session
    assert ask(identity, user(LONG), headers=RETRY) != session


def test_an_answer_that_broke_off_is_not_guessed_when_two_asked_the_same() -> None:
    identity = Identity()
    one, two = ask(identity, user(LONG)), ask(identity, user(LONG))
    identity.failed(one)
    tell(identity, two, "Here.")
    assert ask(identity, user(LONG), said("I was about"), user("Stop.")) not in (one, two)


def test_a_later_turn_that_failed_is_tried_again_in_its_session() -> None:
    identity = Identity()
    session = ask(identity, USER)
    tell(identity, session, "Which column?")
    for headers in ({}, RETRY, {}):
        assert ask(identity, USER, said("Which column?"), user("b"), headers=headers) == session
        identity.failed(session)


# ------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize(
    "messages",
    [None, 7, [], [None, 7], [{"role": {}}], [{"role": "assistant", "tool_calls": [7, {"id": 3}], "content": 5}],
     [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "\udfff"}]],
)  # fmt: skip
def test_messages_of_no_shape_still_have_a_session(messages) -> None:
    body = {"messages": messages, "metadata": 7, "conversation": 8, "prompt_cache_key": []}
    session, _ = Identity().session_of({}, body, turn(body))
    assert session.startswith("c-")


def test_an_answer_in_a_session_that_nobody_asked_in_does_no_harm() -> None:
    identity = Identity()
    identity.failed("nobody")
    tell(identity, "nobody", "Hello.", "id")


def test_the_memory_is_bounded() -> None:
    identity = Identity(conversations=10)
    for number in range(3000):
        session = ask(identity, user(f"{number} is a number that is long enough to stand alone"))
        if number % 3 == 0:
            tell(identity, session, f"Yes, {number}.", new_call(), f"call_{number}")
        elif number % 3 == 1:
            identity.failed(session)
    assert len(identity._under_way) <= 10
    assert len(identity._attempts) <= 10
    assert len(identity._begun) <= 10
    assert len(identity._memory) <= 32_768


def test_requests_of_which_nobody_says_how_they_ended_are_forgotten() -> None:
    now = [0.0]
    identity = Identity(clock=lambda: now[0])
    for _ in range(100):
        ask(identity, USER, headers={"X-Session-ID": "s"})
    assert len(identity._under_way["s"].requests) <= 8
    now[0] = 700.0
    ask(identity, USER, headers={"X-Session-ID": "s"})
    tell(identity, "s", "Hello.")
    assert not identity._under_way


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
