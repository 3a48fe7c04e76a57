"""Opening of the databases at a start: what was in them is never taken for nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.startup import open_files, open_outbox
from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.files import write_atomic

Open = Callable[[DaemonPaths, Any, AsyncExitStack], Awaitable[object]]
DATABASES = [(open_outbox, "outbox.db", "outbox_corrupt"), (open_files, "files.db", "files_corrupt")]


async def start(paths: DaemonPaths, opened: Open) -> None:
    """Open a database, note that it is in use, and close it."""
    async with AsyncExitStack() as stack:
        await opened(paths, None, stack)
        write_atomic(paths.schema_version, b"1\n")


@pytest.fixture
def paths(tmp_path: Path) -> DaemonPaths:
    """The files of a mesh."""
    made = DaemonPaths(tmp_path, "demo")
    made.root.mkdir(parents=True)
    return made


@pytest.mark.parametrize(("opened", "name", "code"), DATABASES)
async def test_a_database_that_has_lost_its_content_is_damaged(
    paths: DaemonPaths, opened: Open, name: str, code: str
) -> None:
    """It may have held sends that wait. The file stays as it is."""
    await start(paths, opened)
    (paths.root / name).write_bytes(b"")
    with pytest.raises(ExitWith) as caught:
        await start(paths, opened)
    assert (caught.value.code, caught.value.error) == (78, code)
    assert (paths.root / name).read_bytes() == b""


@pytest.mark.parametrize(("opened", "name", "code"), DATABASES)
async def test_a_kill_while_a_new_database_is_made_is_no_damage(
    paths: DaemonPaths, opened: Open, name: str, code: str
) -> None:
    """Also when the daemon has run before, as after a reset or a restore."""
    await start(paths, opened)
    (paths.root / name).unlink()
    async with AsyncExitStack() as stack:
        await opened(paths, None, stack)
    (paths.root / name).write_bytes(b"")
    await start(paths, opened)
