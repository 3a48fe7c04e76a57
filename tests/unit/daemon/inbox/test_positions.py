"""A position that was given out never points into another inbox."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from claudemesh.daemon.inbox.store import InboxRow, InboxStore
from claudemesh.runtime.sidefiles import WriteFile, write_never
from tests.support.clock import ManualClock
from tests.support.inbox import inbox_row


def row(number: int) -> InboxRow:
    """A message."""
    name = f"m{number}"
    return inbox_row(id=name, client_message_id=name, broker_message_id=name, history_id=number)


async def open_inbox(folder: Path, write: WriteFile = write_never) -> InboxStore:
    """The inbox in a folder."""
    return await InboxStore.open(folder / "inbox.db", ManualClock(), write=write)


async def insert(folder: Path, *numbers: int) -> list[int | None]:
    """Start, take these messages in, stop."""
    store = await open_inbox(folder)
    seqs = list(await store.insert([row(number) for number in numbers]))
    await store.close()
    return seqs


async def test_positions_go_on_by_one_over_restarts(tmp_path: Path) -> None:
    """Nothing is skipped while the database is its own successor."""
    assert await insert(tmp_path, 1, 2) == [1, 2]
    assert await insert(tmp_path, 3) == [3]


async def test_a_new_database_goes_on_behind_what_was_given_out(tmp_path: Path) -> None:
    """Lost, or damaged beyond reading."""
    await insert(tmp_path, 1, 2, 3)
    for path in tmp_path.glob("inbox.db*"):
        path.unlink()
    [first] = await insert(tmp_path, 4)
    assert first is not None
    assert first > 3
    (tmp_path / "inbox.db").write_bytes(b"not a database" * 1000)
    [second] = await insert(tmp_path, 5)
    assert second is not None
    assert second > first
    assert await insert(tmp_path, 6) == [second + 1]


async def test_an_inbox_that_has_lost_its_content_is_rebuilt(tmp_path: Path) -> None:
    """A first start that was killed leaves a file without a byte too, and no position."""
    (tmp_path / "inbox.db").write_bytes(b"")
    assert await insert(tmp_path, 1) == [1]
    assert not (tmp_path / "inbox.db.rebuild").exists()
    (tmp_path / "inbox.db").write_bytes(b"")
    [seq] = await insert(tmp_path, 2)
    assert seq is not None
    assert seq > 1
    assert (tmp_path / "inbox.db.rebuild").exists()


async def test_an_older_copy_of_the_database_alone_goes_on_behind_what_was_given_out(tmp_path: Path) -> None:
    """The file beside it was not restored."""
    await insert(tmp_path, 1)
    copy = tmp_path / "copy"
    shutil.copy(tmp_path / "inbox.db", copy)
    store = await open_inbox(tmp_path)
    seqs = await store.insert([row(number) for number in range(2, 3000)])
    await store.close()
    last = seqs[-1]
    assert last is not None
    shutil.copy(copy, tmp_path / "inbox.db")
    [first] = await insert(tmp_path, 5000)
    assert first is not None
    assert first > last


def recovered(*numbers: int) -> list[InboxRow]:
    """Messages that are read back from the history."""
    return [msgspec.structs.replace(row(number), recovered=True) for number in numbers]


async def test_a_reader_is_not_given_messages_that_were_read_back_from_the_history(tmp_path: Path) -> None:
    """They stand before the new ones, in their order, also when the daemon is killed in between."""
    [seen] = (await insert(tmp_path, 1, 2, 3))[-1:]
    (tmp_path / "inbox.db").write_bytes(b"not a database" * 1000)
    [new] = await insert(tmp_path, 4)
    for numbers in ((1, 2), (1, 2, 3)):
        store = await open_inbox(tmp_path)
        await store.insert(recovered(*numbers))
        await store.close()
    store = await open_inbox(tmp_path)
    await store.insert([row(5)])
    items, _ = await store.page()
    assert [item["id"] for item in items] == ["m1", "m2", "m3", "m4", "m5"]
    following, _ = await store.page(after=seen)
    assert [(item["seq"], item["id"]) for item in following] == [(new, "m4"), (new + 1, "m5")]
    await store.close()


async def test_messages_of_the_history_are_stored_also_without_a_free_position(tmp_path: Path) -> None:
    """Nothing is known of the positions that were given out."""
    await insert(tmp_path, 1)
    store = await open_inbox(tmp_path)
    assert await store.insert(recovered(2, 3)) == [2, 3]
    assert await store.insert([*recovered(4), row(5)]) == [4, 5]
    await store.close()


async def test_a_mark_that_cannot_be_written_holds_no_message_up(tmp_path: Path) -> None:
    """The write is handed over, to be done later, and then holds what is current."""
    later: list[tuple[str, Callable[[], None]]] = []
    store = await open_inbox(tmp_path, lambda name, write: bool(later.append((name, write))))
    mark = tmp_path / "inbox_position"
    mark.mkdir()
    (mark / "x").touch()
    assert await store.insert([row(1)]) == [1]
    (mark / "x").unlink()
    mark.rmdir()
    name, write = later[-1]
    assert name == mark.name
    write()
    assert int(mark.read_text()) > 1
    await store.close()
