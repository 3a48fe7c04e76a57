"""`claudemesh doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from claudemesh.cli import output
from claudemesh.cli.diagnosis import examine
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.runtime.exits import UNAVAILABLE

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@click.command()
@mesh_option
@json_option
def doctor(mesh: str | None, as_json: bool) -> int:
    """Look at everything that commonly goes wrong; exit 69 when something has failed.

    It changes nothing and needs no running daemon.
    """
    findings = examine(mesh)
    if as_json:
        output.print_json({"items": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            output.say(f"{_MARKS[finding.state]}  {finding.check}: {output.safe(finding.detail)}")
            if finding.remedy:
                output.say(f"         {output.safe(finding.remedy)}")
    return UNAVAILABLE if any(finding.state == "failed" for finding in findings) else 0
