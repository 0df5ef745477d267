"""What is remembered of conversations: in a file, between processes, and whatever they do at the same time."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ephemeral.identity import Identity
from ephemeral.identity_memory import FileMemory, Memory
from ephemeral.streams.turn import Message, Turn, mark_of

TRIES_SECONDS = 20.0


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def user(text: str) -> Message:
    return Message("user", text)


def said(text: str, *ids: str) -> Message:
    return Message("assistant", marks=(*ids, mark_of(text)))


def ask(identity: Identity, *messages: Message) -> str:
    return identity.session_of({}, {}, Turn(messages=messages))[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "identity.db"


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM places").fetchone()[0]


# ------------------------------------------------------------------------------------------------------------- places


@pytest.fixture(params=["process", "file"])
def memory(request, path):
    memory = Memory() if request.param == "process" else FileMemory(path)
    yield memory
    memory.close()


def test_a_place_belongs_to_the_only_session_that_was_there(memory) -> None:
    assert memory.look([key(1)]) == {}
    memory.record("a", [key(1)])
    place = memory.look([key(1), key(2)])[key(1)]
    assert (place.owner, place.only) == ("a", "a")
    memory.record("a", [key(2)], [key(1)])
    memory.record("a", [key(1)])
    assert memory.look([key(1)])[key(1)].only == "a"


def test_a_place_where_several_are_belongs_to_nobody(memory) -> None:
    memory.record("a", [key(1)])
    memory.record("b", [key(1)])
    memory.record("b", [key(2)], [key(1)])
    memory.record("b", [key(1)])
    place = memory.look([key(1)])[key(1)]
    assert (place.owner, place.only) == ("", "")


def test_a_place_that_all_others_have_left_belongs_to_the_one_that_came(memory) -> None:
    memory.record("a", [key(1)])
    memory.record("a", [key(2)], [key(1)])
    memory.record("b", [key(1)])
    place = memory.look([key(1)])[key(1)]
    assert (place.owner, place.only) == ("b", "")
    memory.record("a", [key(3)], [key(1)])  # a goes on from there once more, which changes nothing for b
    assert memory.look([key(1)])[key(1)].owner == "b"
    memory.record("b", [key(2)], [key(1)])
    assert memory.look([key(1)])[key(1)].owner == ""
    memory.record("c", [key(1)])
    assert memory.look([key(1)])[key(1)].owner == "c"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.lists(st.integers(0, 3), max_size=3), st.lists(st.integers(0, 3), max_size=3)
        ),
        max_size=12,
    )
)
def test_a_file_knows_what_a_process_knows(steps) -> None:
    with TemporaryDirectory() as folder:
        own, file = Memory(), FileMemory(Path(folder) / "identity.db")
        for session, arrived, left in steps:
            own.record(session, map(key, arrived), map(key, left))
            file.record(session, map(key, arrived), map(key, left))
            file._own = Memory()  # so that the file answers alone
            assert file.look(list(map(key, range(4)))) == own.look(list(map(key, range(4))))
        assert file.failures == 0
        file.close()


# ------------------------------------------------------------------------------------------------------------ the file


def test_a_conversation_goes_on_after_a_restart(path) -> None:
    memory = FileMemory(path)
    identity = Identity(memory)
    session = ask(identity, user("plot"))
    identity.answered(session, [mark_of("Which column?")])
    memory.close()
    memory = FileMemory(path)
    assert ask(Identity(memory), user("plot"), said("Which column?"), user("b")) == session
    memory.close()


def test_the_file_is_the_owners_alone_and_holds_no_text(path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o644)
    memory = FileMemory(path)
    identity = Identity(memory)
    words = "These words must not be found in any file, nor may their hash."
    session = ask(identity, user(words))
    identity.answered(session, ["resp_written_nowhere", mark_of("This answer neither.")])
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        data = file.read_bytes()
        for text in (words, "resp_written_nowhere", "This answer neither.", mark_of("This answer neither.")):
            assert text.encode() not in data
        for arrived in memory._own._places:
            assert arrived not in data  # hashed once more, with the file's own secret
    memory.close()


def test_two_files_hide_the_same_thing_differently(tmp_path) -> None:
    kept = []
    for name in ("a.db", "b.db"):
        memory = FileMemory(tmp_path / name)
        memory.record("s", [key(1)])
        memory.close()
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            kept.append(connection.execute("SELECT key FROM places").fetchone()[0])
    assert kept[0] != kept[1]


def test_the_file_is_bounded_in_rows_and_age(path) -> None:
    now = [1000.0]
    memory = FileMemory(path, rows=500, age_seconds=100.0, clock=lambda: now[0])
    for number in range(1100):
        memory.record("s", [key(2 * number), key(2 * number + 1)])
    assert rows(path) <= 500 + 2 * 256
    memory._own = Memory()
    assert memory.look([key(0)]) == {}
    assert memory.look([key(2199)])[key(2199)].only == "s"
    now[0] = 2000.0
    for number in range(300):
        memory.record("s", [key(10_000 + number)])
    assert rows(path) <= 300
    assert memory.failures == 0
    memory.close()


def holds(memory: FileMemory, path: Path, number: int) -> bool:
    """Whether the file itself comes to know a place, as the memory goes on being used."""
    deadline = time.monotonic() + TRIES_SECONDS
    while time.monotonic() < deadline:
        memory.record("other", [key(99)])
        with closing(sqlite3.connect(path)) as connection:
            try:
                if connection.execute("SELECT count(*) FROM places").fetchone()[0] >= number:
                    return True
            except sqlite3.Error:
                pass
        time.sleep(0.05)
    return False


def test_while_the_file_is_locked_the_process_remembers_alone_and_saves_it_later(path) -> None:
    memory = FileMemory(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(50):
            memory.record("s", [key(number)])
        assert memory.look([key(7)])[key(7)].only == "s"
        assert memory.failures > 0
        other.execute("ROLLBACK")
    assert rows(path) == 0
    assert holds(memory, path, 51)
    memory.close()


@pytest.mark.parametrize(
    "damage", [b"this is no database, it never was one" * 200, b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_a_damaged_file_is_put_aside_and_begun_anew(path, damage) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    memory = FileMemory(path)
    memory.record("s", [key(1)])
    assert memory.look([key(1)])[key(1)].only == "s"
    assert holds(memory, path, 2)
    assert Path(f"{path}.damaged").read_bytes() == damage
    assert memory.failures > 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    memory.close()


def test_a_file_that_is_damaged_while_it_is_used_is_begun_anew(path) -> None:
    memory = FileMemory(path)
    for number in range(2000):
        memory.record("s", [key(number)])
    memory._file.opened().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    memory.close()  # and with it SQLite's own copy of the pages
    for number in range(2000, 2010):
        memory.record("s", [key(number)])
    assert memory.look([key(2005)])[key(2005)].only == "s"
    assert holds(memory, path, 11)
    assert Path(f"{path}.damaged").exists()
    memory.close()


def test_a_file_that_is_removed_is_begun_anew(path) -> None:
    memory = FileMemory(path)
    memory.record("s", [key(1)])
    for file in path.parent.iterdir():
        file.unlink()
    assert memory.look([key(1)])[key(1)].only == "s"
    memory.record("s", [key(2)])
    assert holds(memory, path, 2)
    memory.close()


def test_where_no_file_can_be_made_the_process_remembers_alone(tmp_path) -> None:
    (tmp_path / "file").touch()
    memory = FileMemory(tmp_path / "file" / "identity.db")
    memory.record("s", [key(1)])
    assert memory.look([key(1)])[key(1)].only == "s"
    assert memory.failures > 0
    memory.close()


NO_ROOM = """
import resource, signal, sys
from ephemeral.identity_memory import FileMemory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
memory = FileMemory(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))  # as if the disk were full
keys = [number.to_bytes(16, "big") for number in range(3000)]
for start in range(0, 3000, 100):
    memory.record("s", keys[start : start + 100])
