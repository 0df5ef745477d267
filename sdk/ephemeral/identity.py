"""Whose conversation is it? What the app says comes first, in headers or body; then its history; then that it is a new one.

The order, first that is there:

1. What the app says in so many words: headers (``X-Ephemeral-Session-Id`` and those of other tools), ``baggage``, the body's
   ``metadata.session_id``, the session in Anthropic's ``metadata.user_id``, ``conversation``.
2. The history, where it holds an answer we know (below), or the id of one (``previous_response_id``).
3. An unknown ``previous_response_id``: a hash of it.
4. ``traceparent``, and a ``prompt_cache_key`` that can be meant for one conversation only. They are weak words: tracing often
   begins a trace for every turn, so the history goes before them; and a cache key is meant to be shared by whatever begins
   alike. It counts if it holds a UUID (not of versions 3 and 5, which are hashes of names), or 16 random-looking letters and
   digits that are not as long as a usual digest; and no longer once two conversations began differently under it.
5. Nothing: a new conversation, even when another began with the same words. Unless it is the same request again: the client
   says so (``x-stainless-retry-count``), or one of the same app failed within the last minutes and none is under way.

The history. An answer puts its session at a *place* (``identity_memory``), and a request continues the session that is at the
place of its latest known answer, whatever else the app did to the history: trimmed, summarised, system prompt re-worded. What
may stand for a place, so that strangers never meet there:

- An id of an answer or call, alone, if it is long and random. ``call_0`` is not, nor is ``functions.search:0``.
- Anything else ("Sure!", ``call_0``, a call known by its arguments) only together with everything that the user and the tools
  said before it, from the beginning, in the same app. The system prompt is left out: it tells the time.
- Where the beginning was trimmed away: together with the message just before it, if that is long enough to be somebody's own,
  and only as long as no second conversation was seen there.

Two conversations may still come to one place, when two users say the same and are told the same, without random ids. While
both are there nobody is: each goes on as a new conversation, for it is better to lose a sandbox than to share it. When only
one has not gone on from there, the next request is that one's (a program that is run again). The same holds for a provider
that repeats its ids.

Asking again with the same history, or going on from an older answer, stays in the session: what the shared history built in its
sandbox stays in reach of each branch.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from ephemeral.identity_memory import FileMemory, Memory, Place
from ephemeral.streams.turn import Turn

_VALID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}")

SESSION_HEADER = "x-ephemeral-session-id"
APP_HEADER = "x-ephemeral-app"

_BEFORE_ANY = (
    SESSION_HEADER, "x-litellm-trace-id", "x-litellm-session-id", "helicone-session-id", "x-portkey-trace-id",
)  # fmt: skip
_ANY_SESSION_ID = re.compile(r"x-.+-session-id")
_AFTER_ANY = ("session-id", "thread-id", "x-session-id", "x-grok-conv-id")
_BAGGAGE = re.compile(r"(?:^|,)\s*session\.id\s*=\s*([^,;\s]+)")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_USER_ID_WITH_SESSION = re.compile(r"session_([0-9A-Za-z-]{8,64})")  # Claude Code: user_…_account_…_session_UUID
_PLAIN_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_RETRY_HEADER = "x-stainless-retry-count"  # sent by the official clients of OpenAI and Anthropic

_TELLING = 32
"""Characters from which on we take words to be somebody's own."""

_RETRY_SECONDS = 600.0
"""An attempt that failed longer ago, or that was not heard of for longer, is no longer retried (clients wait ten minutes)."""

_ATTEMPTS = 16  # remembered of requests that begin with the same words
_UNDER_WAY = 8  # requests of one session whose answers are awaited
_ANSWERS_AT_ONCE = 64


def session_id(text: str) -> str:
    """``text`` as a session id: itself where it is a valid one (wire.SessionId), else a hash of it."""
    return text if _VALID.fullmatch(text) else f"h-{_hex(text)}"


def app_of(headers: Mapping[str, str]) -> str:
    """A short name of the program that talks: ``X-Ephemeral-App``, else the User-Agent's first product without its
    version. Never a credential, at most 60 characters, empty when nothing is said."""
    named = {name.lower(): value for name, value in headers.items() if name.lower() in (APP_HEADER, "user-agent")}
    said = named.get(APP_HEADER) or re.sub(r"/v?\d\S*$", "", (named.get("user-agent", "").split() or [""])[0])
    return re.sub(r"[^A-Za-z0-9._/ -]", "", said).strip()[:60]


