"""Collection of the facts about one mesh of this host. It changes nothing, and the daemon need not run."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

import claudemesh
from claudemesh.cli.daemon.control import shown_pid
from claudemesh.cli.diagnosis.clients import client_facts, live_sessions
from claudemesh.cli.diagnosis.facts import (
    BrokerFacts,
    DaemonFacts,
    DeadSend,
    Facts,
    FileFacts,
    HookFacts,
    HooksFacts,
    LastEnd,
    TroubledFile,
)
from claudemesh.cli.diagnosis.faults import fault_of
from claudemesh.cli.diagnosis.host import host_facts, verdict_of
from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import ClientError, DaemonNotRunning, MembershipEnded
from claudemesh.client.local import LocalClient
from claudemesh.client.own_broker import outward_url
from claudemesh.daemon.hooks.files import HookNotRunnable, find_hook
from claudemesh.daemon.hooks.manifest import load_manifest
from claudemesh.daemon.settings import load_settings
from claudemesh.home.paths import DaemonPaths, daemon_paths
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.files import (
    FileLock,
    UnsafeFile,
    check_private_dir,
    open_own,
    read_private,
)
from claudemesh.runtime.outward import UnusableProxy, proxy_for

_CONNECT_S = 3.0
_LOG_BYTES = 1 << 20
_NEWEST_FILES = 100
_MOST_DEAD = 500
_OTHERS = 0o077


def gather(slug: str) -> Facts:
    """Collect the facts about one mesh."""
    paths = daemon_paths(slug)
    client = LocalClient(slug)
    return Facts(
        slug=slug,
        version=claudemesh.__version__,
        files=tuple(_files(paths)),
        config=paths.config,
        config_exists=paths.config.exists(),
        config_error=_config_error(paths),
        host=host_facts(paths.root),
        hooks=_hooks(paths),
        daemon=_daemon(client, paths),
        broker=_broker(paths),
        clients=client_facts(live_sessions(client)),
    )


def _files(paths: DaemonPaths) -> Iterator[FileFacts]:
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
            yield FileFacts(name, path, str(error), right_mode=_right_mode(path))
        except FileNotFoundError:
            yield FileFacts(name, path, is_missing=True)
        except OSError as error:
            yield FileFacts(name, path, f"{path}: {error.strerror}")
        else:
            yield FileFacts(name, path)


def _right_mode(path: Path) -> int | None:
    """Return the mode that corrects a file, None when its owner or kind is wrong."""
    found = path.lstat()
    is_folder = stat.S_ISDIR(found.st_mode)
    if found.st_uid != os.geteuid() or not (is_folder or stat.S_ISREG(found.st_mode)):
        return None
    return None if not found.st_mode & _OTHERS else 0o700 if is_folder else 0o600


def _config_error(paths: DaemonPaths) -> str | None:
    try:
        load_settings(paths.config)
    except ExitWith as error:
        return error.message
    return None


def _hooks(paths: DaemonPaths) -> HooksFacts:
    manifest = paths.hooks_manifest
    try:
        settings = load_settings(paths.config)
    except ExitWith:
        # The settings have a finding of their own.
        return HooksFacts(manifest)
    try:
        hooks = load_manifest(manifest, settings.hooks_default_timeout_s).hooks
    except ExitWith as error:
        return HooksFacts(manifest, error=error.message)
    found, used = [], {manifest.name}
    for name, hook in hooks.items():
        path, problem = None, None
        try:
            path = find_hook(paths.hooks, name, hooks.keys() - {name})
            used.add(path.name)
        except HookNotRunnable as error:
            problem = str(error)
        blocked = _not_executable(paths.hooks, name) if problem is not None else None
        used |= {blocked.name} if blocked is not None else set()
        found.append(HookFacts(name, hook.enabled, problem, blocked))
    unlisted = [name for name in _programs(paths.hooks) if name not in used]
    is_on = settings.hooks_enabled is not False
    return HooksFacts(manifest, enabled=is_on, hooks=tuple(found), unlisted=tuple(unlisted))


def _programs(folder: Path) -> list[str]:
    """Return the names of regular files in the folder of the hooks."""
    try:
        return sorted(
            path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
        )
    except OSError:
        return []


def _not_executable(folder: Path, name: str) -> Path | None:
    """Return the one file of a hook when its mode alone keeps it from running."""
    found = [folder / entry for entry in _programs(folder) if name in (entry, entry.rpartition(".")[0])]
    if len(found) != 1:
        return None
    facts = found[0].lstat()
    is_own = stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()
    return found[0] if is_own and not facts.st_mode & (stat.S_IXUSR | 0o022) else None


def _daemon(client: LocalClient, paths: DaemonPaths) -> DaemonFacts:
    is_held = FileLock(paths.lock).is_held()
    try:
        health = client.get("/v1/health")
        process = shown_pid(client, health)
        if not health["dead"]:
            return DaemonFacts(is_held, health=health, process=process, files=_troubled(client))
        return DaemonFacts(
            is_held,
            health=health,
            process=process,
            dead=_dead(client),
            members=frozenset(peer["pubkey"] for peer in client.items("/v1/peers")),
            topics=_topics(client),
            files=_troubled(client),
        )
    except MembershipEnded as error:
        end = LastEnd(error.code, error.message, error.exit_code)
        return DaemonFacts(is_held, membership_end=end)
    except DaemonNotRunning:
        pass
    except ClientError as error:
        return DaemonFacts(is_held, api_error=error.message)
    if is_held:
        return DaemonFacts(is_held)
    databases = {
        path: verdict_of(path) for path in (paths.outbox_db, paths.inbox_db, paths.files_db) if path.exists()
    }
    leftovers = tuple(path for path in (paths.sock, paths.pid, paths.http_port) if path.exists())
    return DaemonFacts(is_held, leftovers, last_end=_last_end(paths), databases=databases)


def _dead(client: LocalClient) -> tuple[DeadSend, ...]:
    items = client.get("/v1/outbox", status="dead", limit=_MOST_DEAD)["items"]
    return tuple(
        DeadSend(
            item["id"],
            str(item["last_error"]).partition(":")[0],
            item.get("destination_kind"),
            item.get("destination_ref"),
        )
        for item in items
    )


def _troubled(client: LocalClient) -> tuple[TroubledFile, ...]:
    """Return the newest files with an error. A daemon of an older version has no such list."""
    found = []
    try:
        for direction in ("out", "in"):
            found += client.get("/v1/file/list", direction=direction, limit=_NEWEST_FILES)["items"]
    except ClientError:
        return ()
    return tuple(
        TroubledFile(item["name"], item["direction"], item["state"], item["error"])
        for item in found
        if item.get("error") and item["state"] != "deleted"
    )


def _topics(client: LocalClient) -> frozenset[str]:
    try:
        return frozenset(item["topic"] for item in client.items("/v1/topic/list"))
    except ClientError:
        # The broker is away.
        return frozenset()


def _last_end(paths: DaemonPaths) -> LastEnd | None:
    """Return why the last run in the background has ended by itself, None when it was stopped."""
    try:
        with open_own(paths.log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
            lines = file.read().splitlines()
    except (OSError, UnsafeFile):
        return None
    for raw in reversed(lines):
        line = _parsed(raw)
        if line.get("event") == "daemon_ended":
            code = line.get("exit_code")
            return LastEnd(str(line.get("error")), str(line.get("detail")), code if type(code) is int else 0)
        if line.get("event") in ("daemon_started", "daemon_stopped"):
            return None
    return None


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return line if isinstance(line, dict) else {}


def _broker(paths: DaemonPaths) -> BrokerFacts | None:
    """Ask the broker for its addresses, at the address of the membership."""
    try:
        url = orjson.loads(read_private(paths.membership))["broker_url"]
        if not isinstance(url, str):
            return None
        invite_url = outward_url(url)
    except (OSError, UnsafeFile, ValueError, KeyError, TypeError):
        return None
    try:
        proxy = proxy_for(url)
    except UnusableProxy as error:
        return BrokerFacts(url, invite_url, "unusable_proxy", str(error))
    shown = None if proxy is None else proxy.shown
    try:
        broker = BrokerClient(url, insecure=True, deadline_s=_CONNECT_S, ca_file=paths.broker_ca)
        found = broker.challenge()
    except ClientError as error:
        code = fault_of(error, by_proxy=shown is not None)
        detail = error.message if code in ("unreachable", "bad_answer", "redirected") else _cause(error)
        return BrokerFacts(url, invite_url, code, detail, proxy=shown)
    try:
        broker.check_address(found)
    except ClientError as error:
        return BrokerFacts(url, invite_url, error.code, error.message, found.addresses, shown)
    return BrokerFacts(url, invite_url, addresses=found.addresses, proxy=shown)


def _cause(error: BaseException) -> str:
    """Return the text of the operating system or the TLS library, where there is one."""
    cause = error.__cause__
    return str(getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or cause or "")
