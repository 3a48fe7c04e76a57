"""Repairs that are safe: each is decided from the facts, and done by `apply`.

A repair removes no message and no key. Modes become narrower, files that a killed daemon has left go, and
sends whose cause of death is gone are queued again; the broker is asked first whether it has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from claudemesh.cli.diagnosis.daemon_checks import may_requeue
from claudemesh.cli.diagnosis.facts import Facts
from claudemesh.client.local import LocalClient
from claudemesh.runtime.files import FileLock

_EXECUTABLE = 0o700


@dataclass(frozen=True, slots=True)
class Repair:
    """One change. `target` is a path or the id of a send."""

    kind: Literal["chmod", "remove", "requeue"]
    target: str
    mode: int = 0

    @property
    def text(self) -> str:
        """Return the change in words."""
        if self.kind == "chmod":
            return f"chmod {self.mode:o} {self.target}"
        if self.kind == "remove":
            return f"remove {self.target}, which a killed daemon has left"
        return f"queue the send {self.target} again"


def plan(facts: Facts) -> list[Repair]:
    """Return the repairs that the facts call for, in the order in which they are made."""
    return [*_modes(facts), *_leftovers(facts), *_requeues(facts)]


def _modes(facts: Facts) -> Iterator[Repair]:
    for file in facts.files:
        if file.right_mode is not None:
            yield Repair("chmod", str(file.path), file.right_mode)
    for hook in facts.hooks.hooks:
        if hook.enabled and hook.not_executable is not None:
            yield Repair("chmod", str(hook.not_executable), _EXECUTABLE)


def _leftovers(facts: Facts) -> Iterator[Repair]:
    found = facts.daemon
    if found.health is None and not found.is_lock_held:
        for path in found.leftovers:
            yield Repair("remove", str(path))


def _requeues(facts: Facts) -> Iterator[Repair]:
    for send in may_requeue(facts.daemon):
        yield Repair("requeue", send.id)


def apply(repair: Repair, client: LocalClient) -> None:
    """Make a repair. `OSError` or `ClientError` when it cannot be made."""
    if repair.kind == "requeue":
        client.post(f"/v1/outbox/{quote(repair.target, safe='')}/requeue")
        return
    path = Path(repair.target)
    if repair.kind == "chmod":
        path.chmod(repair.mode)
        return
    # The lock keeps a daemon from starting meanwhile, whose own socket this would be.
    lock = FileLock(client.path.with_name("lock"))
    if lock.acquire():
        try:
            path.unlink(missing_ok=True)
        finally:
            lock.release()
