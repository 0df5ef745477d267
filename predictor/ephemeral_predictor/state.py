"""What is believed of one conversation. Fed with what happens in it; no I/O, and bounded whatever is fed."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from ephemeral.imports import Found, ImportScanner
from ephemeral_predictor import model, needs, seen
from ephemeral_predictor.evidence import NEEDED, WANTED, Evidence
from ephemeral_predictor.model.signals import Signals, excerpt
from ephemeral_predictor.model.signals import read as read_signals

_TURNS = 16  # turns kept for K2
_TURN_CHARACTERS = 4000
_EVIDENCE = 200  # packages a conversation can give evidence for
_MODULES = 16  # modules remembered for one package
_STREAMS = 32  # answers and calls read at the same time
_INSTRUCTIONS_SCALE = 0.35  # what a system prompt names never suffices alone
_RESULT_SCALE = 0.6
_STRONG = 0.6  # a concept this sure of its package speaks of work for code
_ASKED = 0.5  # probability that code is asked for
_LEAST = 0.02  # less probable is not worth remembering
K2_PROBABILITY = 0.8


@dataclass(frozen=True)
class Decision:
    """What K2 answered. ``action`` is ``nothing`` when it expects no code, ``resize`` when it speaks only of the size;
    ``versions`` holds the packages it wants, each with a version or None."""

    action: str
    versions: dict[str, str | None] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    memory_bytes: int | None = None
    cpus: float | None = None


class Belief:
    """One conversation. Every method that takes a piece of it says whether a plan may have changed."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.app = ""
        self.turns: deque[tuple[str, str]] = deque(maxlen=_TURNS)
        """(``user`` | ``tool`` | ``assistant``, the beginning of its text), for K2."""
        self.evidence: dict[str, Evidence] = {}
        """Package -> the strongest sign of it."""
        self.modules: dict[str, dict[str, None]] = {}
        """Package -> its modules that the code names, in order."""
        self.rejected: set[str] = set()
        self.code_tool = False
        self.code_begun = False
        self.code_in_turn = False
        """Code came since the user spoke last."""
        self.quiet = False
        """K2 said that no sandbox is needed; until the next turn or the next code, guesses count for nothing."""
        self.asks = 0.0
        """Probability that code will run for the latest turn, taken by itself."""
        self.memory_bytes: int | None = None
        self.cpus: float | None = None
        self._needs = 0.0
        self._needed = 0.0
        self._at_hand = 0.0  # the likeliest package of a file that a tool told of: what is asked later may be of it
        self._standard_library = False  # the user wants nothing else
        self._streams: OrderedDict[str, ImportScanner] = OrderedDict()
        self._answer = ""

    @property
    def needs_code(self) -> float:
        """Probability that code of this conversation will run."""
        return 1.0 if self.code_begun else self._needs

    @property
    def needs_packages(self) -> float:
        """Probability that this code imports any package."""
        return self._needed

    @property
    def may_need_packages(self) -> bool:
        """Whether code is to be expected, and not only the standard library."""
        return self.needs_code >= needs.THRESHOLD and not self._standard_library

    # ------------------------------------------------------------------------------------------ what happens

    def tool_declared(self, name: str) -> bool:
        self.code_tool = self.code_tool or needs.is_code_tool(name)
        return False

    def user_turn(self, text: str) -> bool:
        """A user's or system's message."""
        self._end_answer()
        self.quiet = self.code_in_turn = False
        text = excerpt(text)
        self._remember("user", text)
        # With a tool at hand, a system prompt describes what may come, not what is asked for now.
        scale = _INSTRUCTIONS_SCALE if self.code_tool and needs.is_instructions(text) else 1.0
        self.asks = scale * self._judge(text, scale)
        self._needs = max(self._needs, self.asks)
        return True

    def tool_result(self, text: str) -> bool:
        """A tool's answer: its names and files count for less, and it asks for nothing."""
        text = excerpt(text)
        self._remember("tool", text)
        self._note(text, _RESULT_SCALE)
        return True

    def turn_started(self) -> bool:
        self._end_answer()
        self._streams.clear()
        return False

    def assistant_text(self, text: str) -> bool:
        """The next piece of the answer's prose."""
        if len(self._answer) < _TURN_CHARACTERS:
            self._answer += text[:_TURN_CHARACTERS]
        return self._take(self._stream("").feed(text), seen.FENCE_PROBABILITY)

    def call_started(self, name: str) -> bool:
        """The model begins to call a tool; one that takes code means that code comes."""
        if needs.is_code_tool(name):
            return self._begin_code()
        return False

    def code(self, call: str, text: str) -> bool:
        """The next piece of the code of ``call``. Tools of any name may take code: the reader found it in one."""
        begun = self._begin_code()
        return self._take(self._stream(f"code {call}").feed(text), seen.CODE_PROBABILITY) or begun

    def code_done(self, call: str) -> bool:
        begun = self._begin_code()
        scanner = self._streams.pop(f"code {call}", None)
        return (self._take(scanner.close(), seen.CODE_PROBABILITY) if scanner else False) or begun

    def turn_ended(self) -> bool:
        """The answer is over: its last lines count now."""
        changed = False
        for name, scanner in self._streams.items():
            changed |= self._take(scanner.close(), seen.CODE_PROBABILITY if name else seen.FENCE_PROBABILITY)
        self._streams.clear()
        self._end_answer()
        return changed

    def decide(self, decision: Decision) -> None:
        """Take over K2's answer: its packages stand in for all mere guesses. When it sees no need of a sandbox, what was
        believed so far is forgotten: the next turn begins anew."""
        if decision.action in ("release", "nothing"):
            self.quiet = True
            self.code_begun = False
            self._needs = self._needed = 0.0
            self.evidence.clear()
            self.modules.clear()
            self.memory_bytes = self.cpus = None
            return
        self.memory_bytes = decision.memory_bytes or self.memory_bytes
        self.cpus = decision.cpus or self.cpus
        if decision.action == "resize":
            return
        self._needs = max(self._needs, K2_PROBABILITY)
        self.evidence = {package: e for package, e in self.evidence.items() if e.proposer == "seen"}
        for package, version in decision.versions.items():
            self.add(Evidence(package, K2_PROBABILITY, "k2", "k2", version))
        for module in decision.modules:
            self._take([Found("import", module)], K2_PROBABILITY, of_k2=True)

    # --------------------------------------------------------------------------------------------- inside

    def add(self, evidence: Evidence) -> None:
        """Keep ``evidence`` if it is the strongest for its package; a version once named stays."""
        known = self.evidence.get(evidence.package)
        if known is None and len(self.evidence) >= _EVIDENCE:
            return
        if known is None or evidence.probability > known.probability:
            version = evidence.version or (known.version if known else None)
            self.evidence[evidence.package] = Evidence(
                evidence.package, evidence.probability, evidence.proposer, evidence.kind, version
            )
        if evidence.kind in ("import", "pip install"):
            self.rejected.discard(evidence.package)

    def _judge(self, text: str, scale: float) -> float:
        """Keep what the rules and the model together say of what a user asks for. The probability that code will run for it."""
        verdict = model.read(text)
        self._hear(verdict.signals)
        self._standard_library = verdict.signals.standard_library
        if not self._standard_library:
            self._needed = max(self._needed, scale * verdict.needed)
            for evidence in verdict.evidence:
                self._weigh(evidence, scale)
        self._imports(text, scale)
        asks = verdict.signals.asks
        if asks >= _ASKED and self._at_hand >= WANTED:
            self._needed = max(self._needed, scale * NEEDED)
        if self.code_tool and any(evidence.probability >= _STRONG for evidence in verdict.signals.concepts.values()):
            asks = max(asks, needs.probability(text, names_library=True))
        return max(asks, verdict.needed if verdict.needed >= NEEDED else 0.0)

    def _note(self, text: str, scale: float) -> None:
        """Keep what the rules find in a text that asks for nothing."""
        said = read_signals(text)
        if not self._standard_library:
            for evidence in (*said.mentioned.values(), *said.concepts.values()):
                self._weigh(evidence, scale)
                if evidence.kind == "file":
                    self._at_hand = max(self._at_hand, scale * evidence.probability)
        self._imports(text, scale)

    def _hear(self, said: Signals) -> None:
        """What is ruled out, and what no longer is."""
        self.rejected -= said.mentioned.keys()
        self.rejected |= said.rejected
        for package in said.rejected:
            if package in self.evidence and self.evidence[package].kind not in ("import", "pip install"):
                del self.evidence[package]

    def _weigh(self, evidence: Evidence, scale: float) -> None:
        if evidence.package not in self.rejected and scale * evidence.probability >= _LEAST:
            self.add(Evidence(evidence.package, scale * evidence.probability, evidence.proposer, evidence.kind, evidence.version))

    def _imports(self, text: str, scale: float) -> None:
        """Import lines that a text quotes."""
        scanner = ImportScanner("prose")
        for line in scanner.feed(text) + scanner.close():
            self._keep(line, scale * seen.FENCE_PROBABILITY)

    def _take(self, finds: list[Found], probability: float, of_k2: bool = False) -> bool:
        kept = [self._keep(found, probability, of_k2) for found in finds]
        if any(kept) and not of_k2:
            self.quiet = False
            self._needs = max(self._needs, probability)
        return any(kept)

    def _keep(self, found: Found, probability: float, of_k2: bool = False) -> bool:
        evidence, modules = seen.of_found(found, probability)
        if evidence is None:
            return False
        if of_k2:
            evidence = Evidence(evidence.package, probability, "k2", "k2")
        self.add(evidence)
        if evidence.package not in self.evidence:
            return False  # there is no room for more
        known = self.modules.setdefault(evidence.package, {})
        for module in modules:
            if len(known) < _MODULES:
                known[module] = None
        return True

    def _begin_code(self) -> bool:
        self.code_in_turn = True
        begun, self.code_begun = not self.code_begun, True
        if self.quiet:
            self.quiet = False
            return True
        return begun

    def _stream(self, name: str) -> ImportScanner:
        scanner = self._streams.get(name)
        if scanner is None:
            scanner = self._streams[name] = ImportScanner("code" if name else "prose")
            while len(self._streams) > _STREAMS:
                self._streams.popitem(last=False)
        return scanner

    def _end_answer(self) -> None:
        if self._answer:
            self._remember("assistant", self._answer)
            self._answer = ""

    def _remember(self, role: str, text: str) -> None:
        self.turns.append((role, text[:_TURN_CHARACTERS]))

