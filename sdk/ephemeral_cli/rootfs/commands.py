"""``ephemeral rootfs``: list, add, remove. Each imports what it needs when it is called."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="""The root filesystems that sandboxes start from, by name: a Python, libraries, command-line tools.

A session names the one it wants; those that name none get the one called default.""")


@app.command("list")
def show(as_json: Annotated[bool, typer.Option("--json", help="As JSON, on standard output.")] = False) -> None:
    """List the root filesystems: name, Python, tools, size, where from."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ephemeral import settings
    from ephemeral_cli.errors import CommandError
    from ephemeral_cli.rootfs import records

    store = settings.get("store")
    found = records.everything(store)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(rootfs) for rootfs in found], indent=1))
        return
    if not found:
        raise CommandError(f"there is no root filesystem in {store}", "ephemeral setup")
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "Python", "Node", "glibc", "MiB", "tools", "from"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("name", "Python"))
    for rootfs in found:
        row = (rootfs.name, rootfs.python, rootfs.node or "", rootfs.glibc, str(rootfs.size_bytes >> 20), " ".join(rootfs.tools), rootfs.origin)
        table.add_row(*map(Text, row))
    Console().print(table)
    for name in sorted(set(records.names(store)) - {rootfs.name for rootfs in found}):
        typer.echo(f"{name}: its record or its files cannot be read; `ephemeral rootfs add {name} …` makes it anew", err=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What sessions call it, for example py313 or media.")],
    suite: Annotated[str | None, typer.Option(help="Debian's bookworm (Python 3.11, default) or trixie (Python 3.13).")] = None,
    package: Annotated[list[str] | None, typer.Option(help="Debian package to install in it, for example git, ffmpeg, build-essential, nodejs. May be repeated.")] = None,
    image: Annotated[str | None, typer.Option(help="An image of the Docker engine on this machine instead. Nothing of it is started outside a sandbox.")] = None,
    archive: Annotated[Path | None, typer.Option(help="A file instead: OCI image (archive or layout), what `docker save` writes, or a tar of a root filesystem.")] = None,
) -> None:
    """Make a root filesystem, of Debian's packages or of your own image. At once when it is there."""
    from ephemeral import settings
    from ephemeral_cli.errors import CommandError
    from ephemeral_cli.progress import Reporter
    from ephemeral_cli.rootfs import bootstrap, making

    if sum((image is not None, archive is not None, bool(suite or package))) > 1:
        raise CommandError("--image, --archive and --suite with --package exclude each other", "install packages where the image is built (Dockerfile), or use Debian's alone", exit_code=2)
    wanted = making.Wanted(suite or bootstrap.SUITE, tuple(sorted(set(package or []))), image, archive)
    report = Reporter()
    with _writing(settings.get("store")):
        made = making.add(settings.get("store"), name, wanted, report)
    report.say(f"root filesystem {made.name}: Python {made.python}, glibc {made.glibc}{f', Node {made.node}' if made.node else ''}, {made.size_bytes >> 20} MiB ({made.origin})")
    if made.tools:
        report.say(f"  tools: {' '.join(made.tools)}")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="As `ephemeral rootfs list` names it.")]) -> None:
    """Remove a root filesystem that no sandboxd uses, and the Docker engine's copy of it."""
    from ephemeral import settings
    from ephemeral_cli.progress import Reporter
    from ephemeral_cli.rootfs import removing

    report = Reporter()
    with _writing(settings.get("store")):
        removing.remove(settings.get("store"), name, report)
    report.say(f"root filesystem {name} is removed")


@contextmanager
def _writing(store: Path) -> Iterator[None]:
    """What the disk refuses becomes a sentence."""
    from ephemeral_cli.errors import CommandError

    try:
        yield
    except PermissionError as problem:
        raise CommandError(f"{problem.filename or store}: {problem.strerror}", "run it as root (sudo -E), or set EPHEMERAL_STORE to a place of yours") from None
    except OSError as problem:
        raise CommandError(f"{problem.filename or store}: {problem.strerror}", "df -h says whether the disk is full; then type it again") from None
