"""The commands and their options. Each imports what it needs when it is called: `ephemeral --help` answers at once."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ephemeral_cli.certs.commands import app as certs
from ephemeral_cli.host.commands import app as host
from ephemeral_cli.rootfs.commands import app as rootfs
from ephemeral_cli.tokens import app as token

app = typer.Typer(
    name="ephemeral", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="""Reads the conversation with a language model as it streams, and has a gVisor sandbox ready, packages imported,
before the code exists.

Begin with [bold]ephemeral setup[/] (once), then [bold]ephemeral up[/], and in your program's shell:
[bold]export OPENAI_BASE_URL=http://127.0.0.1:8787/v1[/]. Something amiss? [bold]ephemeral doctor[/].

Every setting is a variable EPHEMERAL_…; [bold]ephemeral settings[/] lists them.""",
)
app.add_typer(rootfs, name="rootfs")
app.add_typer(host, name="host")
app.add_typer(token, name="token")
app.add_typer(certs, name="certs")
bench = typer.Typer(no_args_is_help=True, help="Measure this machine.")
app.add_typer(bench, name="bench")


class PolicyName(StrEnum):
    ours = "ours"
    none = "none"
    base = "base"
    fat_snapshot = "fat-snapshot"
    ours_k2 = "ours+k2"
    all = "all"


TokensPerSecond = Annotated[float, typer.Option(min=0.1, help="Pace of the replayed provider.")]
Ttft = Annotated[float, typer.Option(min=0, help="Seconds until its first token.")]


@app.command()
def setup(
    check: Annotated[bool, typer.Option("--check", help="Only say what is missing (exit 1 when something is).")] = False,
    no_base: Annotated[bool, typer.Option("--no-base", help="Only runsc and the root filesystem.")] = False,
) -> None:
    """Make this machine ready: runsc, the sandboxes' root filesystem, the base environment. Quick when it is."""
    from ephemeral import settings
    from ephemeral_cli.errors import CommandError
    from ephemeral_cli.progress import Reporter
    from ephemeral_cli.setup import command

    if check:
        left = command.check(settings.get("store"))
        if left:
            raise CommandError("; ".join(left), "ephemeral setup")
        typer.echo("runsc and the root filesystem are set up")
        return
    command.run(Reporter(), with_base=not no_base)


@app.command()
def delegate(user: Annotated[str, typer.Argument(help="Name or number of the user who will run sandboxd.")]) -> None:
    """As root, once after each boot: let a user run sandboxd without being root."""
    from ephemeral_cli import delegate as room

    typer.echo(f"{user} may now run sandboxes in the control group {room.run(user)}")


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON, on standard output.")] = False) -> None:
    """Say what is there, what is missing, and what to type. Exit 0 when the machine is usable, else 1."""
    from rich.console import Console

    from ephemeral_cli import doctor as room

    findings = room.examine()
    if as_json:
        typer.echo(json.dumps(room.as_json(findings), indent=1))
    else:
        room.show(findings, Console())
    raise typer.Exit(0 if room.usable(findings) else 1)


@app.command()
def up(
    no_proxy: Annotated[bool, typer.Option("--no-proxy", help="Without the proxy (for programs that use ephemeral.wrap).")] = False,
    no_mcp: Annotated[bool, typer.Option("--no-mcp", help="Without the MCP server over HTTP.")] = False,
    no_predictor: Annotated[bool, typer.Option("--no-predictor", help="Without prediction: code runs, nothing is prepared.")] = False,
) -> None:
    """Start the proxy, predictor, sandboxd (with the dashboard) and MCP server, and keep them running until Ctrl-C."""
    from rich.console import Console

    from ephemeral_cli import up as room

    chosen = {"proxy": no_proxy, "mcp": no_mcp, "predictor": no_predictor}
    room.run([name for name, left_out in chosen.items() if left_out], Console(), Console(stderr=True))


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str] | None, typer.Argument(metavar="COMMAND …", help="The program and its arguments, best after --")] = None,
    intercept: Annotated[bool, typer.Option("--intercept", help="For a program that knows no base URL: over HTTPS_PROXY (see ephemeral certs).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the variables that it would get.")] = False,
) -> None:
    """Run a program so that it talks to OpenAI, Anthropic, Gemini and Ollama through the proxy; nothing else changes: ephemeral run -- python app.py"""
    import os

    from ephemeral_cli import run as room
    from ephemeral_cli.certs import variables
    from ephemeral_cli.errors import CommandError

    if not (command or dry_run):
        raise CommandError("there is no command to run", "ephemeral run -- python app.py", 2)
    found = room.prepare(intercept=intercept, dry_run=dry_run)
    if dry_run:
        typer.echo(variables.shown(found))
        return
    room.become(command or [], os.environ | found)


