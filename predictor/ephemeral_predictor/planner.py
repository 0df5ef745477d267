"""From belief to plan. No I/O."""

from __future__ import annotations

from ephemeral import names
from ephemeral.wire import Plan, Proposer, Want
from ephemeral_predictor import model, needs
from ephemeral_predictor.evidence import WANTED, Evidence
from ephemeral_predictor.state import Belief

_GUESSES = 6  # packages beside those that the code itself names
_MOST = 64  # of wants and of modules: the wire's bound
_SURE = 0.6  # an import this probable needs no other sign that code will run
_BARE = 0.5  # with a tool at hand, code that needs no package is worth a bare sandbox from here


def plan_for(belief: Belief, at: float, before: Plan | None = None) -> Plan | None:
    """The plan that ``belief`` asks for, at Unix time ``at``; None when nothing is to be built.

    ``before`` is the session's plan so far: the proposer is who brought what is new.
    """
    certain = any(e.kind in _CERTAIN and e.probability > _SURE for e in belief.evidence.values())
    if belief.quiet or (belief.needs_code < needs.THRESHOLD and not certain):
        return None
    chosen = _chosen(belief)
    stands = before is not None and before.action not in ("nothing", "release")
    bare = belief.code_begun or (belief.code_tool and belief.needs_code >= _BARE)
    if not (chosen or stands or bare):
        return None
    wants = [
        Want(package=e.package, version=e.version, probability=e.probability, proposer=e.proposer, evidence=e.kind)
        for e in chosen
    ]
    modules = _modules(belief, chosen)
    return Plan(
        session=belief.session,
        proposer=_proposer(belief, wants, before),
        wants=wants,
        modules=modules,
        memory_bytes=belief.memory_bytes,
        cpus=belief.cpus,
        needs_code=belief.needs_code,
        app=belief.app,
        at=at,
    )


def is_material(plan: Plan, before: Plan | None) -> bool:
    """Whether ``plan`` asks for anything that ``before`` did not, or no longer asks for something it did."""
    return before is None or _essence(plan) != _essence(before)


_CERTAIN = ("import", "pip install")


def _essence(plan: Plan) -> tuple[object, ...]:
    wants = frozenset((want.package, want.version) for want in plan.wants)
    return plan.action, wants, frozenset(plan.modules), plan.memory_bytes, plan.cpus


def _chosen(belief: Belief) -> list[Evidence]:
    """The evidence that is strong enough, the strongest first."""
    strong = sorted(
        (e for e in belief.evidence.values() if e.probability >= _wanted(e) and e.package not in belief.rejected),
        key=lambda e: (-e.probability, e.package),
    )
    certain = [e for e in strong if e.kind in _CERTAIN or e.kind == "k2"]
    guesses = [e for e in strong if e not in certain][:_GUESSES]
    return (certain + guesses)[:_MOST]


def _wanted(evidence: Evidence) -> float:
    # The trained model speaks only where it is sure that something is needed; what, it knows less surely.
    return model.LEAST if evidence.kind == "model" else WANTED


def _modules(belief: Belief, chosen: list[Evidence]) -> list[str]:
    """What to import ahead: the modules that the code names, else what is usually imported of a package."""
    modules: dict[str, None] = {}
    for evidence in chosen:
        if evidence.probability < WANTED:  # to be there is cheap; an import under way when the code comes is not
            continue
        for module in belief.modules.get(evidence.package) or names.modules_for(evidence.package):
            modules[module] = None
    return list(modules)[:_MOST]


def _proposer(belief: Belief, wants: list[Want], before: Plan | None) -> Proposer:
    known = {want.package for want in before.wants} if before else set()
    new = [want for want in wants if want.package not in known]
    if new:
        return max(new, key=lambda want: want.probability).proposer
    return "seen" if belief.code_begun or before else "learned"
