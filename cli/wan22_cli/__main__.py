"""The `wan22` command: puts its parts together."""

from __future__ import annotations

import os

import typer

from wan22.settings import Settings, unknown_variables
from wan22_bench.app import app as bench
from wan22_cli import admin, failures, generations, models, webhooks
from wan22_cli.doctor import doctor
from wan22_cli.generate import generate
from wan22_cli.replay import replay
from wan22_cli.terminal import note
from wan22_cli.top import top
from wan22_cli.up import up
from wan22_cli.usage import usage
from wan22_cli.variants import variants

app = typer.Typer(
    name="wan22",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="WAN2.2 video generation: a queue, GPU workers, a model registry.",
)
app.command()(up)
app.command()(generate)
app.command()(replay)
app.command()(variants)
app.command()(usage)
app.command()(top)
app.command()(doctor)
app.add_typer(generations.app, name="generations")
app.add_typer(models.app, name="models")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(admin.app, name="admin")
app.add_typer(bench, name="bench")


@app.callback()
def check_environment() -> None:
    """Ends the command when a WAN22_ variable is misspelt."""
    problems = unknown_variables(os.environ, Settings)
    for problem in problems:
        note(f"Error: {problem}")
    if problems:
        raise typer.Exit(failures.BAD_USAGE)


def main() -> None:
    """Runs the command of this process."""
    app()


if __name__ == "__main__":
    main()
