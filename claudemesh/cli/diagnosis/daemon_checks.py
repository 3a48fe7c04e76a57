"""Checks of the daemon, its link, its queue and its broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from claudemesh.cli.diagnosis.facts import BrokerFacts, DaemonFacts, DeadSend, Facts, LastEnd, TroubledFile
from claudemesh.cli.diagnosis.faults import finding_of, is_own
from claudemesh.cli.diagnosis.findings import FIX, Finding, failed, ok, warning
from claudemesh.runtime.exits import PERMISSION
from claudemesh.runtime.urls import audience_of, canonical_audience

_CLOCK_MS = 30_000
_LOGS = "claudemesh daemon logs"
# A broker names a topic that is missing by either of them.
_NOT_FOUND = ("destination_not_found", "topic_not_found")
_FILES = "claudemesh file list"
_RELOAD = "claudemesh daemon reload"


def daemon(facts: Facts) -> Iterator[Finding]:
    """Check that the daemon runs and answers."""
    found = facts.daemon
    if found.health is not None:
        yield ok("daemon", f"{found.process}, up for {found.health['uptime_s']} s")
    elif found.api_error is not None:
        yield failed("daemon", "daemon_failing", found.api_error, "See its log.", _LOGS)
    elif found.membership_end is not None:
        end = found.membership_end
        yield failed("daemon", end.error, "not running", end.detail, f"claudemesh leave --mesh {facts.slug}")
    elif found.is_lock_held:
        yield failed(
            "daemon",
            "other_daemon",
            "another process holds the lock of this mesh, and does not answer on the socket",
            "A daemon is starting or stuck, or runs in another container on the same home. End it where it "
            "was started.",
            _LOGS,
        )
    else:
        yield _not_running(facts.slug, found)


def _not_running(slug: str, found: DaemonFacts) -> Finding:
    detail = "not running"
    if found.leftovers:
        detail += "; a socket is left of a daemon that was killed, and the next start replaces it"
    up = f"claudemesh daemon up -d --mesh {slug}"
    end = found.last_end
    if end is None:
        return failed("daemon", "not_running", detail, "Start it.", up)
    detail += f"; the last one has ended: {end.detail.rstrip('.')}"
    if _is_revoked(end):
        remedy = "Ask an owner of the mesh for a new invite, and join again."
        return failed("daemon", "revoked", detail, remedy, "claudemesh join LINK")
    return failed("daemon", "not_running", detail, "Correct that, then start it.", up)


def _is_revoked(end: LastEnd) -> bool:
    return end.exit_code == PERMISSION and "revoked" in end.error


def databases(facts: Facts) -> Iterator[Finding]:
    """Check the databases of a daemon that does not run."""
    for path, verdict in facts.daemon.databases.items():
        if verdict == "ok":
            yield ok(path.name, "sound")
        else:
            remedy = f"Restore {path} from a backup. Nothing was changed."
            yield failed(path.name, "database_damaged", verdict, remedy)


def versions(facts: Facts) -> Iterator[Finding]:
    """Compare the versions of command, daemon and broker."""
    health = facts.daemon.health
    if health is None:
        return
    own, theirs = health["daemon_version"], health["broker_version"]
    if own != facts.version:
        detail = f"the daemon has version {own}, this command {facts.version}"
        remedy = "Start the new version."
        yield warning("version", "daemon_version", detail, remedy, "claudemesh daemon restart")
    elif theirs is not None and _numbers(theirs)[:2] != _numbers(own)[:2]:
        older = "broker" if _numbers(theirs) < _numbers(own) else "daemon"
        detail = f"the daemon has version {own}, the broker {theirs}"
        remedy = f"They work together with the features that both have. Upgrade the {older}."
        yield warning("version", "broker_version", detail, remedy)
    else:
        yield ok("version", f"{own}, broker {theirs or 'unknown'}")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split("-")[0].split(".")
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


def link(facts: Facts) -> Iterator[Finding]:
    """Check the daemon's link to the broker."""
    health = facts.daemon.health
    if health is None:
        return
    if health["connected"]:
        yield ok("link", health["broker_url"])
    else:
        remedy = "The daemon connects again by itself. Sends wait in the outbox."
        yield failed("link", "link_down", str(health["last_error"] or "connecting"), remedy, _LOGS)


def clock(facts: Facts) -> Iterator[Finding]:
    """Compare the clock of this host with the broker's."""
    health = facts.daemon.health
    if health is None:
        return
    offset_ms = health["clock_offset_ms"]
    if offset_ms is None:
        yield ok("clock", "not compared, because the broker has not been reached")
        return
    detail = f"{abs(offset_ms) / 1000:.1f} s {'ahead of' if offset_ms > 0 else 'behind'} the broker"
    if abs(offset_ms) > _CLOCK_MS:
        remedy = "Set the clock, for example by NTP. Times that are shown are wrong until then."
        yield warning("clock", "clock_skew", detail, remedy, "timedatectl set-ntp true")
    else:
        yield ok("clock", detail)