assert memory.failures > 0
assert len(memory.look(keys)) == 3000
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
memory.close()
"""


def test_when_the_disk_is_full_the_process_remembers_alone(path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    memory = FileMemory(path)
    assert holds(memory, path, 1)
    memory.close()


# --------------------------------------------------------------------------------------------------- several processes

TALKER = """
import json, sys
from ephemeral.identity import Identity
from ephemeral.identity_memory import FileMemory
from ephemeral.streams.turn import Message, Turn
memory = FileMemory(sys.argv[1])
identity = Identity(memory)
for line in sys.stdin:
    order = json.loads(line)
    if "messages" in order:
        messages = tuple(Message(role, text, call, tuple(marks)) for role, text, call, marks in order["messages"])
        print(identity.session_of(order.get("headers", {}), {}, Turn(messages=messages))[0], flush=True)
    else:
        identity.answered(order["session"], order["marks"])
        print(memory.failures, flush=True)
"""


class Talker:
    """An ``Identity`` in a process of its own."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", TALKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, **order: object) -> None:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def finish(self) -> str:
        return self._process.stdout.readline().strip()

    def ask(self, *messages: Message) -> None:
        self.start(messages=[(one.role, one.text, one.call, one.marks) for one in messages])

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def test_processes_that_share_a_file_share_what_they_know(path) -> None:
    talkers = [Talker(path) for _ in range(3)]
    try:
        sessions: list[set[str]] = [set() for _ in talkers]
        for number in range(40):
            for talker in talkers:  # all at once
                talker.ask(user("plot data.csv"))
            begun = [talker.finish() for talker in talkers]
            texts = [f"{number}, {of}, which column?" for of in range(3)]
            for talker, session, text in zip(talkers, begun, texts, strict=True):
                talker.start(session=session, marks=[mark_of(text)])
            assert [talker.finish() for talker in talkers] == ["0"] * 3  # none of them had to do without the file
            for at, talker in enumerate(talkers):  # the next turn comes to another process
                talker.ask(user("plot data.csv"), said(texts[at - 1]), user("b"))
            assert [talker.finish() for talker in talkers] == [begun[at - 1] for at in range(3)]
            for own, session in zip(sessions, begun, strict=True):
                own.add(session)
        assert len(set().union(*sessions)) == 3 * 40
    finally:
        for talker in talkers:
            talker.close()