@app.command()
def demo(
    tokens_per_second: TokensPerSecond = 60,
    ttft: Ttft = 1,
    skip_rivals: Annotated[bool, typer.Option("--skip-rivals", help="Do not measure what the code costs without us.")] = False,
    all_rivals: Annotated[bool, typer.Option("--all-rivals", help="Measure all of that again, however long it takes.")] = False,
    parallel: Annotated[int, typer.Option(min=1, max=16, help="Conversations at once.")] = 1,
    model: Annotated[str, typer.Option(help="Model asked when OPENAI_API_KEY is set; else answers are replayed.")] = "gpt-5-mini",
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("build/demo.json"),
) -> None:
    """Hold a dozen conversations through the proxy and run their code: what stood ready, what was waited for, and what
    the same code costs without us."""
    from ephemeral_cli.demo import command as room

    room.run(room.Choices(
        tokens_per_second=tokens_per_second, ttft=ttft, skip_rivals=skip_rivals, all_rivals=all_rivals, parallel=parallel,
        model=model, output=output,
    ))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Recorded tasks, one JSON object a line (may be gzipped): id, messages, code, packages.")],
    tokens_per_second: TokensPerSecond = 60,
    ttft: Ttft = 1,
    limit: Annotated[int, typer.Option(min=0, help="At most so many tasks, drawn with --seed. 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Draws the same tasks in the same order again.")] = 0,
    policy: Annotated[list[PolicyName] | None, typer.Option(help="ours (default), ours+k2, or a rival: none (cold), base (base environment), fat-snapshot. Several, or all: side by side.")] = None,
    k2_url: Annotated[str, typer.Option(metavar="URL", help="The K2 of ours+k2: any compatible server. Default: the one of the settings EPHEMERAL_K2_….")] = "",
    warm: Annotated[bool, typer.Option("--warm", help="Use this machine's own state instead of an empty one.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on standard output.")] = False,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Conversations at once.")] = 1,
) -> None:
    """Run recorded tasks through the whole path and print the distribution of waits, tiers and lead times; with several
    policies, of each of them, and who is better at what."""
    from ephemeral_cli.replay import command as room

    room.run(room.Choices(
        file=file, tokens_per_second=tokens_per_second, ttft=ttft, limit=limit, seed=seed, policies=tuple(each.value for each in policy or ()),
        warm=warm, as_json=as_json, parallel=parallel, k2_url=k2_url,
    ))


@app.command()
def prune(
    older_than: Annotated[str | None, typer.Option(metavar="AGE", help="Forget what ended longer ago: 7d, 12h, 2w. Default: EPHEMERAL_RETENTION_DAYS.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be forgotten.")] = False,
    vacuum: Annotated[bool, typer.Option("--vacuum", help="Rewrite the whole database afterwards, as small as it gets.")] = False,
) -> None:
    """Forget sessions that ended long ago. sandboxd does the same once an hour; sessions that are active stay."""
    from ephemeral_cli import prune as room

    room.run(room.Choices(room.days(older_than) if older_than is not None else None, dry_run, vacuum), typer.echo)