class Identity:
    """Finds the session of each request. One instance sees all the requests of its process, in order, and is told how each
    ended: ``answered`` or ``failed``.

    ``memory`` is what it goes by from turn to turn; default one of its own. ``conversations`` bounds what it keeps besides, of
    requests under way. It keeps hashes, never text. Linear in the history's length. Not safe for several threads at once.
    """

    def __init__(
        self,
        memory: Memory | FileMemory | None = None,
        conversations: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = Memory() if memory is None else memory
        self._limit = conversations
        self._clock = clock
        self._under_way: OrderedDict[str, _UnderWay] = OrderedDict()  # by session
        self._attempts: OrderedDict[bytes, deque[_Attempt]] = OrderedDict()  # by what was asked
        self._begun: OrderedDict[str, _Attempt] = OrderedDict()  # those that began a session, until it goes on

    def session_of(self, headers: Mapping[str, str], body: Mapping[str, Any], turn: Turn) -> tuple[str, str]:
        """The session's id, and what told it: a header's name, ``body: FIELD``, ``history`` or ``first turn``."""
        said = {name.lower(): value.strip() for name, value in headers.items()}
        history = _History(app_of(said), turn)
        session, how = self._find(said, body, history)
        attempt = None
        if how == "first turn":
            attempt = self._attempt(history, self._tried(history, said.get(_RETRY_HEADER, "")))
            session = attempt.session
            self._begun[session] = attempt
            _bound(self._begun, session, self._limit)
        else:
            if session in self._begun:
                self._begun.pop(session).state = "gone on"
            if how == "history":
                attempt = self._attempt(history, session)
        self._under_way.setdefault(session, _UnderWay()).begin(history, attempt, self._clock())
        _bound(self._under_way, session, self._limit)
        return session, how

    def answered(self, session: str, marks: Sequence[str]) -> None:
        """The provider answered in ``session``; ``marks`` tell the answer apart."""
        histories = self._ended(session, "answered")
        left = dict.fromkeys(key for history in histories for key in history.latest())
        self._memory.record(session, _places_of(marks, histories), left)

    def failed(self, session: str, marks: Sequence[str] = ()) -> None:
        """The provider answered an error or nothing, or the answer broke off; ``marks`` tell apart what came of it.

        The app may ask again, and then it is the same session. Or it may go on with as much of the answer as it has, which is
        not known by its text: that history is known by what was asked, if it is long enough and one session only asked it.
        """
        histories = self._ended(session, "failed")
        cut = [key for history in histories for key in history.end.cut()]
        self._memory.record(session, [*_places_of(marks, histories), *dict.fromkeys(cut)])

    # ------------------------------------------------------------------------------------------------ finding

    def _find(self, said: Mapping[str, str], body: Mapping[str, Any], history: _History) -> tuple[str, str]:
        for how, text in (*_from_headers(said), *_from_body(body)):
            if text:
                return session_id(text), how
        previous = self._memory.look(history.continued).values()
        for place in previous:
            if place.owner:
                return place.owner, "body: previous_response_id"
        known = self._known(history)
        if known:
            return known, "history"
        if history.previous and not previous:
            return session_id(f"p-{_hex(history.previous)}"), "body: previous_response_id"
        if trace := _TRACEPARENT.fullmatch(said.get("traceparent", "")):
            return trace[1], "traceparent"
        key = body.get("prompt_cache_key")
        if isinstance(key, str) and _names_a_conversation(key) and self._names_only_one(key, history):
            return session_id(key), "body: prompt_cache_key"
        return "", "first turn"

    def _known(self, history: _History) -> str:
        """The session of the latest answer that we know, or nothing."""
        if not history.answers:
            return ""
        *older, latest = history.answers
        places = self._memory.look([*latest.places(), *latest.before.asked(), *latest.before.cut()])
        session = latest.session(places, latest=True)
        if session:
            return session
        asked, cut = (
            {places[key].only for key in keys if key in places} for keys in (latest.before.asked(), latest.before.cut())
        )
        for session in asked & cut:
            if session:
                return session
        older.reverse()
        for start in range(0, len(older), _ANSWERS_AT_ONCE):
            some = older[start : start + _ANSWERS_AT_ONCE]
            places = self._memory.look([key for answer in some for key in answer.places()])
            for answer in some:
                session = answer.session(places, latest=False)
                if session:
                    return session
        return ""

    def _names_only_one(self, cache_key: str, history: _History) -> bool:
        """Whether all that began under this cache key began with the same words."""
        key = _digest("cache key", cache_key)
        place = self._memory.look([key]).get(key)
        if history.answers:
            return place is None or bool(place.only)
        if place is None or (place.only and place.only != history.first):
            self._memory.record(history.first, [key])
        return place is None or place.only == history.first

    def _tried(self, history: _History, retries: str) -> str:
        """The session in which a request that continues nothing we know was tried before, if it is to be tried there again.

        An attempt that began its session left nothing in it, so it may be anybody's that says the same. Of others, nothing is
        taken that might be another conversation's.
        """
        since = self._clock() - _RETRY_SECONDS
        recent = [one for one in self._attempts.get(history.asked, ()) if one.at >= since and one.state != "gone on"]
        failed = [one for one in recent if one.state == "failed"]
        under_way = [one for one in recent if one.state == "under way"]
        beginning = [one.session for one in failed if one.session in self._begun]
        if retries.isdecimal() and int(retries) > 0:
            open_ones = failed + under_way or recent
            if len(open_ones) == 1:
                return open_ones[0].session
            return beginning[-1] if len(beginning) == len(failed) > 0 else ""
        return beginning[-1] if beginning and not under_way else ""

    def _attempt(self, history: _History, session: str) -> _Attempt:
        """Another request is under way in ``session``; in a new one, when that is empty."""
        attempts = self._attempts.setdefault(history.asked, deque(maxlen=_ATTEMPTS))
        _bound(self._attempts, history.asked, self._limit)
        attempt = next((one for one in attempts if one.session == session), None)
        if attempt is None:
            attempt = _Attempt(session or f"c-{history.first}-{secrets.token_hex(8)}")
            attempts.append(attempt)
        attempt.state, attempt.at = "under way", self._clock()
        return attempt

    def _ended(self, session: str, state: _Attempted) -> list[_History]:
        """One of the requests that are under way in ``session`` is over. Which one, we are not told: each of them takes the
        answer for its own, which does no harm within one session."""
        under_way = self._under_way.get(session)
        if under_way is None:
            return []
        under_way.ended += 1
        if under_way.ended >= len(under_way.requests):
            del self._under_way[session]
        for request in under_way.requests:
            if request.attempt is not None and request.attempt.state == "under way":
                request.attempt.state, request.attempt.at = state, self._clock()
                break
        return [request.history for request in under_way.requests]


_Attempted = Literal["under way", "answered", "failed", "gone on"]


@dataclass(eq=False, slots=True)
class _Attempt:
    """A request, of those with the same words, and what became of it. ``gone on``: it began its session, and others followed."""

    session: str
    state: _Attempted = "under way"
    at: float = 0.0


@dataclass(eq=False, slots=True)
class _Request:
    history: _History
    attempt: _Attempt | None
    at: float


class _UnderWay:
    """The requests of one session, of which not all have ended."""

    __slots__ = ("ended", "requests")

    def __init__(self) -> None:
        self.requests: deque[_Request] = deque(maxlen=_UNDER_WAY)
        self.ended = 0

    def begin(self, history: _History, attempt: _Attempt | None, now: float) -> None:
        while self.requests and self.requests[0].at < now - _RETRY_SECONDS:  # nobody ever said how it ended
            self.requests.popleft()
            self.ended = max(0, self.ended - 1)
        history.forget_all_but_the_latest()
        self.requests.append(_Request(history, attempt, now))


def _places_of(marks: Sequence[str], histories: Sequence[_History]) -> Iterable[bytes]:
    """Where an answer with these marks, to one of these requests, puts its session."""
    keys = {key: None for mark in marks for key in _id_key(mark)}
    for history in histories:
        keys.update(dict.fromkeys(history.end.asked()))
        for mark in marks:
            if not _unique(mark):
                keys.update(dict.fromkeys(history.end.answered(mark)))
    return keys


# ------------------------------------------------------------------------------------------------ reading a history


@dataclass(slots=True)
class _Before:
    """What was said before an answer, as hashes: ``whole`` is everything that the user, the tools and the model said, ``last``
    the last message. ``telling``: the whole is long enough to be somebody's own; ``last_telling``: so is the last message.
    ``short``: the whole has no answer in it."""

    whole: bytes
    last: bytes
    telling: bool
    last_telling: bool
    short: bool

    def answered(self, mark: str) -> tuple[bytes, bytes]:
        """The two places of an answer with this mark, which is not unique."""
        return _digest("whole", self.whole, mark), _digest("last", self.last, mark)

    def asked(self) -> Iterator[bytes]:
        """The place of any answer to this; all that ask this come here."""
        if self.telling:
            yield _digest("asked", self.whole)

    def cut(self) -> Iterator[bytes]:
        """The place of an answer that broke off."""
        if self.telling:
            yield _digest("cut", self.whole)


@dataclass(slots=True)
class _Answer:
    """An answer of a history."""

    before: _Before
    marks: list[str]

    def places(self) -> Iterator[bytes]:
        for mark in self.marks:
            yield from _id_key(mark) if _unique(mark) else self.before.answered(mark)

    def session(self, places: Mapping[bytes, Place], latest: bool) -> str:
        """Whose answer this is, by what is known of its places. Only the ``latest`` may be where others were before."""
        for marks in ([mark for mark in self.marks if unique == _unique(mark)] for unique in (True, False)):
            for whose in (_only, _owner) if latest else (_only,):
                for mark in marks:
                    session = self._session(mark, places, whose)
                    if session:
                        return session
        return ""

    def _session(self, mark: str, places: Mapping[bytes, Place], whose: Callable[[Place | None], str]) -> str:
        if _unique(mark):
            return "".join(whose(places.get(key)) for key in _id_key(mark))
        whole, last = (places.get(key) for key in self.before.answered(mark))
        session = whose(whole)
        # One question and its answer may be all of a conversation, or the end of another one, of which the rest was trimmed
        # away. Then that one was at the last question's place too.
        if session and (not self.before.short or whose(last) == session):
            return session
        return _only(last) if self.before.last_telling else ""


def _only(place: Place | None) -> str:
    return place.only if place else ""


def _owner(place: Place | None) -> str:
    return place.owner if place else ""


class _History:
    """A request's messages, read once. ``end`` is what was said before the answer to come; ``first`` and ``asked`` hash the
    first turn and the whole request; ``continued`` is the place of the answer that the request names."""

    def __init__(self, app: str, turn: Turn) -> None:
        self.answers: list[_Answer] = []
        self.previous = turn.previous
        self.continued = _id_key(turn.previous) if turn.previous else ()
        first: list[list[str]] = []
        whole = blake2b(digest_size=16)
        _add(whole, app, turn.previous)
        asked = whole.copy()
        last = ""
        length = 0

        def before() -> _Before:
            return _Before(
                whole=whole.copy().digest(),
                last=_digest(app, last),
                telling=length >= _TELLING,
                last_telling=len(last) >= _TELLING,
                short=not self.answers,
            )

        answering = False
        for message in turn.messages:
            if message.role == "assistant":
                if not answering:
                    self.answers.append(_Answer(before(), []))
                answering = True
                self.answers[-1].marks.extend(message.marks)
                _add(whole, "assistant", *message.marks)
                _add(asked, "assistant", *message.marks)
                continue
            _add(asked, message.role, message.text, message.call)
            if not self.answers:
                first.append([message.role, message.text, message.call])
            if message.role == "system":
                continue
            if message.role == "tool" and _unique(message.call):  # what it answers may not be in the history itself
                if not self.answers:
                    self.answers.append(_Answer(before(), []))
                if message.call not in self.answers[-1].marks:
                    self.answers[-1].marks.append(message.call)
            answering = False
            _add(whole, message.role, message.text)
            last = message.text
            length += len(last)
        self.end = before()
        self.first = hashlib.sha256(json.dumps(first).encode()).hexdigest()[:12]
        self.asked = asked.digest()

    def latest(self) -> Iterator[bytes]:
        """The places that this request goes on from."""
        yield from self.continued
        if self.answers:
            yield from self.answers[-1].places()

    def forget_all_but_the_latest(self) -> None:
        """No more is needed while the answer is awaited."""
        self.answers = self.answers[-1:]


def _add(digest: hashlib.blake2b, *texts: str) -> None:
    for text in texts:
        data = text.encode("utf-8", "replace")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)


