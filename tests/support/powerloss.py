"""Power loss out of recorded system calls: what a disk may hold if the machine dies at a given call.

strace records what a process writes, syncs and renames, and what it says to others. `Disk` replays
that with the promises of POSIX only: a write is on the disk after fsync of its file, a name after fsync
of its directory; until then each write may be there, be missing, or be torn at a sector, in any mix.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

SECTOR = 512
_WRITES = ("write", "writev", "pwrite64", "sendto", "sendmsg")
_CALLS = (
    *("open", "openat", "creat", *_WRITES, "ftruncate", "fsync", "fdatasync", "rename", "renameat"),
    *("renameat2", "unlink", "unlinkat", "mkdir", "mkdirat"),
    # Not used today. When the product begins to use them, `_step` has to handle them.
    *("pwritev", "pwritev2", "truncate", "fallocate", "link", "linkat", "copy_file_range", "sendfile"),
)

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.DOTALL)
_RESULT = re.compile(r"\) += (-?\d+|\?)(?:<([^>]*)>)?")
_QUOTED = re.compile(r'"([^"]*)"')
_DESCRIPTOR = re.compile(r"(\d+)<([^>]*)>")
_CUT = "<unfinished ...>\n"


@dataclass(frozen=True, slots=True)
class Opened:
    """A file was opened, and made if it was not there."""

    path: str
    descriptor: int
    truncate: bool


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes went to a file; without an offset to where its descriptor stands."""

    path: str
    descriptor: int
    offset: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncated:
    """A file has a new size."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    """The sync of a file or directory has returned."""

    path: str


@dataclass(frozen=True, slots=True)
class Named:
    """A name changed: `source` came to `path`, a folder was made there, or the name is gone."""

    path: str
    source: str | None = None
    folder: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """Bytes left the process on a socket or its standard output."""

    channel: str
    data: bytes


Step: TypeAlias = Opened | Written | Truncated | Synced | Named | Said


def recorder(log: Path) -> list[str]:
    """Return the prefix of a command that records it; the command stays the caller's own child."""
    filters = ["-e", f"trace={','.join(_CALLS)}", "--seccomp-bpf"]
    return ["strace", "-D", "-f", "-y", "-xx", "-qq", "-s", "99999999", *filters, "-o", str(log)]


def read_steps(log: Path) -> list[Step]:
    """Return what was recorded: writes and speech where they began, everything else where it ended."""
    slots: list[Step | None] = []
    begun: dict[str, tuple[str, str, int]] = {}
    with log.open(encoding="ascii") as lines:
        for line in lines:
            match = _LINE.match(line)
            if match is None:
                continue  # a signal, or an exit
            thread, resumed, name, rest = match.groups()
            if resumed:
                name, start, slot = begun.pop(thread)
                if name not in _WRITES:
                    slots.append(None)
                    slot = -1
                slots[slot] = _step(name, start + rest)
            elif rest.endswith(_CUT):
                begun[thread] = (name, rest.removesuffix(_CUT), len(slots))
                slots.append(None)
            else:
                slots.append(_step(name, rest))
    return [step for step in slots if step is not None]


def _step(name: str, text: str) -> Step | None:
    """Read one call; None for one that failed or that changes nothing."""
    result = _RESULT.search(text)
    code = int(result[1]) if result and result[1] != "?" else 0
    if result is None or code < 0:
        return None
    arguments = text[: result.start()]
    strings = [_decode(quoted) for quoted in _QUOTED.findall(arguments)]
    if name in ("open", "openat", "creat"):
        if "O_WRONLY" not in arguments and "O_RDWR" not in arguments:
            return None
        return Opened(_decode(result[2]).decode(), code, "O_TRUNC" in arguments)
    if name in ("mkdir", "mkdirat"):
        return Named(strings[0].decode(), folder=True)
    if name in ("unlink", "unlinkat"):
        return Named(strings[0].decode())
    if name in ("rename", "renameat", "renameat2"):
        return Named(strings[1].decode(), source=strings[0].decode())
    target = _DESCRIPTOR.match(arguments)
    assert target is not None, text[:200]
    path = _decode(target[2]).decode()
    if name in ("fsync", "fdatasync"):
        return Synced(path)
    if name == "ftruncate":
        return Truncated(path, int(arguments.rpartition(",")[2]))
    if name not in _WRITES:
        raise AssertionError(f"the power-loss model does not know {name}")
    data = b"".join(strings)
    if result[1] != "?":
        data = data[:code]
    if not path.startswith("/"):
        return Said(path, data)
    if name == "pwrite64":
        return Written(path, int(target[1]), int(arguments.rpartition(",")[2]), data)
    return Written(path, int(target[1]), None, data)


