"""`wan22 bench`: one command a benchmark; what each needs is imported only when it runs."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Measure, beside the peers, what the documentation claims.")


@app.callback()
def bench() -> None:
    """Keeps the group a group while it has one command."""