def _digest(*parts: str | bytes) -> bytes:
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "replace") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def _bound(memory: OrderedDict[Any, Any], key: object, limit: int) -> None:
    memory.move_to_end(key)
    while len(memory) > limit:
        memory.popitem(last=False)


# ----------------------------------------------------------------------------------------------- what is unique

_UUID = re.compile(
    r"(?<![0-9a-f])(?:[0-9a-f]{8}-[0-9a-f]{4}-[124678][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    r"|[0-9a-f]{12}[47][0-9a-f]{3}[89ab][0-9a-f]{15})(?![0-9a-f])",  # without hyphens one md5 in 32 looks like it
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[0-9A-Za-z]{16,}")
_OF_CONTENT = re.compile(r"[0-9a-f]{64}|call-[0-9a-f]{32}")  # turn.mark_of, turn.mark_of_call
_NUMBERED = re.compile(r".*[:.]\d{1,6}")  # functions.search:0
_CHANGE = re.compile(r"(?<=[0-9])(?=[A-Za-z])|(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[a-z0-9])")
_DIGEST = re.compile(r"(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{56}|[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})", re.I)


def _random_looking(token: str) -> bool:
    """Digits and letters, and changing between the two, or between cases, more often than words and numbers do."""
    return (
        any("0" <= character <= "9" for character in token)
        and any(character.isalpha() for character in token)
        and len(_CHANGE.findall(token)) * 5 >= len(token)
    )


