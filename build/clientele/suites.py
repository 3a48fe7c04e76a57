"""Suites of cases: each case runs with two hosts of its own, and fails by an exception."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.support.processes import Mesh, mesh, until

Case: TypeAlias = Callable[[Mesh], None]
_STATES = ("queued", "accepted", "delivered", "notified", "shown", "acked")


@dataclass(frozen=True)
class Suite:
    """The cases of one program; without a version it is not installed."""

    title: str
    short: str
    version: str | None
    cases: Mapping[str, Case]

    def run(self, wanted: tuple[str, ...]) -> list[bool]:
        """Run the cases whose name begins as wanted, and return how each went."""
        if self.version is None:
            print(f"skipped {self.title}: it is not installed", flush=True)
            return []
        chosen = {
            name: case
            for name, case in self.cases.items()
            if name.startswith(wanted) or f"{self.short} {name}".startswith(wanted)
        }
        if chosen:
            print(f"{self.title}: {self.version}", flush=True)
        return [_run(f"{self.short} {name}", case) for name, case in chosen.items()]


def _run(name: str, case: Case) -> bool:
    begun = time.monotonic()
    try:
        with mesh("alice", "bob") as hosts:
            case(hosts)
    except Exception as error:
        print(f"FAILED  {name}: {error}", flush=True)
        traceback.print_exception(error)
        return False
    print(f"ok      {name}  {time.monotonic() - begun:.1f} s", flush=True)
    return True


def sent_to(hosts: Mesh, session: str, text: str, name: str, receipt: str = "acked") -> str:
    """Send a message of alice to a session of bob, and return its id."""
    answer = hosts.daemons["alice"].send(f"bob/{session}", text, client_message_id=name, receipt=receipt)
    assert answer[0] == 202, answer
    return name


def reached(hosts: Mesh, name: str, state: str, sender: str = "alice") -> Mapping[str, Any]:
    """Wait until a message has come so far, and return what its sender sees."""

    def looked() -> Mapping[str, Any] | None:
        row = hosts.daemons[sender].request("GET", f"/v1/outbox/{name}")[1]
        # A send that is not made yet has no row.
        present = row.get("state")
        return row if present in _STATES and _STATES.index(present) >= _STATES.index(state) else None

    found: Mapping[str, Any] = until(looked, f"{name} is {state}")
    return found
