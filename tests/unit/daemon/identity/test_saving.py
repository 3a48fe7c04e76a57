"""The directory is saved in a thread while it goes on changing. Nothing older lands behind a newer state."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.identity.peersfile import PeersFile
from claudemesh.daemon.identity.saving import Saver
from tests.support.values import replace
from tests.support.waiting import WAIT_S
from tests.unit.daemon.identity.test_peersfile import latest

ADA = Peer(
    member_id="00000000-0000-7000-8000-000000000001",
    name="ada",
    pubkey="aa" * 32,
    x25519_pubkey="bb" * 32,
    key_id="k_01J0000000000000000000000A",
    role="member",
    status="active",
    summary="old",
)
EVE = replace(ADA, member_id=ADA.member_id[:-1] + "2", name="eve")


class Held(PeersFile):
    """A file whose writes wait until they are let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun, self.go = threading.Event(), threading.Event()
        self.fails = False

    def write(
        self,
        version: str | None,
        changed: Iterable[dict[str, Any]],
        everything: Iterable[dict[str, Any]] | None,
    ) -> bool:
        self.begun.set()
        if threading.current_thread() is not threading.main_thread():
            self.go.wait(WAIT_S)
        if self.fails:
            raise OSError(28, "full")
        return super().write(version, changed, everything)


def made(folder: Path) -> tuple[Held, Saver, dict[str, Peer]]:
    file = Held(folder / "peers.json")
    file.load()
    members = {ADA.member_id: ADA, EVE.member_id: EVE}
    saver = Saver(file, members)
    saver.changed(ADA.member_id)
    saver.changed(EVE.member_id)
    return file, saver, members


def kept(folder: Path) -> tuple[str | None, dict[str, str]]:
    found = PeersFile(folder / "peers.json").load()
    return found.version, latest(found)


async def begun(file: Held, saver: Saver, version: str) -> asyncio.Task[None]:
    """Begin a save in a thread, and return when it is under way."""
    task = asyncio.create_task(saver.save_aside(version))
    await asyncio.to_thread(file.begun.wait, 60)
    return task


async def test_a_change_during_a_save_is_for_the_next_one(tmp_path: Path) -> None:
    file, saver, members = made(tmp_path)
    task = await begun(file, saver, "1-aa")
    members[ADA.member_id] = replace(ADA, summary="new")
    saver.changed(ADA.member_id)
    assert not saver.is_saved("1-aa")
    file.go.set()
    await task
    assert kept(tmp_path) == ("1-aa", {ADA.member_id: "old", EVE.member_id: "old"})
    assert not saver.is_saved("1-aa")
    await saver.save_aside("2-bb")
    assert kept(tmp_path) == ("2-bb", {ADA.member_id: "new", EVE.member_id: "old"})
    assert saver.is_saved("2-bb")


async def test_a_save_that_fails_keeps_its_members_for_the_next_one(tmp_path: Path) -> None:
    file, saver, _ = made(tmp_path)
    file.go.set()
    file.fails = True
    with pytest.raises(OSError, match="full"):
        await saver.save_aside("1-aa")
    with pytest.raises(OSError, match="full"):
        saver.save("1-aa")
    assert not saver.is_saved("1-aa")
    file.fails = False
    await saver.save_aside("1-aa")
    assert kept(tmp_path) == ("1-aa", {ADA.member_id: "old", EVE.member_id: "old"})


@pytest.mark.parametrize("fails", [False, True])
async def test_the_last_save_includes_one_that_is_under_way(tmp_path: Path, fails: bool) -> None:
    """Whether that one succeeds or fails afterwards: what was changed later is what stays."""
    file, saver, members = made(tmp_path)
    task = await begun(file, saver, "1-aa")
    members[ADA.member_id] = replace(ADA, summary="new")
    saver.changed(ADA.member_id)
    file.fails = fails
    threading.Timer(0.05, file.go.set).start()
    if fails:
        with pytest.raises(OSError, match="full"):
            saver.save("2-bb")
        file.fails = False
    saver.save("2-bb")
    assert kept(tmp_path) == ("2-bb", {ADA.member_id: "new", EVE.member_id: "old"})
    await asyncio.gather(task, return_exceptions=True)
    assert kept(tmp_path) == ("2-bb", {ADA.member_id: "new", EVE.member_id: "old"})


async def test_two_saves_at_once_are_made_one_after_the_other(tmp_path: Path) -> None:
    file, saver, members = made(tmp_path)
    first = await begun(file, saver, "1-aa")
    members[EVE.member_id] = replace(EVE, summary="new")
    saver.changed(EVE.member_id)
    second = asyncio.create_task(saver.save_aside("2-bb"))
    file.go.set()
    await asyncio.gather(first, second)
    assert kept(tmp_path) == ("2-bb", {ADA.member_id: "old", EVE.member_id: "new"})
    assert saver.is_saved("2-bb")


class Counted(dict[str, Peer]):
    """Members, of which is counted how often all of them were read."""

    reads = 0

    def values(self) -> Any:
        self.reads += 1
        return super().values()


@pytest.mark.parametrize("aside", [False, True])
async def test_a_change_is_kept_without_reading_all_members(tmp_path: Path, aside: bool) -> None:
    members = Counted({ADA.member_id: ADA, EVE.member_id: EVE})
    file = PeersFile(tmp_path / "peers.json", append_at_least=1000)
    saver = Saver(file, members)

    async def change(number: int) -> None:
        members[ADA.member_id] = replace(ADA, summary=f"{number}")
        saver.changed(ADA.member_id)
        if aside:
            await saver.save_aside(f"{number}-aa")
        else:
            saver.save(f"{number}-aa")

    await change(1)
    assert members.reads == 1, "the first save writes all members"
    await change(2)
    assert members.reads == 1
    number = 2
    while members.reads == 1:
        number += 1
        await change(number)
    assert number < 10, "changes that are longer than allowed lead to another copy"
    version, found = kept(tmp_path)
    assert version == f"{number}-aa"
    assert found == {ADA.member_id: f"{number}", EVE.member_id: "old"}
