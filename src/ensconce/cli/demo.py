"""``ensconce demo``: the whole story on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from ensconce.cli.output import print_json, print_table, remark, say

__all__ = ["demo"]


def demo(json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Play owner, host and client on this machine, then attack, then search what the host could see.

    Everything is real but the CPU, which is simulated. Exit status 1 when anything was not as it must be.

    Examples:

      ensconce demo

      ensconce demo --json
    """
    from ensconce.demo.story import Step, play

    def tell(step: Step) -> None:
        remark(f"{step.seconds:6.2f} s  {step.name}: {step.happened}")

    result = play(tell)
    if json:
        print_json(result.to_json_object())
    else:
        print_table(
            ["step", "what happened", "what the host could see"],
            [[step.name, step.happened, step.host_saw] for step in result.steps],
        )
        say(f"gateway: {result.gateway}; platform: SIMULATED, nothing here is protected from this machine itself")
        for failure in result.failures:
            say(f"NOT AS IT MUST BE: {failure}")
        say(f"{'all as it must be' if result.ok else 'FAILED'}, {result.seconds:.1f} s")
    if not result.ok:
        raise typer.Exit(1)