# --------------------------------------------------------------------------------------- conversations of all kinds


class Talk:
    """One conversation: an app that keeps its history its own way, and a provider that marks its answers its own way."""

    def __init__(self, number: int, app: str, provider: str, opening: str) -> None:
        self.number, self.app, self.provider = number, app, provider
        self.messages = [Message("system", "It is 9:00."), user(opening)]
        self.previous = ""
        self.turns = 0
        self.session = ""
        self.asked: tuple[int, str] | None = None  # the process that knows of the request under way, and the session
        self.branches: list[tuple[list[Message], str]] = []

    def turn(self) -> Turn:
        messages = list(self.messages)
        if self.app == "rewords":
            messages[0] = Message("system", f"It is 9:{self.turns:02}.")
        if self.app == "trims" and len(messages) > 5:
            messages = [messages[0], *messages[-3:]]
        if self.app == "names" and self.previous:
            return Turn(messages=tuple(messages[-1:]), previous=self.previous)
        return Turn(messages=tuple(messages))

    def answer(self) -> tuple[list[str], Message]:
        """The marks that the provider's answer has, and how the history shows it."""
        self.turns += 1
        own = f"{self.number}.{self.turns}.{len(self.branches)}"
        identity = f"resp_{uuid.uuid4().hex}"
        call = f"call_{uuid.uuid4().hex}" if self.provider == "ids" else "call_0"
        text = f"The answer is {own}." if self.provider == "texts" else "Sure!"
        self.previous = identity
        return [identity, call, mark_of(text)], said(text, call)

    def go_on(self, answered: Message, words: str) -> None:
        self.messages += [answered, user(words)]
        self.branches.append((list(self.messages), self.previous))


class World:
    """Conversations in one or two processes, step by step as hypothesis draws them."""

    def __init__(self, memories: list) -> None:
        self.identities = [Identity(memory) for memory in memories]
        self.talks: list[Talk] = []
        self.owners: dict[str, int] = {}

    def ask(self, talk: Talk, process: int, retry: bool = False) -> None:
        headers = {"x-stainless-retry-count": "1"} if retry else {}
        session, _ = self.identities[process].session_of(headers, {}, talk.turn())
        talk.asked = (process, session)

    def answer(self, talk: Talk, words: str, keeps: bool) -> None:
        process, session = talk.asked
        talk.asked = None
        assert self.owners.setdefault(session, talk.number) == talk.number, "two conversations share a session"
        if keeps:
            assert talk.session in ("", session), "a conversation lost its session"
        talk.session = session
        marks, shown = talk.answer()
        self.identities[process].answered(session, marks)
        talk.go_on(shown, words)

    def fail(self, talk: Talk) -> None:
        """The request fails and its client tries again at once, saying so."""
        process, session = talk.asked
        self.identities[process].failed(session)
        self.ask(talk, process, retry=True)