def outbox(facts: Facts) -> Iterator[Finding]:
    """Check for sends that were given up, by their reasons."""
    health = facts.daemon.health
    if health is None:
        return
    if not health["dead"]:
        yield ok("outbox", f"{health['queue_depth']} waiting")
        return
    reasons = Counter(one.reason for one in facts.daemon.dead)
    listed = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
    detail = f"{health['dead']} sends are dead" + (f" ({listed})" if listed else "")
    passed = len(may_requeue(facts.daemon))
    if passed:
        remedy = f"The cause of {passed} of them is gone: they can be requeued."
        yield warning("outbox", "dead_sends", detail, remedy, FIX)
    else:
        remedy = "Requeue or drop each of them."
        command = "claudemesh daemon outbox list --failed"
        yield warning("outbox", "dead_sends", detail, remedy, command)


def files(facts: Facts) -> Iterator[Finding]:
    """Check for files that do not leave, and for files that could not be fetched."""
    if facts.daemon.health is None:
        return
    found = facts.daemon.files
    waiting = [one for one in found if one.direction == "out" and one.state != "failed"]
    given_up = [one for one in found if one.direction == "out" and one.state == "failed"]
    lost = [one for one in found if one.direction == "in"]
    if not found:
        yield ok("files", "none waits with an error")
    if waiting:
        remedy = "They go on by themselves when the cause is gone. Delete those that are not to leave."
        yield warning("files", "files_waiting", _listed("wait", waiting), remedy, f"{_FILES} --sent")
    if given_up:
        remedy = "Send them again, and delete these."
        yield warning("files", "files_failed", _listed("were given up", given_up), remedy, f"{_FILES} --sent")
    if lost:
        remedy = "Ask their senders to send them again."
        yield warning("files", "files_not_fetched", _listed("could not be fetched", lost), remedy, _FILES)


def _listed(state: str, files: Sequence[TroubledFile]) -> str:
    shown = "; ".join(f"{one.name}: {one.error.rstrip('.')}" for one in files[:3])
    return f"{len(files)} files {state} ({shown})"


def sealed(facts: Facts) -> Iterator[Finding]:
    """Check for messages without a text: their key is missing, or their body does not open under it."""
    found: Mapping[str, Any] | None = (facts.daemon.health or {}).get("sealed")
    if found is None:
        # No daemon runs, or one of an older version.
        return
    if found["waiting"]:
        detail = f"{found['waiting']} messages wait for a key since {found['since']}"
        remedy = "They are opened when a member that has the key is connected."
        yield warning("sealed", "key_missing", detail, remedy, "claudemesh topic list")
    if found["unreadable"]:
        detail = f"{found['unreadable']} messages were sealed with another key than that of their topic"
        remedy = "They were set aside. Ask their senders to send them again."
        yield warning("sealed", "messages_unreadable", detail, remedy, "claudemesh inbox")
    if not (found["waiting"] or found["unreadable"]):
        yield ok("sealed", "every message could be opened")


def may_requeue(found: DaemonFacts) -> list[DeadSend]:
    """Return the dead sends whose cause is gone: a broker that was away, a recipient that was not there."""
    if found.health is None or not found.health["connected"]:
        return []
    return [one for one in found.dead if _is_gone(one, found)]


def _is_gone(one: DeadSend, found: DaemonFacts) -> bool:
    if one.reason in _NOT_FOUND:
        return one.ref in (found.members if one.kind == "dm" else found.topics)
    return one.reason == "max_age_exceeded"


def conditions(facts: Facts) -> Iterator[Finding]:
    """Show the conditions that the daemon reports."""
    health: Mapping[str, Any] | None = facts.daemon.health
    if health is None:
        return
    for item in health["degraded"]:
        since = f"Since {item['since']}. See the log."
        yield failed("degraded", item["code"], f"{item['code']}: {item['message']}", since, _LOGS)
    config = health["config"]
    if config["error"]:
        yield warning("reload", "reload_refused", config["error"], "Correct it, then reload.", _RELOAD)
    if config["needs_restart"]:
        detail = f"these settings need a restart: {', '.join(config['needs_restart'])}"
        yield warning("reload", "needs_restart", detail, "Restart the daemon.", "claudemesh daemon restart")


def broker(facts: Facts) -> Iterator[Finding]:
    """Check the broker at the address of the membership, and the address itself."""
    found = facts.broker
    if found is None:
        return
    if found.fault is not None:
        yield finding_of(found)
        return
    way = "" if found.proxy is None else f" by the proxy {found.proxy}"
    yield ok("broker", f"{found.url} answers{way} and is an address of the broker")
    yield _address(found)


def _address(found: BrokerFacts) -> Finding:
    """Check the address that invites of this host hold: other hosts have to reach it."""
    public = [url for url in found.addresses if not is_own(url)]
    if public and _audience(found.invite_url) not in map(_audience, public):
        code = "loopback_invite" if is_own(found.invite_url) else "not_the_public_address"
        detail = f"invites that are made here hold {found.invite_url}, and the broker is known as {public[0]}"
        remedy = "Change the address of this host, so that invites hold one that other hosts reach."
        return warning("address", code, detail, remedy, f"claudemesh daemon set-broker {public[0]}")
    if is_own(found.invite_url):
        return ok("address", f"{found.invite_url}: invites that are made here admit this machine only")
    return ok("address", f"invites that are made here hold {found.invite_url}")


def _audience(url: str) -> str:
    return canonical_audience(audience_of(url))


CHECKS = (daemon, databases, versions, link, clock, outbox, sealed, files, conditions, broker)
