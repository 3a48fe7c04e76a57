"""Saver of a directory: writes its changes beside the event loop, or at once when the daemon stops.

Members are never changed in place, so a thread writes those that it was given while the directory goes on
changing. A save takes the members that are not saved, and puts them back when it fails. A save that was
given its members later and is made at once includes those of one that is under way, which then writes
nothing more: no older state of a member is written behind a newer one. A save that is appended takes nothing
but what has changed, so that its cost does not grow with the mesh.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from claudemesh.daemon.identity.peer import Peer, saved
from claudemesh.daemon.identity.peersfile import PeersFile


class _Save(Struct):
    """One save: the version of the list, the members that changed, and all of them if they are written."""

    version: str | None
    member_ids: frozenset[str]
    changed: Sequence[Peer]
    everything: Sequence[Peer] | None
    is_overtaken: bool = field(default=False)


class Saver:
    """Keeps which members are not saved, and saves them."""

    def __init__(self, file: PeersFile, members: Mapping[str, Peer]) -> None:
        self._file = file
        self._members = members
        self._unsaved: set[str] = set()
        self._saved_version: str | None = None
        self._under_way: _Save | None = None
        self._turn = asyncio.Lock()
        self._writing = threading.Lock()

    def changed(self, member_id: str) -> None:
        """Note that a member has to be saved."""
        self._unsaved.add(member_id)

    def loaded(self, version: str | None) -> None:
        """Note that all members are as the file has them."""
        self._unsaved.clear()
        self._saved_version = version

    def is_saved(self, version: str | None) -> bool:
        """Whether the file has all members, and this version."""
        return self._under_way is None and not self._unsaved and version == self._saved_version

    def save(self, version: str | None) -> None:
        """Write what is not saved, now. Raise `OSError`, which names the file."""
        under_way = self._under_way
        if under_way is not None:
            under_way.is_overtaken = True
            self._unsaved |= under_way.member_ids
        save = self._begin(version)
        try:
            self._write_all(save)
        except BaseException:
            self._unsaved |= save.member_ids
            raise
        self._saved_version = version

    async def save_aside(self, version: str | None) -> None:
        """Write what is not saved, in a thread. Raise `OSError`, which names the file."""
        async with self._turn:
            save = self._under_way = self._begin(version)
            try:
                if not await asyncio.to_thread(self._write, save):
                    # Members that change from here on are newer than `version`, and are in the next save too.
                    save.everything = tuple(self._members.values())
                    await asyncio.to_thread(self._write, save)
            except BaseException:
                self._unsaved |= save.member_ids
                raise
            finally:
                self._under_way = None
            if not save.is_overtaken:
                self._saved_version = version

    def _begin(self, version: str | None) -> _Save:
        ids, self._unsaved = frozenset(self._unsaved), set()
        # A member that was forgotten since is left out.
        changed = [self._members[member_id] for member_id in ids if member_id in self._members]
        save = _Save(version, ids, changed, None)
        if self._file.is_new:
            save.everything = tuple(self._members.values())
        return save

    def _write_all(self, save: _Save) -> None:
        if not self._write(save):
            save.everything = tuple(self._members.values())
            self._write(save)

    def _write(self, save: _Save) -> bool:
        """Write a save that is not overtaken. False: the file needs all members."""
        with self._writing:
            if save.is_overtaken:
                return True
            everything = save.everything
            all_of_them = None if everything is None else map(saved, everything)
            return self._file.write(save.version, map(saved, save.changed), all_of_them)
