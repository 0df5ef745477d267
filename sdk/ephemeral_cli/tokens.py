"""``ephemeral token``: bearer tokens of a host that other machines use. Shown once, kept as hashes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="""The tokens with which other machines use this host, beside their certificates (ephemeral host invite makes both).

A token is printed once; kept is its hash. Whatever changes here holds at once, nothing has to be restarted.""")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the token is called, for example laptop.")]
Days = Annotated[float | None, typer.Option("--days", min=0.01, max=3650, help="It expires after so many days. Default: never.")]


@app.command()
def create(name: Name, days: Days = None) -> None:
    """Make a token and print it, this once."""
    from ephemeral_certs.tokens import TokenBook

    typer.echo(TokenBook(_path()).create(name, days=days))


@app.command("list")
def show() -> None:
    """List the tokens: name, when made, when last used (to the hour), whether valid."""
    from ephemeral_certs.tokens import read, used_at
    from ephemeral_cli.host.status import token_lines

    path = _path()
    for line in token_lines(read(path), used_at(path)):
        typer.echo(line)


@app.command()
def rotate(
    name: Name,
    grace: Annotated[str, typer.Option(metavar="TIME", help="How long the token before stays valid: 90s, 30m, 1h, 7d.")] = "0s",
    days: Days = None,
) -> None:
    """Make a new token for NAME and print it, this once. The one before becomes void, after the grace where one is given."""
    from ephemeral_certs.tokens import TokenBook

    typer.echo(TokenBook(_path()).rotate(name, grace_seconds=seconds(grace, "--grace"), days=days))


@app.command()
def revoke(name: Name) -> None:
    """Make every token of NAME void, at once."""
    from ephemeral_certs.tokens import TokenBook
    from ephemeral_cli.errors import CommandError

    count = TokenBook(_path()).revoke(name)
    if not count:
        raise CommandError(f"there is no valid token called {name}", "ephemeral token list")
    typer.echo(f"{count} token(s) of {name} revoked")


def seconds(text: str, option: str) -> float:
    """``90s``, ``30m``, ``1h``, ``7d``. Raises CommandError that names the ``option``."""
    from ephemeral_cli.errors import CommandError

    found = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)([smhd])", text.strip())
    if not found:
        raise CommandError(f"{option} {text!r} is no time", f"{option} 1h (or 90s, 30m, 7d)", 2)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def _path() -> Path:
    from ephemeral import settings

    return Path(settings.get("state")) / "tokens.json"
