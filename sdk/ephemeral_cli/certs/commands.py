"""``ephemeral certs``: the commands and their options. Each imports what it needs when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="""For programs that know no base URL, only HTTPS_PROXY: an authority
by which the proxy can read what they say to the configured providers, and to nobody else.

[bold]init[/] makes it; then [bold]ephemeral up[/], and [bold]ephemeral run --intercept -- COMMAND[/], or [bold]env[/] for a shell of
your own. [bold]trust[/] is for programs that read the machine's trust store only.
[bold]untrust[/] takes it out again.""")


@app.command()
def init(
    new: Annotated[bool, typer.Option("--new", help="Another key and another credential, even where the present ones would do.")] = False,
) -> None:
    """Make the authority, bound to the configured providers' hosts. May be repeated: one that fits stays."""
    from ephemeral_cli.certs import making

    for sentence in making.init(new=new):
        typer.echo(sentence)
    typer.echo("next: ephemeral up, then: ephemeral run --intercept -- COMMAND")


@app.command()
def trust() -> None:
    """As root: put the authority's certificate into this machine's own trust store (Debian, Ubuntu, Fedora, RHEL)."""
    from ephemeral_certs.interception import Interception
    from ephemeral_cli.certs import making, stores

    for sentence in stores.trust(Interception.open(making.directory()).ca):
        typer.echo(sentence)


@app.command()
def untrust() -> None:
    """As root: take it out of this machine's trust store again. May be repeated."""
    from ephemeral_cli.certs import stores

    for sentence in stores.untrust():
        typer.echo(sentence)


@app.command()
def env(as_json: Annotated[bool, typer.Option("--json", help="As JSON, on standard output.")] = False) -> None:
    """Print the variables by which a program goes over the proxy: eval "$(ephemeral certs env)"

    They hold the proxy's credential: not for a log.
    """
    from ephemeral_certs.interception import Interception
    from ephemeral_cli.certs import making, variables

    typer.echo(variables.shown(variables.intercepting(Interception.open(making.directory())), as_json=as_json))


@app.command()
def show() -> None:
    """Say what the authority may vouch for, until when, and whether this machine trusts it."""
    from ephemeral_cli.certs import making

    for sentence in making.show():
        typer.echo(sentence)
