"""Checks of a host for common faults: files, settings, disk, daemon, link, clock and broker."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

import claudemesh
from claudemesh.cli.daemon.control import shown_pid
from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import ClientError, DaemonNotRunning, UntrustedCertificate, WrongAddress
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh
from claudemesh.daemon.settings import load_settings
from claudemesh.home.paths import DaemonPaths, daemon_paths
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.files import UnsafeFile, check_private_dir, read_private

_CLOCK_MS = 30_000
_LITTLE_DISK = 0.05
_CONNECT_S = 3.0
State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. `remedy` is the next step when the state is not ok."""

    check: str
    state: State
    detail: str
    remedy: str = ""


def examine(mesh: str | None) -> list[Finding]:
    """Run the checks. A check that needs the result of another is left out when that one has failed."""
    try:
        slug = choose_mesh(mesh)
    except ClientError as error:
        return [Finding("mesh", "failed", error.message, "See `claudemesh join --help`.")]
    paths = daemon_paths(slug)
    findings = [*_files(paths), _settings(paths), _disk(paths)]
    client = LocalClient(slug)
    try:
        health = client.get("/v1/health")
    except DaemonNotRunning:
        findings += [_no_daemon(paths), *_databases(paths)]
        url = _broker_url(paths)
        return [*findings, _broker(url, paths.broker_ca)] if url else findings
    except ClientError as error:
        return [*findings, Finding("daemon", "failed", error.message, "See `claudemesh daemon logs`.")]
    return [
        *findings,
        *_running(health, shown_pid(client, health)),
        _broker(health["broker_url"], paths.broker_ca),
    ]


def _files(paths: DaemonPaths) -> Iterator[Finding]:
    checks: list[tuple[str, Callable[[Path], object], Path]] = [
        ("home", check_private_dir, paths.home),
        ("directory", check_private_dir, paths.root),
        ("keys", read_private, paths.keypair),
        ("membership", read_private, paths.membership),
    ]
    if paths.local_token.exists():
        checks.append(("local_token", read_private, paths.local_token))
    for name, check, path in checks:
        try:
            check(path)
        except UnsafeFile as error:
            yield Finding(name, "failed", "not private", f"{error}.")
        except OSError as error:
            remedy = "Restore it from a backup, or join the mesh again."
            yield Finding(name, "failed", f"{path}: {error.strerror}", remedy)
        else:
            yield Finding(name, "ok", str(path))


def _settings(paths: DaemonPaths) -> Finding:
    try:
        load_settings(paths.config)
    except ExitWith as error:
        return Finding(
            "config.toml", "failed", error.message, "Correct it, then run `claudemesh daemon reload`."
        )
    return Finding(
        "config.toml", "ok", str(paths.config) if paths.config.exists() else "none, the defaults apply"
    )


def _disk(paths: DaemonPaths) -> Finding:
    usage = shutil.disk_usage(paths.root)
    share = usage.free / usage.total
    detail = f"{usage.free / 1e9:.1f} GB free ({share:.0%})"
    if share < _LITTLE_DISK:
        remedy = "Free some space: below 5 % no new send is accepted."
        return Finding("disk", "failed", detail, remedy)
    return Finding("disk", "ok", detail)


def _no_daemon(paths: DaemonPaths) -> Finding:
    detail = "not running"
    if paths.sock.exists():
        detail += "; a socket is left of a daemon that was killed, and the next start replaces it"
    return Finding("daemon", "failed", detail, "Start it: `claudemesh daemon up -d`.")


def _databases(paths: DaemonPaths) -> Iterator[Finding]:
    """Check the databases. Only for a daemon that does not run, because it opens them exclusively."""
    for path in (paths.outbox_db, paths.inbox_db):
        if not path.exists():
            continue
        try:
            database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            try:
                verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            finally:
                database.close()
        except sqlite3.Error as error:
            verdict = str(error)
        if verdict == "ok":
            yield Finding(path.name, "ok", "sound")
        else:
            remedy = f"Restore {path} from a backup. Nothing was changed."
            yield Finding(path.name, "failed", verdict, remedy)


def _running(health: dict[str, Any], pid: str) -> Iterator[Finding]:
    yield Finding("daemon", "ok", f"{pid}, up for {health['uptime_s']} s")
    if health["daemon_version"] != claudemesh.__version__:
        detail = f"the daemon has version {health['daemon_version']}, this command {claudemesh.__version__}"
        yield Finding("version", "warning", detail, "Start the new version: `claudemesh daemon restart`.")
    else:
        yield Finding(
            "version", "ok", f"{claudemesh.__version__}, broker {health['broker_version'] or 'unknown'}"
        )
    if health["connected"]:
        yield Finding("link", "ok", health["broker_url"])
    else:
        remedy = "The daemon connects again by itself. Sends wait in the outbox."
        yield Finding("link", "failed", str(health["last_error"] or "connecting"), remedy)
    yield _clock(health["clock_offset_ms"])
    if health["dead"]:
        remedy = "List them with `claudemesh daemon outbox list --failed`, then requeue or drop them."
        yield Finding("outbox", "warning", f"{health['dead']} sends are dead", remedy)
    else:
        yield Finding("outbox", "ok", f"{health['queue_depth']} waiting")
    for item in health["degraded"]:
        since = f"Since {item['since']}. See `claudemesh daemon logs`."
        yield Finding("degraded", "failed", f"{item['code']}: {item['message']}", since)
    if health["config"]["error"]:
        yield Finding(
            "reload", "warning", health["config"]["error"], "Correct it, then run `claudemesh daemon reload`."
        )
    if health["config"]["needs_restart"]:
        waiting = ", ".join(health["config"]["needs_restart"])
        yield Finding(
            "reload",
            "warning",
            f"these settings need a restart: {waiting}",
            "Run `claudemesh daemon restart`.",
        )


def _clock(offset_ms: int | None) -> Finding:
    if offset_ms is None:
        return Finding("clock", "ok", "not compared, because the broker has not been reached")
    detail = f"{abs(offset_ms) / 1000:.1f} s {'ahead of' if offset_ms > 0 else 'behind'} the broker"
    if abs(offset_ms) > _CLOCK_MS:
        return Finding(
            "clock",
            "warning",
            detail,
            "Set the clock, for example by NTP. Times that are shown are wrong until then.",
        )
    return Finding("clock", "ok", detail)


def _broker_url(paths: DaemonPaths) -> str | None:
    try:
        url: str = orjson.loads(read_private(paths.membership))["broker_url"]
    except (OSError, UnsafeFile, ValueError, KeyError):
        return None
    return url


def _broker(url: str, ca_file: Path) -> Finding:
    """Check that the broker answers, and that it knows the address at which it is dialled."""
    try:
        broker = BrokerClient(url, insecure=True, deadline_s=_CONNECT_S, ca_file=ca_file)
        broker.check_address(broker.challenge())
    except WrongAddress as error:
        remedy = "Or change the address on this host: `claudemesh daemon set-broker URL`."
        return Finding("broker", "failed", error.message, remedy)
    except UntrustedCertificate as error:
        remedy = f"Change it on this host: `claudemesh daemon set-broker {url} --ca-file FILE`."
        return Finding("broker", "failed", error.message, remedy)
    except ClientError as error:
        remedy = "Check that the broker runs, and that no firewall or proxy is in between."
        return Finding("broker", "failed", f"{url}: {error.message}", remedy)
    return Finding("broker", "ok", f"{url} answers and is an address of the broker")
