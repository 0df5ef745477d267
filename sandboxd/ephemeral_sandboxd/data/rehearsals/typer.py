import typer
from typer.testing import CliRunner

application = typer.Typer()


@application.command()
def command(a: int = 1):
    typer.echo(a)


CliRunner().invoke(application, ["--a", "2"])
CliRunner().invoke(application, ["--help"])
