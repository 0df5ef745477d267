"""What the tests of all protocols' readers ask of them."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import strategies as st

from ephemeral.streams import apis
from ephemeral.streams.answer import AnswerReader
from ephemeral.streams.conversation import Conversations

_DELTAS = ("assistant_text", "reasoning_text", "code")
_WRONG = [None, True, 7, -1, 1e308, "", "x", "\ud800", [], [7], [[]], {}, {"a": 7}, [{}], [None, {"type": 7}]]


class Protocols:
    """Ways to try a reader, whatever protocol it reads."""

    @staticmethod
    def merged(events: list[dict[str, Any]]) -> list[tuple[str, ...]]:
        """The events with neighbouring deltas joined, as (kind, text or digest or name, call)."""
        out: list[tuple[str, ...]] = []
        for event in events:
            text = event.get("text") or event.get("digest") or event.get("name", "")
            here = (event["kind"], event.get("call", ""))
            if out and here == (out[-1][0], out[-1][2]) and event["kind"] in _DELTAS:
                out[-1] = (event["kind"], out[-1][1] + text, event.get("call", ""))
            else:
                out.append((event["kind"], text, event.get("call", "")))
        return out

    @staticmethod
    def read(reader: AnswerReader, data: bytes, *cuts: int) -> list[dict[str, Any]]:
        edges = [0, *cuts, len(data)]
        events = [event for start, end in itertools.pairwise(edges) for event in reader.feed(data[start:end])]
        return [*events, *reader.close()]

    def read_in_every_way(self, make: Callable[[], AnswerReader], data: bytes) -> list[tuple[str, ...]]:
        """What is read of ``data``, after making sure that it is the same wherever it is cut."""
        whole = self.merged(self.read(make(), data))
        assert self.merged(self.read(make(), data, *range(1, len(data)))) == whole
        for cut in range(1, len(data)):
            assert self.merged(self.read(make(), data, cut)) == whole
        return whole

    def survives(self, reader: AnswerReader, data: bytes) -> None:
        """Whatever came: the turn ends once, nothing raises, and all of it can be sent."""
        events = self.read(reader, data)
        assert [event["kind"] for event in events].count("turn_ended") == 1
        assert events[-1]["kind"] == "turn_ended"
        assert reader.close() == reader.feed(data) == []
        for event in events:
            json.dumps(event, ensure_ascii=False).encode()
        for mark in reader.marks:
            assert isinstance(mark, str)

    @staticmethod
    def spoiled(data: st.DataObject, messages: object) -> Any:
        """``messages`` with one to three of the values in them replaced by wrong ones, or missing."""
        messages = copy.deepcopy(messages)
        for _ in range(data.draw(st.integers(1, 3))):
            places = list(_places(messages))
            if places:
                holder, key = data.draw(st.sampled_from(places))
                if data.draw(st.booleans()):
                    holder[key] = copy.deepcopy(data.draw(st.sampled_from(_WRONG)))
                else:
                    del holder[key]
        return messages

    @classmethod
    def paths(cls, value: object, here: tuple = ()) -> list[tuple]:
        """The way to every value within ``value``, itself included."""
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [here, *(path for key, child in inner for path in cls.paths(child, (*here, key)))]

    @classmethod
    def replaced(cls, value: Any, path: tuple, other: object) -> Any:
        """A copy of ``value`` with ``other`` at ``path``."""
        if not path:
            return other
        out = copy.copy(value)
        out[path[0]] = cls.replaced(out[path[0]], path[1:], other)
        return out

    @staticmethod
    def finds_its_session(
        path: str, kind: str, first: dict[str, Any], answers: tuple[bytes, bytes], next_of_first: dict[str, Any]
    ) -> None:
        """Two conversations that begin alike are two sessions, and the next request of one of them is found in its own."""
        api = apis.find("POST", path)
        assert api is not None
        conversations = Conversations(lambda event: None)
        sessions = []
        for answer in answers:
            exchange = conversations.begin(api, path, {}, json.dumps(first).encode())
            assert exchange is not None
            exchange.answer(200, {"content-type": kind})
            exchange.feed(answer)
            exchange.end()
            sessions.append(exchange.session)
        continued = conversations.begin(api, path, {}, json.dumps(next_of_first).encode())
        assert continued is not None
        assert sessions[0] != sessions[1]
        assert continued.session == sessions[0]
        assert conversations.failures == 0


def _places(value: object) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


@pytest.fixture(scope="session")
def protocols() -> Protocols:
    return Protocols()
