"""`up -d`: a service that ends while it starts tells why, at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.cli.background import Service, start
from claudemesh.runtime.exits import ExitWith
from tests.support.cli import run
from tests.support.processes import mesh

OK, PERMISSION = 0, 77


def test_a_member_that_the_broker_refuses_is_told_why_by_its_own_command() -> None:
    """The daemon answers on its socket before the broker refuses it; the command waits for both."""
    with mesh("alice", "bob", start=False) as made:
        bob = made.daemons["bob"]
        revoke = ("broker", "member", "revoke", made.slug, "bob", "--broker", made.broker.url)
        token = ("--admin-token-file", str(made.broker.data / "admin_token"))
        revoked = run(made.daemons["alice"].home, *revoke, *token)
        assert revoked.code == OK, revoked.err
        for command in (["up", "-d"], ["restart"]):
            done = run(bob.home, *command, "--json")
            assert (done.code, "revoked" in done.json["message"]) == (PERMISSION, True), done


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "raise SystemExit('claudemesh: error: The cache is on noexec.')",
            "started: The cache is on noexec.",
        ),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9 (SIGKILL)"),
        ("raise SystemExit(3)", "started: exit code 3."),
    ],
)
def test_an_end_before_the_log_is_opened_is_told_from_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    """Such as that of a launcher or an interpreter; a signal is named."""
    package = tmp_path / "claudemesh"
    package.mkdir()
    (package / "__main__.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    service = Service("daemon", tmp_path / "daemon.log", "claudemesh daemon logs", lambda _: False)
    with pytest.raises(ExitWith) as caught:
        start(service, ["daemon", "up"], {"PYTHONPATH": str(tmp_path)})
    assert (caught.value.error, caught.value.next) == ("daemon_ended", "claudemesh daemon logs")
    assert words in caught.value.message
    assert caught.value.code > 0
