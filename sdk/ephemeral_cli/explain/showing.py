"""The story of a session as a person reads it: a sentence, the timeline, the packages, the outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

Entry = Mapping[str, Any]

_NAMES = 6  # of one entry; the rest is counted
_GOOD, _MIDDLING, _BAD = "green", "yellow", "red"
_STYLE = {
    "hit": _GOOD, "partial": _MIDDLING, "miss": _BAD, "wasted": _BAD, "none needed": "", "nothing": _GOOD, "open": "", "refused": _BAD,
    "used": _GOOD, "unused": _MIDDLING, "missed": _BAD,
}
_VERDICT = {
    "hit": "hit: a plan held everything that the code imported",
    "partial": "partial: the plans held some of what the code imported",
    "miss": "miss: no plan held anything that the code imported",
    "none needed": "the code needed no package",
    "wasted": "wasted: something was built, and no code came",
    "nothing": "no code came, and nothing was built for it",
    "refused": "refused: the code did not run",
    "open": "still open: no code has run so far",
}
_CONVERSATION = {
    "turn_started": "request to the model", "user_turn": "the user speaks", "tool_declared": "tools offered", "assistant_text": "the model answers",
    "reasoning_text": "the model thinks", "tool_call_started": "a tool call begins", "code": "code streams", "code_done": "code complete",
    "tool_result": "a tool's result", "turn_ended": "answer over",
}


def show(story: Entry, console: Console) -> None:
    """All of it, to ``console``."""
    console.print(_clean(_headline(story["session"], story["outcome"]["executions"])), soft_wrap=True)
    if story["belief_missing"]:
        console.print(_clean(f"({story['belief_missing']})", "dim"), soft_wrap=True)
    if story["timeline"]:
        console.print(timeline(story))
    if story["packages"]:
        console.print(packages(story))
    for line, style in remarks(story):
        console.print(_clean(line, style), soft_wrap=True)


def timeline(story: Entry) -> Table:
    """One row for each event, plan with its cost, step of work, and execution."""
    table = _table("after", "who", "what", "ms")
    table.columns[0].justify = table.columns[3].justify = "right"
    plans = {plan["id"]: plan for plan in story["plans"]}
    executions = {execution["id"]: execution for execution in story["executions"]}
    for entry in story["timeline"]:
        after = _after(entry["after_ms"])
        if entry["kind"] == "plan":
            plan = plans[entry["plan"]]
            table.add_row(after, _clean(plan["proposer"], "bold"), _clean("\n".join(_plan(plan))), _number(plan["built_ms"] or None))
        elif entry["kind"] == "execution":
            execution = executions[entry["execution"]]
            table.add_row(after, _clean("code", "bold"), _clean("\n".join(_execution(execution)), _STYLE.get(execution["foretold"], "")), _number(execution["wait_ms"]))
        elif entry["kind"] in _CONVERSATION:
            table.add_row(after, _clean("conversation", "dim"), _clean(_words(entry), "dim"), "")
        elif "k2" in entry:
            table.add_row(after, _clean("k2", "bold"), _clean(_of_k2(entry)), _number(entry["ms"] or None))
        else:
            table.add_row(after, "sandboxd", _clean(_step(entry)), _number(entry["ms"] or None))
    return table


def packages(story: Entry) -> Table:
    """The evidence: what spoke for each package, how strongly, what importing it ahead was to save and cost, and what became of it."""
    weighed = any(sign["decision"] for row in story["packages"] for sign in row["evidence"])
    costs = ("decision", "saves ms", "costs ms") if weighed else ()
    table = _table("package", "first wanted", "evidence", "proposer", "probability", *costs, "became")
    for row in story["packages"]:
        signs: Sequence[Entry] = row["evidence"]
        cells = [
            "\n".join(sign["kind"] or "-" for sign in signs), "\n".join(sign["proposer"] for sign in signs), "\n".join(f"{sign['probability']:.2f}" for sign in signs),
        ]  # fmt: skip
        if weighed:
            cells += ["\n".join(sign["decision"] or "-" for sign in signs), *("\n".join(_number(sign[name]) for sign in signs) for name in ("saves_ms", "costs_ms"))]
        table.add_row(
            _clean(row["package"]), _after(row["after_ms"]) if signs else "-", *(_clean(cell or "-") for cell in cells), _clean(_fate(row), _STYLE.get(row["fate"], "")),
        )  # fmt: skip
    return table


def remarks(story: Entry) -> Iterator[tuple[str, str]]:
    """What is said below the tables: (line, style)."""
    belief = story["belief"]
    if belief is not None:
        wanted = {row["package"] for row in story["packages"] if row["wanted_last"]}
        rest = [sign for sign in belief["evidence"] if sign.get("package") not in wanted]
        signs = ", ".join(f"{sign.get('package')} {sign.get('probability')} ({sign.get('proposer')}, {sign.get('evidence')})" for sign in rest)
        yield f"The predictor now: code will come with probability {belief.get('needs_code')}; believed, and not in the latest plan: {signs or 'nothing'}.", ""
    outcome = story["outcome"]
    yield f"Outcome: {_VERDICT[outcome['verdict']]}.", _STYLE[outcome["verdict"]]
    wasted = f", {outcome['wasted']} wasted" if outcome["wasted"] is not None else ""
    peak = f"; at most {_size(outcome['peak_memory_bytes'])} while code ran" if outcome["peak_memory_bytes"] else ""
    yield (f"Cost: {outcome['builds']} builds{wasted}, {_number(outcome['built_ms'])} ms of work ahead of the code, "
           f"{outcome['memory_gib_seconds']:g} GiB-seconds of memory{peak}."), ""


# ------------------------------------------------------------------------------------------------------------- sentences


def _headline(session: Entry, executions: int) -> str:
    app = f" of {session['app']}" if session["app"] else ""
    policy = f", policy {session['policy']}" if session["policy"] != "ours" else ""
    return f"Session {session['id']}{app}: {session['state']}{policy}, {executions} executions"


def _plan(plan: Entry) -> Iterator[str]:
    wants = ", ".join(f"{want['package']}{'==' + want['version'] if want['version'] else ''} {want['probability']:.2f}" for want in plan["wants"])
    size = "".join((f", {_size(plan['memory_bytes'])}" if plan["memory_bytes"] else "", f", {plan['cpus']:g} CPUs" if plan["cpus"] else ""))
    ready = f" after {_number(plan['ready_after_ms'])} ms" if plan["ready_after_ms"] is not None else ""
    yield f"plan {plan['id']} {plan['action']}: {wants or 'no package'}{size}; code expected with {plan['needs_code']:.2f} -> {plan['outcome']}{ready}"
    if plan["saves_ms"] is not None:
        yield f"  importing ahead is to save {_number(plan['saves_ms'])} ms and to cost {_number(plan['costs_ms'])} ms"
    if plan["modules"]:
        yield f"  to import: {_some(plan['modules'])}"
    if plan["built"]:
        yield f"  built: {_built(plan['built'])}"
    for package, rule in plan["refused"].items():
        yield f"  refused {package}: {rule}"
    if plan["error"]:
        yield f"  {plan['error']}"


def _execution(execution: Entry) -> Iterator[str]:
    if execution["state"] != "done":
        yield f"execution {execution['id']}: {execution['state']}"
        return
    lead = f", lead {_number(execution['lead_ms'])} ms" if execution["lead_ms"] is not None else ""
    waited = f", waited {_number(execution['wait_ms'])} ms, ran {_number(execution['run_ms'])} ms" if execution["wait_ms"] is not None else ""
    yield f"execution {execution['id']}: {execution['foretold']}, tier {execution['tier'] or '-'}{waited}{lead}, {execution['verdict']}"
    yield f"  imported: {_some(execution['needed'])}"
    if execution["missing"]:
        yield f"  was not there: {_some(execution['missing'])}"
    if execution["built"]:
        yield f"  while it waited or ran: {_built(execution['built'])}"
    if execution["peak_memory_bytes"]:
        yield f"  at most {_size(execution['peak_memory_bytes'])}"
    yield from (f"  {execution[name]}" for name in ("error", "notice") if execution[name])


def _words(entry: Entry) -> str:
    names = f": {_some(entry['names'])}" if entry["names"] else ""
    characters = f", {entry['characters']:,} characters" if entry["characters"] else ""
    return f"{_CONVERSATION[entry['kind']]}{names}{characters}"


def _step(entry: Entry) -> str:
    times = f" ×{entry['n']}" if entry["n"] > 1 else ""
    failed = f" ({entry['failed']} failed)" if entry["failed"] else ""
    return f"{entry['kind'].replace('_', ' ')}{times}{failed}: {_some(entry['names'])}" if entry["names"] else f"{entry['kind'].replace('_', ' ')}{times}{failed}"


def _of_k2(entry: Entry) -> str:
    facts = ", ".join(f"{name.replace('_', ' ')} {_some([str(one) for one in value]) if isinstance(value, list) else value}" for name, value in entry["k2"].items())
    return f"{'asked' if entry['kind'] == 'k2_prompt' else 'answered'}: {facts}"


def _fate(row: Entry) -> str:
    use = row["use"]
    if row["fate"] == "refused":
        return f"refused: {row['refused']}"
    if use is None:
        return "not needed so far" if row["fate"] == "open" else str(row["fate"])
    loaded = "loaded already" if use["loaded"] else "loaded while the code waited or ran"
    return f"{row['fate']} ({use['tier'] or '-'}, waited {_number(use['wait_ms'])} ms, {loaded})"


def _built(costs: Mapping[str, Entry]) -> str:
    return ", ".join(
        f"{kind}{' ×' + str(cost['n']) if cost['n'] > 1 else ''} {_number(cost['ms'])} ms{' (failed: ' + str(cost['failed']) + ')' if cost['failed'] else ''}"
        for kind, cost in costs.items()
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return (", ".join(names[:_NAMES]) or "nothing") + more


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _clean(text: str, style: str = "") -> Text:
    """Names and reasons come from elsewhere: nothing in them may steer the terminal."""
    return Text("".join(character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}" for character in text), style)


def _after(ms: float) -> str:
    return f"{ms / 1000:.3f} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _size(bytes_: int) -> str:
    return f"{bytes_ / (1 << 20):,.0f} MiB"