def _decode(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(eq=False, slots=True)
class _File:
    """The durable content of a file, and the writes since: (offset, bytes), or a size."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)
    folder: bool = False

    def sync(self) -> None:
        """Make everything durable."""
        self._apply(self.durable, None, keep=True)
        self.pending.clear()

    def left(self, choose: random.Random | None, *, keep: bool) -> bytes:
        """Return the files that a power loss now leaves."""
        data = bytearray(self.durable)
        self._apply(data, choose, keep=keep)
        return bytes(data)

    def _apply(self, data: bytearray, choose: random.Random | None, *, keep: bool) -> None:
        for change in self.pending:
            if isinstance(change, int):
                if keep or (choose is not None and choose.random() < 0.5):
                    _resize(data, change)
                continue
            for start, piece in [change] if keep else _survivors(*change, choose):
                if len(data) < start:
                    _resize(data, start)
                data[start : start + len(piece)] = piece


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


def _survivors(offset: int, written: bytes, choose: random.Random | None) -> Iterable[tuple[int, bytes]]:
    """Whole, not at all, or some of its sectors."""
    fate = "lost" if choose is None else choose.choice(("lost", "kept", "torn"))
    if fate == "lost" or choose is None:
        return
    if fate == "kept":
        yield offset, written
        return
    end = offset + len(written)
    for sector in range(offset // SECTOR * SECTOR, end, SECTOR):
        start, stop = max(sector, offset), min(sector + SECTOR, end)
        if choose.random() < 0.5:
            yield start, written[start - offset : stop - offset]


class Disk:
    """One folder of one process, step by step; `image` is what a power loss now may leave of it."""

    def __init__(self, root: Path, before: dict[str, bytes]) -> None:
        self._root = str(root)
        self._names = {path: _File(bytearray(data)) for path, data in before.items()}
        self._names[self._root] = _File(folder=True)
        for path in before:
            for parent in Path(path).parents:
                if parent.is_relative_to(root):
                    self._names.setdefault(str(parent), _File(folder=True))
        self._durable_names = dict(self._names)
        self._pending_names: defaultdict[str, list[dict[str, _File | None]]] = defaultdict(list)
        self._positions: dict[int, int] = {}

    def apply(self, step: Step) -> None:
        """Take one step; what happens outside of the folder is passed over."""
        if isinstance(step, Said) or not step.path.startswith(self._root):
            return
        match step:
            case Opened():
                self._opened(step)
            case Named():
                self._renamed(step)
            case Written():
                self._written(step)
            case Truncated():
                if file := self._names.get(step.path):
                    file.pending.append(step.size)
            case Synced():
                self._synced(step.path)

    def image(self, choose: random.Random | None = None, *, keep: bool = False) -> dict[str, bytes]:
        """Return a possible image: only synced writes, all writes (`keep`), or a random mix (`choose`)."""
        names = dict(self._names) if keep else dict(self._durable_names)
        if not keep and choose is not None:
            for changes in self._pending_names.values():
                # A directory's changes reach the disk in their order.
                for change in changes[: choose.randint(0, len(changes))]:
                    _rename(names, change)
        return {
            path: file.left(choose, keep=keep)
            for path, file in names.items()
            if not file.folder and self._has_parents(path, names)
        }

    def _has_parents(self, path: str, names: dict[str, _File]) -> bool:
        parents = (str(parent) for parent in Path(path).parents)
        return all(parent in names for parent in parents if parent.startswith(self._root))

    def _opened(self, step: Opened) -> None:
        self._positions[step.descriptor] = 0
        if step.path not in self._names:
            self._change({step.path: _File()})
        elif step.truncate:
            self._names[step.path].pending.append(0)

    def _written(self, step: Written) -> None:
        file = self._names.get(step.path)
        if file is None:
            return  # already without a name
        offset = step.offset
        if offset is None:
            offset = self._positions.get(step.descriptor, 0)
            self._positions[step.descriptor] = offset + len(step.data)
        file.pending.append((offset, step.data))

    def _renamed(self, step: Named) -> None:
        if step.folder:
            self._change({step.path: _File(folder=True)})
        elif step.source is None:
            self._change({step.path: None})
        elif step.source in self._names:
            self._change({step.source: None, step.path: self._names[step.source]})

    def _change(self, change: dict[str, _File | None]) -> None:
        _rename(self._names, change)
        self._pending_names[str(Path(next(iter(change))).parent)].append(change)

    def _synced(self, path: str) -> None:
        file = self._names.get(path)
        if file is None:
            return
        if file.folder:
            for change in self._pending_names.pop(path, ()):
                _rename(self._durable_names, change)
        else:
            file.sync()


def _rename(names: dict[str, _File], change: dict[str, _File | None]) -> None:
    for path, file in change.items():
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


def files_under(root: Path) -> dict[str, bytes]:
    """Every file of a folder: what was on the disk before the recording began."""
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def write_image(image: dict[str, bytes], names: Iterable[str], folder: Path) -> None:
    """Lay out the files of these names (their last part) in a folder, emptied first."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for path, data in image.items():
        if Path(path).name in names:
            (folder / Path(path).name).write_bytes(data)
