"""Facts about a host, as the checks read them. They are plain data, collected by `gather.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file or directory that has to be private. `problem` is a sentence without its full stop.

    `right_mode` is the mode that corrects it, where nothing but the mode is wrong.
    """

    name: str
    path: Path
    problem: str | None = None
    is_missing: bool = False
    right_mode: int | None = None


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """A unit of the service manager for this program; `missing` are the programs that it names in vain."""

    path: Path
    missing: tuple[str, ...] = ()
    # Whether it waits for the notification of the start, as units of this version do.
    notifies: bool = True


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Disk, cache, interpreter and units of the host."""

    free_bytes: int
    total_bytes: int
    # 0 where the file system does not count them.
    free_inodes: int
    total_inodes: int
    cache: Path | None = None
    is_cache_noexec: bool = False
    # `python3` on the PATH, when it is a script that starts another Python, and starts this program.
    python_shim: Path | None = None
    units: tuple[UnitFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class HookFacts:
    """A hook of hooks.toml. `problem` is a sentence without its full stop."""

    name: str
    enabled: bool = True
    problem: str | None = None
    # The file, when it only lacks the permission to run.
    not_executable: Path | None = None


@dataclass(frozen=True, slots=True)
class HooksFacts:
    """The hooks of a daemon; `unlisted` are files that hooks.toml does not name."""

    manifest: Path
    enabled: bool = True
    hooks: tuple[HookFacts, ...] = ()
    unlisted: tuple[str, ...] = ()
    # Why hooks.toml cannot be read.
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """A client of agents that has the integration; `name` is its word for `claudemesh integrate`.

    `missing` are the programs that it starts in vain, `missing_hooks` events without a hook, and `others` the
    further registrations of the server, each with the command that removes it.
    """

    name: str
    title: str
    path: Path
    # Why its configuration cannot be read.
    error: str | None = None
    missing: tuple[str, ...] = ()
    missing_hooks: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    # The version of the program, and the first one whose idle sessions can be woken.
    version: tuple[int, ...] | None = None
    floor: tuple[int, ...] | None = None
    # The setting with which the client runs no hooks.
    hooks_off: str | None = None
    # The permission mode in which sessions start, and the tools of the mesh that ask before they run.
    mode: str | None = None
    asking: tuple[str, ...] = ()
    # Live sessions of this client, by their reach.
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeadSend:
    """A send that was given up. `ref` is the recipient's key or the topic, if the row still has it."""

    id: str
    reason: str
    kind: str | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class LastEnd:
    """The reason for which the last run in the background has ended, from its log."""

    error: str
    detail: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class TroubledFile:
    """A file that waits with an error, that was given up, or that could not be fetched: `in` or `out`."""

    name: str
    direction: str
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """A mesh's daemon. `health` is None when none answers; `api_error` is its answer instead of the health.

    `leftovers` are the files that a daemon which was killed has left. `databases` have their verdict, and are
    only read while no daemon runs. `membership_end` is set when no daemon will run any more.
    """

    is_lock_held: bool
    leftovers: tuple[Path, ...] = ()
    health: Mapping[str, Any] | None = None
    api_error: str | None = None
    process: str = ""
    last_end: LastEnd | None = None
    membership_end: LastEnd | None = None
    databases: Mapping[Path, str] = field(default_factory=dict)
    dead: tuple[DeadSend, ...] = ()
    members: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    files: tuple[TroubledFile, ...] = ()


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """The answer of the broker at the address of the membership.

    `fault` is a code of `faults.py`, None when it answers and knows the address. `addresses` are those by
    which the broker knows itself. `invite_url` is the one that invites of this host hold.
    """

    url: str
    invite_url: str
    fault: str | None = None
    detail: str = ""
    addresses: tuple[str, ...] = ()
    # The proxy on the way, without its password.
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts about one mesh of this host."""

    slug: str
    version: str
    files: tuple[FileFacts, ...]
    config: Path
    config_exists: bool
    config_error: str | None
    host: HostFacts
    hooks: HooksFacts
    daemon: DaemonFacts
    # None when the membership cannot be read.
    broker: BrokerFacts | None
    clients: tuple[ClientFacts, ...] = ()
