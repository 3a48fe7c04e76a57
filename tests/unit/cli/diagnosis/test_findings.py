"""Findings from facts: a healthy host has none, and each fault has a code, a sentence and the next step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from claudemesh.cli.diagnosis.examine import findings_of
from claudemesh.cli.diagnosis.facts import (
    BrokerFacts,
    DaemonFacts,
    DeadSend,
    Facts,
    FileFacts,
    HookFacts,
    HooksFacts,
    HostFacts,
    LastEnd,
    TroubledFile,
    UnitFacts,
)
from claudemesh.cli.diagnosis.faults import FAULTS
from claudemesh.cli.diagnosis.findings import FIX, Finding
from claudemesh.cli.diagnosis.host import unit_facts
from claudemesh.cli.diagnosis.repairs import Repair, plan
from tests.support.values import replace

HOME = Path("/home/alice/.claudemesh")
ROOT = HOME / "daemon" / "team"
URL = "wss://mesh.example.org"
LOOPBACK = "ws://127.0.0.1:7900"
HOOKS = HooksFacts(ROOT / "hooks" / "hooks.toml")


def health(**changes: Any) -> Mapping[str, Any]:
    """The report of a daemon that works."""
    return {
        "uptime_s": 5,
        "connected": True,
        "last_error": None,
        "broker_url": URL,
        "daemon_version": "1.2.3",
        "broker_version": "1.2.9",
        "clock_offset_ms": 20,
        "dead": 0,
        "queue_depth": 0,
        "sealed": {"waiting": 0, "since": None, "unreadable": 0},
        "degraded": [],
        "config": {"error": None, "needs_restart": []},
        **changes,
    }


HEALTHY = Facts(
    slug="team",
    version="1.2.3",
    files=(FileFacts("home", HOME), FileFacts("keys", ROOT / "keypair.json")),
    config=ROOT / "config.toml",
    config_exists=True,
    config_error=None,
    host=HostFacts(
        free_bytes=50,
        total_bytes=100,
        free_inodes=50,
        total_inodes=100,
        cache=Path("/cache"),
        units=(UnitFacts(Path("/etc/systemd/system/claudemesh.service")),),
    ),
    hooks=replace(HOOKS, hooks=(HookFacts("on-message"),)),
    daemon=DaemonFacts(is_lock_held=True, health=health(), process="pid 7"),
    broker=BrokerFacts(URL, URL, addresses=(URL,)),
)


def faults(facts: Facts) -> list[Finding]:
    """The findings that are not ok."""
    return [finding for finding in findings_of(facts) if finding.state != "ok"]


def running(**changes: Any) -> Facts:
    """A host whose daemon reports something else."""
    return replace(HEALTHY, daemon=replace(HEALTHY.daemon, health=health(**changes)))


def stopped(**changes: Any) -> Facts:
    """A host whose daemon does not run."""
    return replace(HEALTHY, daemon=replace(DaemonFacts(is_lock_held=False), **changes))


def on_host(**changes: Any) -> Facts:
    """A host with other facts about itself."""
    return replace(HEALTHY, host=replace(HEALTHY.host, **changes))


def with_hooks(**changes: Any) -> Facts:
    """A host with other hooks."""
    return replace(HEALTHY, hooks=replace(HOOKS, **changes))


def with_broker(**changes: Any) -> Facts:
    """A host that gets another answer from its broker."""
    assert HEALTHY.broker is not None
    return replace(HEALTHY, broker=replace(HEALTHY.broker, **changes))


def dead(*sends: DeadSend, **changes: Any) -> Facts:
    """A host with dead sends."""
    changed = replace(running(dead=len(sends), **changes).daemon, dead=sends)
    return replace(HEALTHY, daemon=replace(changed, members=frozenset({"key"}), topics=frozenset({"known"})))


def troubled(direction: str, state: str) -> Facts:
    """A host with a file that has an error."""
    found = TroubledFile("build.log", direction, state, "mesh_quota_exceeded: Full.")
    return replace(HEALTHY, daemon=replace(running().daemon, files=(found,)))


def file(**changes: Any) -> Facts:
    """A host with one more file."""
    made = replace(FileFacts("keys", ROOT / "keypair.json"), **changes)
    return replace(HEALTHY, files=(made,))


def test_a_healthy_host_has_no_fault() -> None:
    """Every check says what it has seen."""
    found = findings_of(HEALTHY)
    assert faults(HEALTHY) == []
    assert {"home", "keys", "config.toml", "disk", "daemon", "link", "clock", "broker", "address"} <= {
        finding.check for finding in found
    }


CASES: list[tuple[str, str, str, Facts, str | None]] = [
    ("keys", "failed", "file_missing", file(is_missing=True), None),
    ("keys", "failed", "not_private", file(problem="others can read it", right_mode=0o600), FIX),
    ("keys", "failed", "not_private", file(problem="it belongs to another user"), None),
    (
        "config.toml",
        "failed",
        "config_wrong",
        replace(HEALTHY, config_error="wrong"),
        "claudemesh daemon reload",
    ),
    ("disk", "failed", "disk_full", on_host(free_bytes=4), f"df -h {ROOT}"),
    ("disk", "failed", "inodes_used_up", on_host(free_inodes=0), f"df -i {ROOT}"),
    ("cache", "warning", "cache_noexec", on_host(is_cache_noexec=True), "export CLAUDEMESH_CACHE=FOLDER"),
    (
        "python3",
        "warning",
        "python_shim",
        on_host(python_shim=Path("/home/alice/.pyenv/shims/python3")),
        "claudemesh completion --install",
    ),
    (
        "unit",
        "failed",
        "unit_outdated",
        on_host(units=(UnitFacts(Path("/etc/a.service"), missing=("/old/claudemesh",)),)),
        "claudemesh daemon install-service",
    ),
    (
        "unit",
        "warning",
        "unit_outdated",
        on_host(units=(UnitFacts(Path("/etc/a.service"), notifies=False),)),
        "claudemesh daemon install-service",
    ),
    ("hooks", "failed", "hooks_wrong", with_hooks(error="unknown key"), "claudemesh daemon reload"),
    (
        "hooks",
        "warning",
        "hooks_off",
        with_hooks(enabled=False, hooks=(HookFacts("on-message"),)),
        "claudemesh daemon reload",
    ),
    (
        "hooks",
        "failed",
        "hook_not_executable",
        with_hooks(hooks=(HookFacts("a", problem="it is not", not_executable=Path("/a.sh")),)),
        FIX,
    ),
    (
        "hooks",
        "failed",
        "hook_not_runnable",
        with_hooks(hooks=(HookFacts("a", problem="there is no file"),)),
        "claudemesh daemon hooks",
    ),
    ("hooks", "warning", "hook_not_listed", with_hooks(unlisted=("b.sh",)), "claudemesh daemon hooks"),
    ("daemon", "failed", "not_running", stopped(), "claudemesh daemon up -d --mesh team"),
    (
        "daemon",
        "failed",
        "not_running",
        stopped(last_end=LastEnd("wrong_address", "Another address.", 78)),
        "claudemesh daemon up -d --mesh team",
    ),
    (
        "daemon",
        "failed",
        "revoked",
        stopped(last_end=LastEnd("revoked", "Revoked.", 77)),
        "claudemesh join LINK",
    ),
    ("daemon", "failed", "other_daemon", stopped(is_lock_held=True), "claudemesh daemon logs"),
    ("daemon", "failed", "daemon_failing", stopped(api_error="Broken."), "claudemesh daemon logs"),
    ("outbox.db", "failed", "database_damaged", stopped(databases={ROOT / "outbox.db": "bad"}), None),
    ("version", "warning", "daemon_version", running(daemon_version="1.2.2"), "claudemesh daemon restart"),
    ("version", "warning", "broker_version", running(broker_version="1.1.9"), None),
    ("version", "warning", "broker_version", running(broker_version="2.0.0"), None),
    ("link", "failed", "link_down", running(connected=False), "claudemesh daemon logs"),
    ("clock", "warning", "clock_skew", running(clock_offset_ms=-30_001), "timedatectl set-ntp true"),
    ("clock", "warning", "clock_skew", running(clock_offset_ms=30_001), "timedatectl set-ntp true"),
    ("files", "warning", "files_waiting", troubled("out", "uploading"), "claudemesh file list --sent"),
    ("files", "warning", "files_failed", troubled("out", "failed"), "claudemesh file list --sent"),
    ("files", "warning", "files_not_fetched", troubled("in", "announced"), "claudemesh file list"),
    ("outbox", "warning", "dead_sends", dead(DeadSend("1", "max_age_exceeded")), FIX),
    (
        "outbox",
        "warning",
        "dead_sends",
        dead(DeadSend("1", "payload_too_large")),
        "claudemesh daemon outbox list --failed",
    ),
    (
        "sealed",
        "warning",
        "key_missing",
        running(sealed={"waiting": 2, "since": "2026-01-01T00:00:00Z", "unreadable": 0}),
        "claudemesh topic list",
    ),
    (
        "sealed",
        "warning",
        "messages_unreadable",
        running(sealed={"waiting": 0, "since": None, "unreadable": 1}),
        "claudemesh inbox",
    ),
    (
        "degraded",
        "failed",
        "disk_full",
        running(degraded=[{"code": "disk_full", "since": "now", "message": "Full."}]),
        "claudemesh daemon logs",
    ),
    (
        "reload",
        "warning",
        "reload_refused",
        running(config={"error": "wrong", "needs_restart": []}),
        "claudemesh daemon reload",
    ),
    (
        "reload",
        "warning",
        "needs_restart",
        running(config={"error": None, "needs_restart": ["[ipc] port"]}),
        "claudemesh daemon restart",
    ),
    (
        "address",
        "warning",
        "loopback_invite",
        with_broker(url=LOOPBACK, invite_url=LOOPBACK),
        f"claudemesh daemon set-broker {URL}",
    ),
    (
        "address",
        "warning",
        "not_the_public_address",
        with_broker(url="ws://10.0.0.5:7900", invite_url="ws://10.0.0.5:7900"),
        f"claudemesh daemon set-broker {URL}",
    ),
]


@pytest.mark.parametrize(("check", "state", "code", "facts", "command"), CASES)
def test_each_fault_has_a_code_and_the_next_step(
    check: str, state: str, code: str, facts: Facts, command: str | None
) -> None:
    """And there is no other fault, except that the daemon does not run."""
    found, *others = sorted(faults(facts), key=lambda one: one.check != check)
    assert {one.code for one in others} <= {"not_running"}
    assert (found.check, found.state, found.code, found.next) == (check, state, code, command)
    assert found.detail
    assert found.remedy.endswith(".")


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_of_a_broker_is_told_with_its_address_and_a_remedy(code: str) -> None:
    """The words of the system stand behind it."""
    (found,) = faults(with_broker(fault=code, detail=f"The words about {URL}.", proxy="proxy:3128"))
    assert (found.check, found.state, found.code) == ("broker", "failed", code)
    assert URL in found.detail
    assert "The words" in found.detail
    assert found.remedy.endswith(".")
    assert "{" not in found.detail + found.remedy + str(found.next)


@pytest.mark.parametrize("url", [URL, LOOPBACK])
@pytest.mark.parametrize("code", ["refused", "timed_out", "unknown_host", "no_route", "unreachable"])
def test_an_address_where_no_broker_is_left_may_be_that_before_a_move(code: str, url: str) -> None:
    """A host that was away then dials it in vain, and changes it by hand."""
    (found,) = faults(with_broker(fault=code, url=url))
    assert "If the mesh has moved" in found.remedy
    assert "`claudemesh daemon set-broker URL`" in found.remedy


@pytest.mark.parametrize(
    ("changes", "command"),
    [({"url": LOOPBACK}, "claudemesh broker up -d"), ({}, None)],
)
def test_a_refusal_starts_the_broker_of_this_machine_only(
    changes: dict[str, Any], command: str | None
) -> None:
    """On another host a command here does not help."""
    (found,) = faults(with_broker(fault="refused", **changes))
    assert found.next == command


def test_a_mesh_of_one_machine_is_no_fault() -> None:
    """The broker knows no other address."""
    alone = with_broker(url=LOOPBACK, invite_url=LOOPBACK, addresses=(LOOPBACK,))
    assert faults(alone) == []
    assert "this machine only" in findings_of(alone)[-1].detail


def test_a_loopback_is_no_fault_when_invites_hold_the_public_address() -> None:
    """The broker runs here and tells its address."""
    assert faults(with_broker(url=LOOPBACK)) == []


def test_a_file_system_that_counts_no_inodes_is_not_full() -> None:
    """btrfs tells 0 of 0."""
    assert faults(on_host(free_inodes=0, total_inodes=0)) == []


def test_a_hook_that_is_switched_off_is_no_fault() -> None:
    """Its file may be missing."""
    assert faults(with_hooks(hooks=(HookFacts("a", enabled=False, problem="there is no file"),))) == []


@pytest.mark.parametrize(
    ("send", "is_requeued"),
    [
        (DeadSend("1", "max_age_exceeded", "dm", "key"), True),
        (DeadSend("1", "destination_not_found", "dm", "key"), True),
        (DeadSend("1", "destination_not_found", "dm", "gone"), False),
        (DeadSend("1", "destination_not_found", "queue", "known"), True),
        (DeadSend("1", "destination_not_found", "dm", "known"), False),
        (DeadSend("1", "topic_not_found", "topic", "known"), True),
        (DeadSend("1", "topic_not_found", "queue", "known"), True),
        (DeadSend("1", "topic_not_found", "topic", "gone"), False),
        (DeadSend("1", "topic_not_found"), False),
        (DeadSend("1", "payload_too_large", "dm", "key"), False),
        (DeadSend("1", "not_a_member", "dm", "key"), False),
    ],
)
@pytest.mark.parametrize("connected", [True, False])
def test_a_dead_send_is_queued_again_only_when_its_cause_is_gone(
    send: DeadSend, is_requeued: bool, connected: bool
) -> None:
    """Without the link nothing is known to be gone."""
    planned = plan(dead(send, connected=connected))
    assert planned == ([Repair("requeue", "1")] if is_requeued and connected else [])


def test_repairs_narrow_modes_and_remove_what_a_killed_daemon_left() -> None:
    """Nothing is planned for a healthy host, and no file is removed while a process holds the lock."""
    assert plan(HEALTHY) == []
    left = (ROOT / "sock", ROOT / "pid")
    assert plan(stopped(leftovers=left)) == [Repair("remove", str(path)) for path in left]
    assert plan(stopped(leftovers=left, is_lock_held=True)) == []
    assert plan(file(problem="others can read it", right_mode=0o600)) == [
        Repair("chmod", str(ROOT / "keypair.json"), 0o600)
    ]
    blocked = HookFacts("a", problem="it is not", not_executable=Path("/a.sh"))
    assert plan(with_hooks(hooks=(blocked,))) == [Repair("chmod", "/a.sh", 0o700)]
    assert plan(with_hooks(hooks=(replace(blocked, enabled=False),))) == []


@pytest.mark.parametrize(
    ("text", "missing", "notifies"),
    [
        ("[Service]\nType=notify\nExecStart=/bin/sh -c true\n", (), True),
        (
            "[Service]\nType=notify-reload\nExecStart=-/no/program /no/file up\n",
            ("/no/program", "/no/file"),
            True,
        ),
        ("[Service]\nExecStart=/bin/sh %h/claudemesh daemon up\n", (), False),
        ("[Service]\nExecStart='\n", (), False),
        ("", (), False),
    ],
)
def test_a_unit_is_read_as_the_service_manager_reads_it(
    text: str, missing: tuple[str, ...], notifies: bool
) -> None:
    """Prefixes of ExecStart, and specifiers, are no part of a path."""
    assert unit_facts(Path("/a.service"), text) == UnitFacts(Path("/a.service"), missing, notifies)
