"""`claudemesh doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.confirming import no_terminal
from claudemesh.cli.diagnosis.examine import Examination, examine
from claudemesh.cli.diagnosis.findings import Finding
from claudemesh.cli.diagnosis.repairs import Repair, apply, plan
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import ClientError
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import UNAVAILABLE

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}
# The width of a mark and the gap after it.
_INDENT = 9


@click.command()
@click.option("--fix", is_flag=True, help="Mend what is safe to mend, after asking.")
@click.option("--yes", is_flag=True, help="With --fix: mend without asking.")
@mesh_option
@json_option
@answers.exits({69: "A check has failed."})
@answers.beside_items(repairs="array*")
@answers.items(
    check="string", state="string", detail="string", code="string", remedy="string", next="string?"
)
def doctor(fix: bool, yes: bool, mesh: str | None, as_json: bool) -> int:
    """Check this host for common faults. The exit code is 69 when a check has failed.

    Files, settings, disk, hooks, daemon, link, clock, queue, broker and the clients of agents that have the
    integration are checked. The daemon need not run.

    Without --fix nothing is changed. With it the modes of files are corrected, files that a killed daemon has
    left are removed, and dead sends are queued again whose cause is gone.

    \b
    Examples:
      claudemesh doctor
      claudemesh doctor --fix
      claudemesh doctor --json | jq '.items[] | select(.state != "ok")'
    """
    if yes and not fix:
        raise click.UsageError("--yes goes with --fix.")
    if fix and not yes and not sys.stdin.isatty():
        raise no_terminal("mend")
    found = examine(mesh)
    if fix and not as_json:
        _show(found.findings)
    repairs = _mend(found, ask=not yes, as_json=as_json) if fix else []
    if repairs:
        found = examine(mesh)
    if as_json:
        items = [asdict(finding) for finding in found.findings]
        if fix:
            output.print_items(items, repairs=repairs)
        else:
            output.print_items(items)
    elif not fix or repairs:
        _show(found.findings)
    return UNAVAILABLE if found.has_failed else 0


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        text = f"{_MARKS[finding.state]}  {finding.check}: {output.safe(finding.detail)}"
        output.finding(text, hanging=_INDENT)
        if finding.remedy:
            output.finding(f"{' ' * _INDENT}{output.safe(finding.remedy)}", hanging=_INDENT)
        if finding.next:
            output.say(f"         next: {output.safe(finding.next)}")


def _mend(found: Examination, *, ask: bool, as_json: bool) -> list[dict[str, Any]]:
    """Make the repairs that are agreed to, and return what became of each."""
    planned = [] if found.facts is None else plan(found.facts)
    if found.facts is None or not planned:
        if not as_json:
            output.note("There is nothing to mend by itself.")
        return []
    client = LocalClient(found.facts.slug)
    return [_repair(repair, client, as_json) for repair in planned if not ask or _is_agreed(repair)]


def _is_agreed(repair: Repair) -> bool:
    return click.confirm(f"{output.safe(repair.text)}?", err=True)


def _repair(repair: Repair, client: LocalClient, as_json: bool) -> dict[str, Any]:
    try:
        apply(repair, client)
        problem = None
    except ClientError as error:
        problem = error.message
    except OSError as error:
        problem = str(error.strerror)
    if not as_json:
        output.note(f"{'done' if problem is None else 'not done'}: {repair.text}{_because(problem)}")
    return {"kind": repair.kind, "target": repair.target, "problem": problem}


def _because(problem: str | None) -> str:
    return "" if problem is None else f" ({problem})"
