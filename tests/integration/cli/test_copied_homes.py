"""Copies of a member's directory on other hosts (docs/spec/lifecycle.md, Clones). Another host is another
`id_override`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh, until

POLICIES = ["prefer_newest", "prefer_oldest", "allow_concurrent"]


@pytest.fixture
def team() -> Generator[Mesh]:
    """Alice, who made the mesh, and bob. Bob's files belong to this host."""
    with mesh("alice", "bob") as made:
        yield made


def copy_of(team: Mesh, daemon: Daemon, name: str, policy: str = "refuse") -> Daemon:
    """A copy of a member's home on another host. The original has stopped for the time of the copy."""
    was_running = daemon.running
    if was_running:
        daemon.stop()
    copied = Daemon(team.root, name, team.slug)
    shutil.copytree(daemon.home, copied.home, ignore=shutil.ignore_patterns("sock"))
    (copied.root / "config.toml").write_text(
        f'[reconnect]\nmax_backoff_ms = 500\n[clone]\npolicy = "{policy}"\nid_override = "{name}"\n'
    )
    team.daemons[name] = copied
    if was_running:
        daemon.start()
        daemon.ready()
    return copied


def refused(daemon: Daemon) -> str:
    """Start a daemon that is refused with 78, and return the sentence."""
    daemon.start()
    assert daemon.ended() == 78
    ended = [line for line in daemon.log.read_text().splitlines() if "daemon_ended" in line]
    entry: dict[str, Any] = json.loads(ended[-1])
    assert entry["error"] == "host_changed"
    return str(entry["detail"])


def host(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((daemon.root / "host_fingerprint.json").read_text())
    return found


def test_a_copy_is_refused_and_told_both_ways_out(team: Mesh) -> None:
    """The files stay as they were, and the original goes on."""
    bob = team.daemons["bob"]
    copied = copy_of(team, bob, "copied")
    before = host(copied)
    sentence = refused(copied)
    assert "accept-host" in sentence
    assert "remint" in sentence
    assert host(copied) == before == host(bob)
    assert bob.send("alice", "still here")[0] == 202


def test_a_host_that_was_accepted_is_this_host_from_then_on(team: Mesh) -> None:
    """The keys stay. The old host is refused if it comes back with the accepted files."""
    bob = team.daemons["bob"]
    copied = copy_of(team, bob, "copied")
    bob.stop()
    answer = run(copied.home, "daemon", "accept-host", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["fingerprint"] == host(copied)["fingerprint"]
    assert answer.json["next"] == ["claudemesh daemon up -d"]
    for _ in range(2):
        copied.start()
        copied.ready()
        assert copied.request("GET", "/v1/health")[1]["name"] == "bob"
        copied.stop()


def test_a_copy_becomes_a_member_of_its_own(team: Mesh) -> None:
    """Both go on, each with its own key and name, and hear each other."""
    alice, bob = team.daemons["alice"], team.daemons["bob"]
    copied = copy_of(team, bob, "copied")
    old_keys = (bob.root / "keypair.json").read_bytes()
    without = run(copied.home, "daemon", "remint", "--json")
    assert without.json["error"] == "invite_needed"
    assert (copied.root / "keypair.json").read_bytes() == old_keys
    invite = json.loads(team.cli(alice, "invite", "create", "--json"))["invite"]
    answer = run(copied.home, "daemon", "remint", "--invite", invite, "--name", "bob-2", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["name"] == "bob-2"
    assert (Path(answer.json["old_files"]) / "keypair.json").read_bytes() == old_keys
    copied.start()
    copied.ready()
    assert bob.running
    until(lambda: copied.send("bob", "hello, original")[0] == 202, "the copy knows bob")
    until(lambda: [item["sender_name"] for item in bob.inbox()] == ["bob-2"], "bob gets it")
    assert bob.send("bob-2", "hello, copy")[0] == 202
    until(lambda: [item["body"] for item in copied.inbox()] == ["hello, copy"], "the copy gets it")


def test_a_running_daemon_is_not_reminted(team: Mesh) -> None:
    """73, and nothing was changed."""
    bob = team.daemons["bob"]
    before = (bob.root / "keypair.json").read_bytes()
    answer = run(bob.home, "daemon", "remint", "--json")
    assert (answer.code, answer.json["error"]) == (73, "already_running")
    assert (bob.root / "keypair.json").read_bytes() == before


def test_under_warn_a_copy_runs_and_says_so(team: Mesh) -> None:
    """In health and in the metric. The kept host stays, so that the next start says it again."""
    bob = team.daemons["bob"]
    before = host(bob)
    copied = copy_of(team, bob, "copied", "warn")
    bob.stop()
    copied.start()
    copied.ready()
    health = copied.request("GET", "/v1/health")[1]
    assert "host_changed" in {item["code"] for item in health["degraded"]}
    shown = run(copied.home, "daemon", "metrics").out
    counted = [line for line in shown.splitlines() if line.startswith("cm_daemon_clone_suspected_total")]
    assert float(counted[0].split()[-1]) >= 1
    assert host(copied) == before
    accepted = run(copied.home, "daemon", "accept-host", "--json")
    assert accepted.json["next"] == ["claudemesh daemon restart"]


def test_the_first_start_of_this_version_keeps_the_host(team: Mesh) -> None:
    """An older version has kept none: an upgrade is not refused."""
    bob = team.daemons["bob"]
    bob.stop()
    (bob.root / "host_fingerprint.json").unlink()
    bob.start()
    bob.ready()
    assert host(bob)["source"] in ("host", "random")


def accepts(daemon: Daemon, text: str) -> bool:
    """Start the daemon if the broker has ended it, and send a message under an id of its own."""
    if not daemon.running:
        daemon.start()
    return daemon.send("alice", text, client_message_id=text)[0] in (200, 202)


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_accepted_is_lost_while_two_hosts_have_one_key(team: Mesh, policy: str) -> None:
    """Original and copy come and go in turns under each policy of the broker. Each message arrives once."""
    alice, bob = team.daemons["alice"], team.daemons["bob"]
    token = str(team.broker.data / "admin_token")
    change = ["broker", "mesh", "set", team.slug, "--clone-concurrency-policy", policy]
    team.cli(alice, *change, "--broker", team.broker.url, "--admin-token-file", token)
    copied = copy_of(team, bob, "copied", "allow")
    texts = [f"{daemon.name}-{turn}" for turn in range(4) for daemon in (bob, copied)]
    for text in texts:
        daemon = copied if text.startswith("copied") else bob
        until(lambda daemon=daemon, text=text: accepts(daemon, text), f"{text} is accepted")
    # Each host alone gets the rest out. The end of the older connection can be on its way still.
    for daemon in (bob, copied):
        daemon.stop()
    for daemon in (bob, copied):
        daemon.start()
        daemon.ready()
        until(
            lambda daemon=daemon: all(row["status"] == "done" for row in daemon.outbox().values()),
            "the outbox is empty",
        )
        daemon.stop()
    until(lambda: len(alice.inbox()) >= len(texts), "alice gets all")
    assert sorted(item["body"] for item in alice.inbox()) == sorted(texts)
