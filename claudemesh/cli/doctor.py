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
    """Check this host for common faults. The exit code is 69 when a check has failed.

    Files, settings, disk, daemon, link, clock and broker are checked. Nothing is changed, and the daemon need
    not run.

    \b
    Examples:
      claudemesh doctor
      claudemesh doctor --json | jq '.items[] | select(.state != "ok")'
    """
    findings = examine(mesh)
    if as_json:
        output.print_items([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            output.say(f"{_MARKS[finding.state]}  {finding.check}: {output.safe(finding.detail)}")
            if finding.remedy:
                output.say(f"         {output.safe(finding.remedy)}")
    return UNAVAILABLE if any(finding.state == "failed" for finding in findings) else 0
