"""Power loss out of recorded system calls: what a disk may hold if the machine dies at a given call.

strace records what a process writes, syncs and renames, and what it says to others. `Disk` replays
that with the promises of POSIX only: a write is on the disk after fsync of its file, a name after fsync
of its directory; until then each write may be there, be missing, or be torn at a sector, in any mix.
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests.support.batches import taken_apart

SECTOR = 512
_WRITES = ("write", "writev", "pwrite64", "sendto", "sendmsg")
_CALLS = (
    *("open", "openat", "creat", *_WRITES, "ftruncate", "fsync", "fdatasync", "rename", "renameat"),
    *("renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "linkat", "lseek"),
    # Not used today. When the product begins to use them, `_step` has to handle them.
    *("pwritev", "pwritev2", "truncate", "fallocate", "link", "copy_file_range", "sendfile"),
)

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.DOTALL)
_RESULT = re.compile(r"\) += (-?\d+|\?)(?:<([^>]*)>)?")
_QUOTED = re.compile(r'"([^"]*)"')
_DESCRIPTOR = re.compile(r"(\d+)<([^>]*)>")
_FOLDER = re.compile(r"(?:\d+|AT_FDCWD)<([^>]*)>")
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
    """A name changed: `source` came to `path`, a folder was made there, or the name is gone.

    With `linked` the file has both names.
    """

    path: str
    source: str | None = None
    folder: bool = False
    linked: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """A descriptor stands at another place of its file."""

    path: str
    descriptor: int
    offset: int


@dataclass(frozen=True, slots=True)
class Said:
    """Bytes left the process on a socket or its standard output."""

    channel: str
    data: bytes


Step: TypeAlias = Opened | Written | Moved | Truncated | Synced | Named | Said


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
        return Named(_below(arguments, strings)[0])
    if name == "linkat":
        source, path = _below(arguments, strings)
        return Named(path, source=source, linked=True)
    if name in ("rename", "renameat", "renameat2"):
        return Named(strings[1].decode(), source=strings[0].decode())
    target = _DESCRIPTOR.match(arguments)
    assert target is not None, text[:200]
    path = _decode(target[2]).decode()
    if name in ("fsync", "fdatasync"):
        return Synced(path)
    if name == "lseek":
        return Moved(path, int(target[1]), code)
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


def _below(arguments: str, strings: list[bytes]) -> list[str]:
    """Return the paths of a call, each below the directory that it names before it."""
    names = [text.decode() for text in strings]
    folders = [_decode(found).decode() for found in _FOLDER.findall(arguments)]
    if not folders:
        return names
    return [str(Path(folder, name)) for folder, name in zip(folders, names, strict=True)]


def _decode(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def frames(steps: list[Step]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The WebSocket frames that were sent, each with the step at which its first write began.

    A frame with several items is taken apart.
    """
    streams: dict[str, bytes] = {}
    for index, step in enumerate(steps):
        if not isinstance(step, Said):
            continue
        if step.channel not in streams:
            upgrade = step.data.startswith(b"HTTP/1.1 101") or b"Upgrade: websocket" in step.data
            if upgrade:
                streams[step.channel] = step.data.partition(b"\r\n\r\n")[2]
        else:
            streams[step.channel] += step.data
        while frame := _take_frame(streams.get(step.channel, b"")):
            payload, streams[step.channel] = frame
            if payload.startswith(b"{"):
                yield from ((index, each) for each in taken_apart(json.loads(payload)))


def _take_frame(stream: bytes) -> tuple[bytes, bytes] | None:
    if len(stream) < 2:
        return None
    size, at = stream[1] & 0x7F, 2
    if size == 126:
        size, at = struct.unpack_from(">H", stream, 2)[0], 4
    elif size == 127:
        size, at = struct.unpack_from(">Q", stream, 2)[0], 10
    mask = b""
    if stream[1] & 0x80:
        mask, at = stream[at : at + 4], at + 4
    if len(stream) < at + size:
        return None
    payload = stream[at : at + size]
    if mask:
        repeated = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
    return payload, stream[at + size :]


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


@dataclass(frozen=True, slots=True)
class _Move:
    """A folder has another name, and with it everything below."""

    source: str
    path: str

    def of(self, path: str) -> str:
        """Return the path that a path has after the move."""
        is_below = path == self.source or path.startswith(self.source + "/")
        return self.path + path[len(self.source) :] if is_below else path


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
        self._pending_names: defaultdict[str, list[dict[str, _File | None] | _Move]] = defaultdict(list)
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
            case Moved():
                self._positions[step.descriptor] = step.offset
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
        elif step.linked and step.source in self._names:
            self._change({step.path: self._names[step.source]})
        elif step.source in self._names and self._names[step.source].folder:
            self._moved(_Move(step.source, step.path))
        elif step.source in self._names:
            self._change({step.source: None, step.path: self._names[step.source]})

    def _moved(self, move: _Move) -> None:
        # Changes that wait below the folder wait there under its new name.
        for folder in [path for path in self._pending_names if move.of(path) != path]:
            waiting = self._pending_names.pop(folder)
            self._pending_names[move.of(folder)] = [
                change
                if isinstance(change, _Move)
                else {move.of(path): file for path, file in change.items()}
                for change in waiting
            ]
        _rename(self._names, move)
        self._pending_names[str(Path(move.source).parent)].append(move)

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


def _rename(names: dict[str, _File], change: dict[str, _File | None] | _Move) -> None:
    if isinstance(change, _Move):
        for path in [path for path in names if change.of(path) != path]:
            names[change.of(path)] = names.pop(path)
        return
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