@app.command()
def explain(
    session: Annotated[str | None, typer.Argument(metavar="SESSION", help="Its id, or a beginning that no other has.")] = None,
    last: Annotated[bool, typer.Option("--last", help="The session that began last.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on standard output.")] = False,
) -> None:
    """Show every decision of a session: the evidence, the plans and what they cost, the executions, and what came of it."""
    from rich.console import Console

    from ephemeral import Client, settings
    from ephemeral_cli.errors import CommandError
    from ephemeral_cli.explain import fetching, showing, story

    if (session is None) != last:
        raise CommandError("one session is explained at a time", "ephemeral explain SESSION, or ephemeral explain --last", 2)
    with Client() as client:
        told = story.tell(fetching.fetch(client, session, settings.predictor_socket()))
    if as_json:
        typer.echo(json.dumps(told, indent=1))
    else:
        showing.show(told, Console())


@app.command()
def train(
    files: Annotated[list[Path], typer.Argument(metavar="FILE …", help="Tasks: predictor/training/*.tsv, or one JSON object a line (messages, packages, license).")],
    output: Annotated[Path | None, typer.Option(help="Where the model goes. Default: the one that the predictor uses.")] = None,
) -> None:
    """Make the predictor's model anew. Start `ephemeral up` again to use it."""
    from ephemeral_cli import train as room

    typer.echo(room.run(files, output))


@app.command()
def forget(
    name: Annotated[str | None, typer.Argument(metavar="APP", help="The app, by the name that its sessions bear. Those without a name: ''")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every app.")] = False,
) -> None:
    """Forget what an app's sessions taught: which packages they import, and what memory that took."""
    from ephemeral_cli import forget as room
    from ephemeral_cli.errors import CommandError

    if (name is None) != everything:
        raise CommandError("it must be said what to forget", "ephemeral forget APP, or ephemeral forget --all", 2)
    typer.echo(room.run(name))


@bench.command("sandbox")
def bench_sandbox(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on standard output.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few samples of everything.")] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this figure (or all that begin so, as restore_ms); may be repeated.")] = None,
    no_peers: Annotated[bool, typer.Option("--no-peers", help="Not the same work by Docker, pip, uv and llm-sandbox.")] = False,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("build/bench-sandbox.json"),
) -> None:
    """Measure sandboxes: executions, restores, boots, memory, bursts; and the same work by what people use today."""
    from ephemeral_cli.bench import command as room

    room.run(room.SANDBOX, room.Choices(as_json=as_json, quick=quick, only=only or [], no_peers=no_peers, output=output))


@bench.command("proxy")
def bench_proxy(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on standard output.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few samples of everything.")] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this target, or this measure of it (as ephemeral.rps32); may be repeated.")] = None,
    no_peers: Annotated[bool, typer.Option("--no-peers", help="Not the same load through mitmdump and LiteLLM's proxy.")] = False,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("build/bench-proxy.json"),
) -> None:
    """Measure the proxy: what it adds to a stream, throughput, memory, every byte compared; and the same through mitmdump and LiteLLM."""
    from ephemeral_cli.bench import command as room

    room.run(room.PROXY, room.Choices(as_json=as_json, quick=quick, only=only or [], no_peers=no_peers, output=output))


@bench.command("predictor")
def bench_predictor(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.jsonl[.gz] …", help="Tasks, one JSON object a line: id, messages, packages, perhaps code.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on standard output.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most so many tasks of each file, drawn with --seed. 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Draws the same tasks again.")] = 0,
    no_k2: Annotated[bool, typer.Option("--no-k2", help="Leave K2 alone, also where EPHEMERAL_K2_API_KEY is set.")] = False,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("build/bench-predictor.json"),
) -> None:
    """Measure the predictor on tasks whose packages are known: before any code is written, and while it streams."""
    from ephemeral_cli.bench import command as room

    arguments = [f"--limit={limit}", f"--seed={seed}", *(["--no-k2"] if no_k2 else []), "--", *map(str, files)]
    room.run(room.PREDICTOR, room.Choices(as_json=as_json, output=output, arguments=arguments))


@app.command()
def settings() -> None:
    """List every setting with its value now, its variable and what it does."""
    from rich.console import Console

    from ephemeral_cli import listing

    Console(soft_wrap=True).print(listing.table())
