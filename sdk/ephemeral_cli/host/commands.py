"""``ephemeral host``: the commands and their options. Each imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="""A server that runs sandboxd, and the machines that use it from afar.

On the server: [bold]init[/] (or [bold]cloud-init[/] for its first boot), then [bold]invite NAME[/]. On the other machine:
[bold]join NAME.invite[/] and [bold]export EPHEMERAL_HOST=https://…[/].""")

Names = Annotated[list[str] | None, typer.Option("--name", metavar="NAME", help="A host name that the server is reached by. May be repeated.")]
Addresses = Annotated[list[str] | None, typer.Option("--address", metavar="IP", help="An address that it is reached by. May be repeated.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port for other machines.")]
AllowFrom = Annotated[list[str] | None, typer.Option("--allow-from", metavar="NETWORK", help="Only these may reach the port. May be repeated.")]
Package = Annotated[str, typer.Option("--package", help="What to install: a requirement, a wheel, a URL. Default: this version.")]
NoFirewall = Annotated[bool, typer.Option("--no-firewall", help="Leave the firewall alone.")]
CloudInit = Annotated[bool, typer.Option("--print-cloud-init", help="Print a cloud-init file that does the same at first boot, and do nothing.")]
Invited = Annotated[str, typer.Argument(metavar="NAME", help="What to call the other machine, for example laptop.")]


