"""From belief to plan. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ephemeral import names
from ephemeral.costs import PRIORS, Prices
from ephemeral.wire import Costs, Plan, Proposer, Want
from ephemeral_predictor import needs, policy, tasks
from ephemeral_predictor.evidence import FETCHED, LIKELY, NEEDED, WANTED, Evidence
from ephemeral_predictor.state import Belief

_NEVER = 2.0  # no probability is as high
_GUESSES = 6  # packages beside those that the code itself names
_MOST = 64  # of wants and of modules: the wire's bound
_SURE = 0.6  # an import this probable needs no other sign that code will run
_BARE = 0.5  # with a tool at hand, code that needs no package is worth a bare sandbox from here


@dataclass(frozen=True)
class Terms:
    """What a bet is reckoned with, beside what is believed of the conversation. ``costs`` are the host's, ``prices`` the operator's."""

    costs: Costs = PRIORS
    prices: Prices = field(default_factory=Prices)
    rate: float | None = None
    """The share of the app's sessions that ran code; None: unknown."""
    asks: float = 1.0
    """The probability of code that the user's latest turns leave, where code ran before."""


_TERMS = Terms()


def plan_for(belief: Belief, at: float, before: Plan | None = None, terms: Terms = _TERMS) -> Plan | None:
    """The plan that ``belief`` asks for, at Unix time ``at``; None when nothing is to be built.

    ``before`` is the session's plan so far: the proposer is who brought what is new. The size is what K2 asked for, if anything.
    """
    certain = any(e.kind in _CERTAIN and e.probability > _SURE for e in belief.evidence.values())
    said = belief.needs_code
    expected = min(said, terms.asks) if belief.code_begun else policy.needs_code(said, terms.rate)
    if belief.quiet or (expected < needs.THRESHOLD and not certain and not belief.code_begun):
        return None
    # What an app's sessions usually do is worth a sandbox, not the packages of a conversation that asks for none.
    chosen = _chosen(belief) if said >= needs.THRESHOLD or certain else []
    if said >= needs.THRESHOLD and not belief.may_need_packages:
        chosen = [e for e in chosen if e.kind in _CERTAIN and belief.code_in_turn]  # the standard library alone is wanted
    stands = stands_for(before)
    bare = belief.code_begun or (belief.code_tool and expected >= _BARE)
    if not (chosen or stands or bare):
        return None
    modules, wants = _weighed(belief, chosen, before if stands else None, terms)
    return Plan(
        session=belief.session,
        proposer=_proposer(belief, wants, before),
        wants=wants,
        modules=modules,
        memory_bytes=belief.memory_bytes,
        cpus=belief.cpus,
        needs_code=expected,
        app=belief.app,
        at=at,
    )


def stands_for(plan: Plan | None) -> bool:
    """Whether ``plan`` is one by which a sandbox stands."""
    return plan is not None and plan.action not in ("nothing", "release")


def is_material(plan: Plan, before: Plan | None) -> bool:
    """Whether ``plan`` asks for anything that ``before`` did not, or no longer asks for something it did."""
    return before is None or _essence(plan) != _essence(before)


_CERTAIN = ("import", "pip install")


def _essence(plan: Plan) -> tuple[object, ...]:
    wants = frozenset((want.package, want.version) for want in plan.wants)
    return plan.action, wants, frozenset(plan.modules), plan.memory_bytes, plan.cpus, plan.needs_code >= needs.THRESHOLD


def _chosen(belief: Belief) -> list[Evidence]:
    """The evidence that is strong enough, the strongest first. Guesses of what, only where it is likely that anything is needed."""
    strong = sorted(
        (e for e in belief.evidence.values() if e.probability >= _wanted(e, belief) and e.package not in belief.rejected),
        key=lambda e: (-e.probability, e.package),
    )
    certain = [e for e in strong if e.kind in _CERTAIN or e.kind == "k2"]
    guesses = [e for e in strong if e not in certain][:_GUESSES]
    return (certain + guesses)[:_MOST]


def _wanted(evidence: Evidence, belief: Belief) -> float:
    """How probable a package must be. One that has to be downloaded first stands before what is there already, and is mostly for nothing."""
    if evidence.kind in (*_CERTAIN, "k2", "history"):
        return WANTED
    if belief.needs_packages < NEEDED:
        return _NEVER
    return LIKELY if evidence.package in tasks.base() else FETCHED


def _weighed(belief: Belief, chosen: Sequence[Evidence], before: Plan | None, terms: Terms) -> tuple[list[str], list[Want]]:
    """What to import ahead, and what is wanted with what was decided of it.

    Of a package the modules count that the code names, else what is usually imported of it. What the plan ``before`` had imported stays so
    while it is wanted: its cost is spent.
    """
    spent = {want.package for want in before.wants if want.decision == "import"} if before else set()
    modules: dict[str, None] = {}
    wants = []
    for e in chosen:
        names_of = belief.modules.get(e.package) or names.modules_for(e.package)
        bet = policy.bet(e.probability, names_of, terms.costs, terms.prices)
        ahead = bool(names_of) and (bet.pays or e.package in spent)
        if ahead:
            modules |= dict.fromkeys(names_of)
        wants.append(
            Want(
                package=e.package, version=e.version, probability=e.probability, proposer=e.proposer, evidence=e.kind,
                decision="import" if ahead else "available", saves_ms=round(bet.saves_ms, 1), costs_ms=round(bet.costs_ms, 1),
            )
        )  # fmt: skip
    return list(modules)[:_MOST], wants


def _proposer(belief: Belief, wants: list[Want], before: Plan | None) -> Proposer:
    known = {want.package for want in before.wants} if before else set()
    new = [want for want in wants if want.package not in known]
    if new:
        return max(new, key=lambda want: want.probability).proposer
    return "seen" if belief.code_begun or before else "learned"