def _unique(mark: str) -> bool:
    """Whether an answer's mark is an id that no other conversation will have."""
    if len(mark) < 16 or _OF_CONTENT.fullmatch(mark) or _NUMBERED.fullmatch(mark):
        return False
    return bool(_UUID.search(mark)) or any(map(_random_looking, _TOKEN.findall(mark)))


def _names_a_conversation(key: str) -> bool:
    """Whether a ``prompt_cache_key`` looks like one conversation's: see the module's order."""
    return bool(_UUID.search(key)) or any(
        _random_looking(token) and not _DIGEST.fullmatch(token) for token in _TOKEN.findall(key)
    )


def _id_key(mark: str) -> tuple[bytes, ...]:
    """The place that an id names. One that is not unique is only asked for by who names the answer that it continues."""
    if _OF_CONTENT.fullmatch(mark):
        return ()
    return (_digest("id" if _unique(mark) else "previous", mark),)


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


# ----------------------------------------------------------------------------------------------- what the app says


def _from_headers(said: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    others = sorted(name for name in said if _ANY_SESSION_ID.fullmatch(name))
    for name in (*_BEFORE_ANY, *others, *_AFTER_ANY):
        if name in said:
            # A header that we do not know by name may hold a credential (X-Auth-Session-Id): it is written down by hash only.
            known = name not in others or name in _BEFORE_ANY or name in _AFTER_ANY or _PLAIN_UUID.fullmatch(said[name])
            yield name, said[name] if known or not said[name] else f"h-{_hex(said[name])}"
    if baggage := _BAGGAGE.search(said.get("baggage", "")):
        yield "baggage", baggage[1]


def _from_body(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        if isinstance(metadata.get("session_id"), str):
            yield "body: metadata.session_id", metadata["session_id"]
        if isinstance(metadata.get("user_id"), str):
            yield "body: metadata.user_id", _session_of_user(metadata["user_id"])
    conversation = body.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    if isinstance(conversation, str):
        yield "body: conversation", conversation


def _session_of_user(user: str) -> str:
    """The session in Claude Code's ``user_id``: a JSON object since 2.1.78, before that ``user_…_account_…_session_UUID``.
    Empty in anybody else's."""
    if user.lstrip().startswith("{"):
        try:
            said = json.loads(user)
        except (ValueError, RecursionError):
            return ""
        session = said.get("session_id")
        return session if isinstance(session, str) else ""
    found = _USER_ID_WITH_SESSION.search(user)
    return found[1] if found else ""
