"""A daemon that was not reached: none runs, or the sandbox of a client is in the way."""

from __future__ import annotations

import errno

import pytest

from claudemesh.client.local import no_answer

FORBIDDEN = PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("variable", ["CLAUDECODE", "CODEX_SANDBOX_NETWORK_DISABLED"])
def test_a_sandbox_that_forbids_sockets_is_named_with_the_tools_that_work(variable: str) -> None:
    """Starting a daemon would not help."""
    found = no_answer("team", FORBIDDEN, {variable: "1"})
    assert found.code == "sandboxed" and "mesh_send" in found.message


@pytest.mark.parametrize(
    ("error", "variables"),
    [
        (FORBIDDEN, {}),
        (PermissionError(errno.EACCES, "Permission denied"), {"CLAUDECODE": "1"}),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), {"CLAUDECODE": "1"}),
    ],
)
def test_any_other_failure_is_a_daemon_that_does_not_run(error: OSError, variables: dict[str, str]) -> None:
    """The command that starts it is named."""
    assert no_answer("team", error, variables).code == "daemon_not_running"