OPENINGS = ["hi", "plot data.csv", "Please plot the revenue of each region in data.csv by month."]
WORDS = ["b", "yes", "Now in blue, and put the legend outside of the plot."]
STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 1), st.sampled_from(WORDS), st.integers(0, 7)), min_size=4, max_size=60
)


def memories(shared: bool, folder: str) -> list:
    if shared:
        return [FileMemory(Path(folder) / "identity.db") for _ in range(2)]
    return [Memory()] * 2


def play(kinds, steps, shared: bool, keeps: bool, branches: bool) -> None:
    with TemporaryDirectory() as folder:
        kept = memories(shared, folder)
        world = World(kept)
        world.talks = [Talk(number, *kind) for number, kind in enumerate(kinds)]
        for which, process, words, what in steps:
            talk = world.talks[which % len(world.talks)]
            if talk.asked is None:
                if branches and what == 0 and talk.branches:
                    messages, talk.previous = talk.branches[len(words) % len(talk.branches)]
                    talk.messages = [*messages[:-1], user(words)]
                world.ask(talk, process if shared else 0)
            elif what == 1:
                world.fail(talk)
            else:
                world.answer(talk, words, keeps)
        assert all(getattr(memory, "failures", 0) == 0 for memory in kept)
        for memory in kept:
            memory.close()


APPS = st.sampled_from(["resends", "rewords", "trims", "names"])
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize(("shared", "examples"), [(False, 150), (True, 40)])
def test_each_of_many_conversations_keeps_a_session_of_its_own(shared, examples) -> None:
    """With random ids, whatever the app does to the history; failing, branching and asking again included."""

    @settings(SLOW, max_examples=examples)
    @given(st.lists(st.tuples(APPS, st.just("ids"), st.sampled_from(OPENINGS)), min_size=2, max_size=6), STEPS)
    def holds_for(kinds, steps) -> None:
        play(kinds, steps, shared, keeps=True, branches=True)

    holds_for()


@pytest.mark.parametrize(("shared", "examples"), [(False, 150), (True, 40)])
def test_each_keeps_its_own_by_its_texts_alone(shared, examples) -> None:
    """Without random ids, where the app leaves the history or at least names the answer that it continues."""
    apps = st.sampled_from(["resends", "rewords", "names"])

    @settings(SLOW, max_examples=examples)
    @given(st.lists(st.tuples(apps, st.just("texts"), st.sampled_from(OPENINGS)), min_size=2, max_size=6), STEPS)
    def holds_for(kinds, steps) -> None:
        play(kinds, steps, shared, keeps=True, branches=True)

    holds_for()


@pytest.mark.parametrize(("shared", "examples"), [(False, 250), (True, 50)])
def test_no_two_share_a_session_even_when_all_say_and_are_told_the_same(shared, examples) -> None:
    apps = st.sampled_from(["resends", "rewords", "trims"])

    @settings(SLOW, max_examples=examples)
    @given(st.lists(st.tuples(apps, st.just("same"), st.sampled_from(OPENINGS)), min_size=2, max_size=6), STEPS)
    def holds_for(kinds, steps) -> None:
        play(kinds, steps, shared, keeps=False, branches=False)

    holds_for()


def test_a_million_conversations_take_no_more_memory_than_a_few(path) -> None:
    """A thousandth of them here: what is held is bounded by count, whatever goes through."""
    memory = FileMemory(path, rows=1000)
    memory._own = Memory(limit=100)
    identity = Identity(memory, conversations=50)
    for number in range(1000):
        session = ask(identity, user(f"question {number}"))
        identity.answered(session, [f"resp_{uuid.uuid4().hex}", mark_of(f"answer {number}")])
    assert len(memory._own) <= 100
    assert len(memory._unsaved) == 0
    assert len(identity._attempts) <= 50
    assert rows(path) <= 1000 + 5 * 256
    assert os.path.getsize(path) < 4 << 20
    memory.close()
