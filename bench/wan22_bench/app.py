"""`wan22 bench`: one command a benchmark; what each needs is imported only when it runs."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Measure, beside the peers, what the documentation claims.")


_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.callback()
def bench() -> None:
    """Keeps the group a group while it has one command."""


@app.command(context_settings=_PASS_ON)
def engine(context: typer.Context) -> None:
    """Times forwards at full size on a CUDA device, beside diffusers; `--help` tells the options."""
    from wan22_bench.engine.command import main  # noqa: PLC0415  # imports torch

    main(context.args)


@app.command(context_settings=_PASS_ON)
def registry(context: typer.Context) -> None:
    """Measures how small weights are kept and how fast they load; `--help` tells the options."""
    from wan22_bench.registry.command import main  # noqa: PLC0415  # imports torch

    main(context.args)


@app.command(context_settings=_PASS_ON)
def scaling(context: typer.Context) -> None:
    """Plays traces to the operator's scaling, HPA, KEDA and Knative, each tuned; `--help` tells the options."""
    from wan22_bench.scaling.command import main  # noqa: PLC0415  # imports matplotlib

    main(context.args)


@app.command(context_settings=_PASS_ON)
def gateway(context: typer.Context) -> None:
    """Measures the gateway's throughput beside a bare server's; `--help` tells the options."""
    from wan22_bench.gateway.command import main  # noqa: PLC0415  # imports the gateway

    main(context.args)


@app.command(context_settings=_PASS_ON)
def faults(context: typer.Context) -> None:
    """Kills, pauses and cuts off processes under load, and looks at what became of the work; `--help` tells more."""
    from wan22_bench.faults.command import main  # noqa: PLC0415  # imports the gateway

    main(context.args)


@app.command(context_settings=_PASS_ON)
def quality(context: typer.Context) -> None:
    """Has a judge read back what the tiny models make of prompts, by variant and option; `--help` tells the options."""
    from wan22_bench.quality.command import main  # noqa: PLC0415  # imports torch

    main(context.args)
