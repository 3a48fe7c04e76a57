"""The examination of a host: facts, checks, findings."""

from __future__ import annotations

from dataclasses import dataclass

from claudemesh.cli.diagnosis import daemon_checks, host_checks
from claudemesh.cli.diagnosis.client_checks import check_clients
from claudemesh.cli.diagnosis.clients import client_facts
from claudemesh.cli.diagnosis.facts import Facts
from claudemesh.cli.diagnosis.findings import Finding, failed
from claudemesh.cli.diagnosis.gather import gather
from claudemesh.client.errors import ClientError
from claudemesh.client.meshes import choose_mesh

# Remedies of a host without the one mesh that is meant, by the code of the error.
_CHOOSE = {"which_mesh": "Choose a mesh.", "unsafe_home": "Correct the folder."}


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings, and the facts behind them; without a mesh there are no facts."""

    findings: tuple[Finding, ...]
    facts: Facts | None = None

    @property
    def has_failed(self) -> bool:
        """Whether a check has failed."""
        return any(finding.state == "failed" for finding in self.findings)


def examine(mesh: str | None) -> Examination:
    """Run all checks for a mesh."""
    try:
        slug = choose_mesh(mesh)
    except ClientError as error:
        command = error.next or "claudemesh join --help"
        remedy = _CHOOSE.get(error.code, "Join a mesh.")
        mesh_finding = failed("mesh", error.code, error.message, remedy, command)
        return Examination((mesh_finding, *check_clients(client_facts(()))))
    facts = gather(slug)
    return Examination(findings_of(facts), facts)


def findings_of(facts: Facts) -> tuple[Finding, ...]:
    """Return the findings of all checks, in their order."""
    checks = (*host_checks.CHECKS, *daemon_checks.CHECKS)
    found = [finding for check in checks for finding in check(facts)]
    return (*found, *check_clients(facts.clients))
