"""Checks of files, settings, disk, cache, interpreter, units and hooks."""

from __future__ import annotations

from collections.abc import Iterator

from claudemesh.cli.diagnosis.facts import Facts, HookFacts
from claudemesh.cli.diagnosis.findings import FIX, Finding, failed, ok, warning

_LITTLE = 0.05


def files(facts: Facts) -> Iterator[Finding]:
    """Check that keys, membership and directories are there and private."""
    for file in facts.files:
        if file.is_missing:
            remedy = "Restore it from a backup, or join the mesh again."
            yield failed(file.name, "file_missing", f"{file.path} does not exist", remedy)
        elif file.problem is not None:
            command = FIX if file.right_mode is not None else None
            yield failed(file.name, "not_private", "not private", f"{file.problem}.", command)
        else:
            yield ok(file.name, str(file.path))


def settings(facts: Facts) -> Iterator[Finding]:
    """Check config.toml."""
    if facts.config_error is not None:
        remedy = "Correct it, then reload."
        yield failed("config.toml", "config_wrong", facts.config_error, remedy, "claudemesh daemon reload")
    else:
        yield ok("config.toml", str(facts.config) if facts.config_exists else "none, the defaults apply")


def disk(facts: Facts) -> Iterator[Finding]:
    """Check the room on the file system of the home."""
    host = facts.host
    share = host.free_bytes / host.total_bytes if host.total_bytes else 1.0
    detail = f"{host.free_bytes / 1e9:.1f} GB free ({share:.0%})"
    where = f"df -h {facts.config.parent}"
    if share < _LITTLE:
        remedy = "Free some space: below 5 % no new send is accepted."
        yield failed("disk", "disk_full", detail, remedy, where)
    elif host.total_inodes and host.free_inodes / host.total_inodes < _LITTLE / 5:
        detail += f", {host.free_inodes} files can still be made"
        yield failed("disk", "inodes_used_up", detail, "Remove files.", f"df -i {facts.config.parent}")
    else:
        yield ok("disk", detail)


def cache(facts: Facts) -> Iterator[Finding]:
    """Check that the folder to which the file unpacks itself can hold native modules."""
    host = facts.host
    if host.cache is not None and host.is_cache_noexec:
        detail = f"{host.cache} is on a file system that is mounted noexec"
        remedy = (
            "A start from there fails. Set CLAUDEMESH_CACHE to a folder of your own on another file system."
        )
        yield warning("cache", "cache_noexec", detail, remedy, "export CLAUDEMESH_CACHE=FOLDER")


def interpreter(facts: Facts) -> Iterator[Finding]:
    """Check that `python3` is an interpreter, not a script that looks for one at each start."""
    shim = facts.host.python_shim
    if shim is not None:
        detail = f"python3 is {shim}, a script that looks for a Python at each start"
        remedy = "Each command takes twice as long. Install a launcher that names the interpreter."
        yield warning("python3", "python_shim", detail, remedy, "claudemesh completion --install")


def units(facts: Facts) -> Iterator[Finding]:
    """Check the units of the service manager."""
    for unit in facts.host.units:
        command = "claudemesh daemon install-service"
        if unit.missing:
            detail = f"{unit.path} starts {', '.join(unit.missing)}, which does not exist"
            yield failed("unit", "unit_outdated", detail, "Install the unit again.", command)
        elif not unit.notifies:
            detail = f"{unit.path} is of an earlier version: it does not wait for the start (Type=notify)"
            yield warning("unit", "unit_outdated", detail, "Install the unit again.", command)
        else:
            yield ok("unit", str(unit.path))


def hooks(facts: Facts) -> Iterator[Finding]:
    """Check that each hook can run, and that hooks.toml names each file."""
    found = facts.hooks
    if found.error is not None:
        remedy = "Correct it, then reload."
        yield failed("hooks", "hooks_wrong", found.error, remedy, "claudemesh daemon reload")
        return
    if found.hooks and not found.enabled:
        detail = "no hook runs, because config.toml has [hooks] enabled = false"
        remedy = "Remove that line, then reload."
        yield warning("hooks", "hooks_off", detail, remedy, "claudemesh daemon reload")
        return
    faults = [_hook(hook) for hook in found.hooks if hook.enabled and hook.problem is not None]
    yield from faults
    for name in found.unlisted:
        detail = f"{found.manifest.parent / name} does not run: hooks.toml does not name it"
        remedy = f"Add a section for it to {found.manifest}, then reload, or remove the file."
        yield warning("hooks", "hook_not_listed", detail, remedy, "claudemesh daemon hooks")
    if found.hooks and not faults:
        yield ok("hooks", f"{sum(hook.enabled for hook in found.hooks)} can run")


def _hook(hook: HookFacts) -> Finding:
    if hook.not_executable is not None:
        detail = f"{hook.name} does not run: {hook.not_executable} is not executable"
        return failed("hooks", "hook_not_executable", detail, "Make it executable.", FIX)
    detail = f"{hook.name} does not run: {hook.problem}"
    return failed("hooks", "hook_not_runnable", detail, "Correct that.", "claudemesh daemon hooks")


CHECKS = (files, settings, disk, cache, interpreter, units, hooks)