@app.command()
def init(
    name: Names = None, address: Addresses = None, port: Port = 8790, allow_from: AllowFrom = None, package: Package = "",
    client: Annotated[str, typer.Option("--client", metavar="NAME", help="Invite this machine at the end, where it was not yet.")] = "",
    no_firewall: NoFirewall = False, print_cloud_init: CloudInit = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every file and command, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make a server of this machine, a fresh Debian 12, 13 or Ubuntu 22.04, 24.04: package, units, firewall, certificates. May be repeated."""
    from ephemeral_cli.host import files, preparing
    from ephemeral_cli.host.certifying import own_addresses

    if print_cloud_init:
        cloud_init(name, address, port, allow_from, package, no_firewall)
        return
    names = [*(name or []), *(address or (own_addresses() if name else []))]
    choices = preparing.Choices(tuple(names), port, files.networks(allow_from or []), package or _this_version(), client, not no_firewall)
    if not dry_run:
        preparing.check_machine()
    steps = preparing.plan(choices)
    for step in steps:
        typer.echo(f"- {step.what}")
        if dry_run and step.shown:
            typer.echo("".join(f"    {line}".rstrip() + "\n" for line in step.shown.splitlines()))
    if dry_run:
        return
    if not yes:
        typer.confirm("Do this?", abort=True)
    for number, step in enumerate(steps, 1):
        typer.echo(f"[{number}/{len(steps)}] {step.what}: ", nl=False)
        typer.echo(step.do())
    typer.echo("\nsandboxd runs. Let another machine in with: ephemeral host invite NAME")


@app.command("cloud-init")
def cloud_init(
    name: Names = None, address: Addresses = None, port: Port = 8790, allow_from: AllowFrom = None, package: Package = "",
    no_firewall: NoFirewall = False,
    shell: Annotated[bool, typer.Option("--shell", help="A shell script instead, for a server that runs already: … | ssh root@SERVER sh")] = False,
) -> None:
    """Print a cloud-init file (user data) that does all of `init` at a server's first boot. There is no secret in it."""
    from ephemeral_cli.host import files

    pairs = [("--name", name or []), ("--address", address or []), ("--allow-from", files.networks(allow_from or []))]
    arguments = [word for option, values in pairs for value in values for word in (option, value)]
    arguments += ["--port", str(port), *(["--no-firewall"] if no_firewall else [])]
    make = files.shell if shell else files.cloud_init
    typer.echo(make(package or _this_version(), arguments), nl=False)


@app.command()
def certify(
    name: Names = None, address: Addresses = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port that invitations name. Default: 8790.")] = None,
) -> None:
    """Make this host's authority and certificate, or renew the certificate when it is due. sandboxd takes it without a restart."""
    from ephemeral import settings
    from ephemeral_cli.host import certifying

    known, done = certifying.certify(settings.get("state"), [*(name or []), *(address or [])], port)
    for sentence in done:
        typer.echo(sentence)
    typer.echo(f"{known.address}: names {', '.join(known.names)}; {known.days_left:.0f} days left")


@app.command()
def invite(
    name: Invited,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the invitation goes; - is standard output. Default: NAME.invite.")] = None,
    address: Annotated[str, typer.Option(metavar="URL", help="How that machine reaches this one. Default: the certificate's first name.")] = "",
    days: Annotated[float, typer.Option(min=0.01, max=3650, help="How long its certificate and token are valid.")] = 90,
    within: Annotated[str, typer.Option(metavar="TIME", help="How long the invitation is good for: 30m, 1h, 7d.")] = "1h",
) -> None:
    """Let another machine in: one file for it, and the code that opens the file. The same name again: a new certificate and token."""
    from ephemeral import settings
    from ephemeral_certs import files
    from ephemeral_cli.host import inviting
    from ephemeral_cli.tokens import seconds

    content, code = inviting.invite(settings.get("state"), name, address=address, days=days, within_seconds=seconds(within, "--within"))
    if output == Path("-"):
        typer.echo(content, nl=False)
    else:
        path = output or Path(f"{name}.invite")
        files.write(path.absolute(), content)
        typer.echo(f"The invitation is {path}, good for {within}. There: ephemeral host join {path.name}", err=True)
    typer.echo(f"The code, shown this once: {code}", err=True)


@app.command()
def revoke(
    name: Invited,
    but_newest: Annotated[bool, typer.Option("--but-newest", help="Only the certificates before its newest one.")] = False,
) -> None:
    """Void what another machine comes in with, at once: certificates and tokens of that name."""
    from ephemeral import settings
    from ephemeral_cli.host import inviting

    typer.echo(inviting.revoke(settings.get("state"), name, but_newest=but_newest))


@app.command()
def join(
    invitation: Annotated[Path, typer.Argument(help="The file that `ephemeral host invite` made.")],
    code: Annotated[str, typer.Option(help="The code that opens it. Default: asked for.")] = "",
) -> None:
    """Use a host from this machine: keep what its invitation holds, readable by you only."""
    from ephemeral import wire
    from ephemeral_cli.host import joining

    content = joining.read(invitation)
    address = joining.join(content, code or typer.prompt("Code", err=True))
    found = joining.ask(address)
    if isinstance(found, wire.Host):
        typer.echo(f"Joined {address}: sandboxd {found.version}, {found.isolation}.")
    else:
        typer.echo(f"Joined {address}, which does not answer as it should yet: {found}", err=True)
    typer.echo(f"{invitation} is of no more use: delete it.", err=True)
    typer.echo(f"export EPHEMERAL_HOST={address}")


@app.command("set-token")
def set_token(host: Annotated[str, typer.Argument(metavar="HOST", help="A host that this machine has joined.")]) -> None:
    """Use another token for a host (read from standard input), after a rotation there."""
    from ephemeral_cli.host import joining

    joining.set_token(host, typer.prompt("Token", hide_input=True, err=True).strip())
    typer.echo(f"the token for {host} is set")


@app.command()
def leave(host: Annotated[str, typer.Argument(metavar="HOST", help="A host that this machine has joined.")]) -> None:
    """Forget a host: delete its certificate, key and token here. (On the host: ephemeral host revoke NAME.)"""
    from ephemeral_cli.host import joining

    typer.echo(f"{joining.leave(host)} is deleted")


@app.command()
def status() -> None:
    """Say what there is and when it expires: this host's certificates and tokens, and the hosts that this machine has joined."""
    from ephemeral import settings
    from ephemeral_cli.host import status as room

    for line in room.lines(settings.get("state")):
        typer.echo(line)


def _this_version() -> str:
    from importlib.metadata import version

    return f"ephemeral-sidecar[sandboxd,cli]=={version('ephemeral-sidecar')}"
