"""The plan: a pure function from a seed to a schedule of faults.

The same seed, length, kinds and cluster give the same schedule. The kinds are drawn in rounds, each round
in an order of its own, so that every kind comes up before any comes up again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

DAEMON, BROKER, LINK, BROKERS = "daemon", "broker", "link", "brokers"
SERVER, DATABASE = "server", "database"
MINUTE_S: Final = 60.0
_FIRST_AT_S: Final = 2.0
_GAP_S: Final = (1.0, 5.0)
# A fault may begin while another one is under way, but never on the same target.
_CLEARANCE_S: Final = 1.5
_FRAMES: Final = ("send", "send_result", "deliver", "deliver_ack")
_DAY_S: Final = 86_400
_JUMPS_S: Final = (-400 * _DAY_S, -30 * _DAY_S, -3600, -90, 90, 3600, 40 * _DAY_S, 400 * _DAY_S)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: the roles that it strikes, and its length in seconds (shortest, longest)."""

    name: str
    roles: tuple[str, ...]
    length_s: tuple[float, float]
    summary: str
    # A worker that is struck by a graceful fault leaves nothing behind: no other worker gets its messages.
    graceful: bool = False
    # It fails writes of a process's own data.
    of_disk: bool = False


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("kill", (DAEMON, BROKER), (0.0, 2.0), "SIGKILL, then a start"),
        Kind("pause", (DAEMON, BROKER), (1.0, 8.0), "SIGSTOP, then SIGCONT"),
        Kind("partition", (LINK, BROKER, DATABASE), (1.0, 8.0), "connections are cut and refused"),
        Kind("half_open", (LINK, DATABASE), (1.0, 6.0), "traffic is swallowed, nobody is told"),
        Kind("drop", (LINK,), (1.0, 4.0), "frames of one type vanish, then the link is cut"),
        Kind("delay", (LINK,), (2.0, 8.0), "frames arrive late, in order"),
        Kind(
            "lost_result", (LINK,), (0.0, 10.0), "send results vanish on a link that lives on", graceful=True
        ),
        Kind("disk_full", (DAEMON, BROKER), (2.0, 8.0), "no space left where the data is", of_disk=True),
        Kind("eio", (DAEMON, BROKER), (1.0, 3.0), "writes and fsyncs of a database fail", of_disk=True),
        Kind("emfile", (DAEMON, BROKER), (2.0, 8.0), "no further descriptor can be opened"),
        Kind("clock", (DAEMON, BROKER), (3.0, 75.0), "the wall clock jumps, and later jumps back"),
        Kind("restore", (BROKERS,), (3.0, 10.0), "the broker's data is replaced by an older copy"),
        Kind("postgres", (SERVER,), (0.0, 3.0), "the Postgres server stops at once, then starts"),
        Kind("rolling", (BROKERS, DAEMON), (0.0, 1.0), "SIGTERM, one process after another", graceful=True),
    )
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The cluster that a plan is made for."""

    daemons: tuple[str, ...]
    brokers: tuple[str, ...]
    postgres: bool

    def targets(self, role: str) -> tuple[str, ...]:
        """Return the targets of a role; empty when this cluster has none."""
        return {
            DAEMON: self.daemons,
            LINK: tuple(f"link:{name}" for name in self.daemons),
            BROKER: self.brokers,
            BROKERS: (BROKERS,),
            SERVER: (SERVER,) if self.postgres else (),
            DATABASE: tuple(f"database:{name}" for name in self.brokers) if self.postgres else (),
        }[role]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a schedule. `detail` is the frame type of a drop and the seconds of a clock jump."""

    number: int
    at_s: float
    kind: str
    target: str
    length_s: float
    detail: str = ""


def plan(seed: int, minutes: float, kinds: Sequence[str], shape: Shape) -> tuple[Fault, ...]:
    """Return the schedule of a seed. Kinds that the cluster has no target for are left out."""
    chance = random.Random(f"{seed} {','.join(sorted(kinds))} {shape}")
    possible = [name for name in sorted(kinds) if _targets(KINDS[name], shape)]
    busy: dict[str, float] = {}
    made: list[Fault] = []
    at_s = _FIRST_AT_S
    for name in _rounds(chance, possible):
        at_s = round(at_s + chance.uniform(*_GAP_S), 2)
        if at_s > minutes * MINUTE_S:
            break
        kind = KINDS[name]
        target = chance.choice(_targets(kind, shape))
        length_s = round(chance.uniform(*kind.length_s), 2)
        at_s = max(at_s, max((busy.get(other, 0.0) for other in _conflicts(target, shape)), default=0.0))
        busy[target] = round(at_s + length_s + _CLEARANCE_S, 2)
        made.append(Fault(len(made) + 1, at_s, name, target, length_s, _detail(chance, name)))
    return tuple(made)


def _rounds(chance: random.Random, names: Sequence[str]) -> Iterator[str]:
    while names:
        yield from chance.sample(names, len(names))


def _targets(kind: Kind, shape: Shape) -> list[str]:
    # A broker on Postgres keeps no data of its own that a disk could fail.
    roles = [role for role in kind.roles if not (role == BROKER and kind.of_disk and shape.postgres)]
    return [target for role in roles for target in shape.targets(role)]


def _conflicts(target: str, shape: Shape) -> tuple[str, ...]:
    """Return the targets that a fault of this one must not overlap with."""
    if target in (BROKERS, SERVER):
        return (BROKERS, SERVER, *shape.brokers, *shape.targets(DATABASE))
    if target in shape.brokers or target.startswith(DATABASE):
        return (target, BROKERS, SERVER)
    return (target,)


def _detail(chance: random.Random, kind: str) -> str:
    if kind == "drop":
        return chance.choice(_FRAMES)
    if kind == "clock":
        return str(chance.choice(_JUMPS_S))
    return ""
