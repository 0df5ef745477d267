"""What is believed of one conversation. Fed with what happens in it; no I/O, and bounded whatever is fed."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from ephemeral.imports import Found, ImportScanner
from ephemeral_predictor import learned, model, needs, seen
from ephemeral_predictor.evidence import WANTED, Evidence

_HEAD, _TAIL = 4000, 2000  # characters of a long text that are looked at
_TURNS = 16  # turns kept for K2
_TURN_CHARACTERS = 4000
_EVIDENCE = 200  # packages a conversation can give evidence for
_MODULES = 16  # modules remembered for one package
_STREAMS = 32  # answers and calls read at the same time
_INSTRUCTIONS_SCALE = 0.35  # what a system prompt names never suffices alone
_RESULT_SCALE = 0.6
_STRONG = 0.6  # a concept this sure of its package speaks of work for code
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
        self.memory_bytes: int | None = None
        self.cpus: float | None = None
        self._needs = 0.0
        self._standard_library = False  # the user wants nothing else
        self._streams: OrderedDict[str, ImportScanner] = OrderedDict()
        self._answer = ""

    @property
    def needs_code(self) -> float:
        """Probability that code of this conversation will run."""
        return 1.0 if self.code_begun else self._needs

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
        text = _excerpt(text)
        self._remember("user", text)
        # With a tool at hand, a system prompt describes what may come, not what is asked for now.
        scale = _INSTRUCTIONS_SCALE if self.code_tool and needs.is_instructions(text) else 1.0
        names_library = self._read(text, scale)
        self._needs = max(self._needs, scale * needs.probability(text, names_library))
        return True

    def tool_result(self, text: str) -> bool:
        """A tool's answer: its names and files count for less, and it asks for nothing."""
        text = _excerpt(text)
        self._remember("tool", text)
        self._read(text, _RESULT_SCALE)
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
            self._needs = 0.0
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

    def _read(self, text: str, scale: float) -> bool:
        """Keep what a whole text says; whether it names a package, or, where a tool takes code, work for one."""
        found, rejected = seen.mentions(text)
        names_library = bool(found)
        self.rejected |= rejected
        for package in rejected:
            if package in self.evidence and self.evidence[package].kind not in ("import", "pip install"):
                del self.evidence[package]
        self._standard_library = needs.wants_standard_library_only(text)
        if not self._standard_library:
            replaced = seen.others_of({evidence.package for evidence in found})
            concepts = [evidence for evidence in learned.concepts(text) if evidence.package not in replaced]
            if scale == 1.0:
                concepts = self._with_model(text, concepts, replaced, names_library)
            names_library |= self.code_tool and any(evidence.probability >= _STRONG for evidence in concepts)
            found += concepts
        for evidence in found:
            self.rejected -= {evidence.package} if evidence.proposer == "seen" else set()
            if evidence.package not in self.rejected:
                self.add(
                    Evidence(
                        evidence.package, scale * evidence.probability, evidence.proposer, evidence.kind, evidence.version
                    )
                )
        scanner = ImportScanner("prose")
        for line in scanner.feed(text) + scanner.close():
            self._keep(line, scale * seen.FENCE_PROBABILITY)
        return names_library

    def _with_model(self, text: str, concepts: list[Evidence], replaced: set[str], names_library: bool) -> list[Evidence]:
        """``concepts`` and what the trained model adds to them, where both it and the words say that code is to come."""
        if needs.probability(text, names_library) < needs.THRESHOLD:
            return concepts
        by_package = {evidence.package: evidence for evidence in concepts}
        for package, probability in model.likely(text).items():
            known = by_package.get(package)
            if package in replaced or (known and known.probability >= WANTED):
                continue
            surest = max(probability, known.probability if known else 0.0)
            by_package[package] = Evidence(package, surest, "learned", "model")
        return list(by_package.values())

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


def _excerpt(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
