"""SIGKILL between the steps of `daemon remint` and `daemon accept-host`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, Process, mesh, until

# The steps before the new member is decided, and those after it.
UNDECIDED = ["remint.after_new_keys", "remint.after_join"]
DECIDED = [
    "remint.after_decision",
    "remint.after_aside",
    "remint.after_keys",
    "remint.after_host",
    "remint.after_membership",
]


@pytest.fixture(scope="module")
def team() -> Generator[Mesh]:
    """Alice, who made the mesh, and bob, both running."""
    with mesh("alice", "bob") as made:
        yield made


@pytest.fixture
def copied(team: Mesh, tmp_path: Path) -> Daemon:
    """A copy of bob's directory on another host."""
    bob = team.daemons["bob"]
    bob.stop()
    made = Daemon(team.root, f"c-{tmp_path.name[-20:]}", team.slug)
    shutil.copytree(bob.home, made.home, ignore=shutil.ignore_patterns("sock"))
    config = f'[reconnect]\nmax_backoff_ms = 500\n[clone]\nid_override = "{made.name}"\n'
    (made.root / "config.toml").write_text(config)
    team.daemons[made.name] = made
    bob.start()
    bob.ready()
    return made


def invite(team: Mesh) -> str:
    answer = json.loads(team.cli(team.daemons["alice"], "invite", "create", "--uses", "2", "--json"))
    return str(answer["invite"])


def killed(daemon: Daemon, arguments: list[str], failpoint: str) -> None:
    """Run a command of a host until a failpoint kills it."""
    process = Process(arguments, daemon.home, daemon.log)
    process.start(f"{failpoint}=kill@1")
    process.wait_killed()


def keys(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((daemon.root / "keypair.json").read_text())
    return found


def members(team: Mesh) -> set[str]:
    """The names of the members that alice sees."""
    _, page = team.daemons["alice"].request("GET", "/v1/peers?limit=500")
    return {item["name"] for item in page["items"]}


@pytest.mark.parametrize("failpoint", UNDECIDED)
def test_a_kill_before_the_decision_leaves_the_old_member(team: Mesh, copied: Daemon, failpoint: str) -> None:
    """The start is still refused. The next try makes one member, with the keys of the first."""
    old, link = keys(copied), invite(team)
    killed(copied, ["daemon", "remint", "--invite", link, "--name", copied.name], failpoint)
    assert keys(copied) == old
    copied.start()
    assert copied.ended() == 78
    made = json.loads((copied.root / "remint/keypair.json").read_text())
    answer = run(copied.home, "daemon", "remint", "--invite", link, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["name"] == copied.name
    assert keys(copied) == made
    is_member_of_its_own(team, copied, old)


@pytest.mark.parametrize("by_a_start", [True, False])
@pytest.mark.parametrize("failpoint", DECIDED)
def test_a_kill_after_the_decision_leaves_the_new_member(
    team: Mesh, copied: Daemon, failpoint: str, by_a_start: bool
) -> None:
    """The next start carries the exchange out, and so does the same command."""
    old, link = keys(copied), invite(team)
    killed(copied, ["daemon", "remint", "--invite", link, "--name", copied.name], failpoint)
    if not by_a_start and failpoint != DECIDED[-1]:
        answer = run(copied.home, "daemon", "remint", "--json")
        assert answer.code == 0, answer.err
    is_member_of_its_own(team, copied, old)


def is_member_of_its_own(team: Mesh, daemon: Daemon, old: dict[str, Any]) -> None:
    """The daemon starts with new keys, alice sees it beside bob, and the old keys are kept aside."""
    daemon.start()
    daemon.ready()
    assert keys(daemon)["ed25519_pubkey"] != old["ed25519_pubkey"]
    until(lambda: {"bob", daemon.name} <= members(team), "alice sees both")
    assert team.daemons["bob"].running
    [aside] = daemon.root.glob("before-remint-*")
    assert json.loads((aside / "keypair.json").read_text()) == old
    assert not (daemon.root / "remint").exists()
    assert daemon.stop() == 0


@pytest.mark.parametrize("failpoint", ["file.after_write", "file.after_sync", "file.after_rename"])
def test_a_kill_in_accept_host_leaves_the_old_host_or_the_new(copied: Daemon, failpoint: str) -> None:
    """Never a daemon that does not start and does not say why."""
    path = copied.root / "host_fingerprint.json"
    before = path.read_bytes()
    killed(copied, ["daemon", "accept-host"], failpoint)
    assert (path.read_bytes() == before) == (failpoint != "file.after_rename")
    assert run(copied.home, "daemon", "accept-host", "--json").code == 0
    assert json.loads(path.read_text())["source"] == "override"
