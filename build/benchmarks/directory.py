"""A member list of 20,000: what it costs who has it already, and what one change of it costs."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.client import peer_of
from benchmarks.idle import cpu_s
from benchmarks.lab import Lab
from benchmarks.size import size
from claudemesh.daemon.identity.directory import Directory
from claudemesh.protocol import replies
from claudemesh.runtime.files import append_private
from tests.support.processes import Mesh
from tests.support.wspeer import Link, Peer, http_request, make_identity, make_invite, new_id

MEMBERS = size(20_000, 150)
_CROWD = size(2_000, 150)
# Members that join and leave: 100 in a minute.
_COMING = size(100, 1)
_APART_S = 0.6
_QUESTIONS = size(400, 3)
_CHANGES = size(50, 3)
# A profile of the usual kind.
SUMMARY = "builds the release branches and answers questions about them"


def question(lab: Lab) -> tuple[float, float]:
    """Time a `peers` call for a list of 20,000 without changes, beside an empty call; milliseconds."""
    return asyncio.run(_questions(lab.with_members(MEMBERS, summary=SUMMARY)))


async def _questions(made: Mesh) -> tuple[float, float]:
    async with peer_of(made.daemons["rosa"]).connect() as link:
        pages = await whole(link)
        version = pages[-1]["version"]
        assert sum(len(page["items"]) for page in pages) == MEMBERS + 1
        asked, empty = [], []
        for _ in range(_QUESTIONS):
            started = time.perf_counter()
            await link.call("send_status", client_message_ids=[])
            between = time.perf_counter()
            answer = await link.call("peers", since=version, follow=True)
            asked.append(time.perf_counter() - between)
            empty.append(between - started)
            assert (answer["ok"]["items"], answer["ok"]["whole"]) == ([], False)
    return statistics.median(asked) * 1000, statistics.median(empty) * 1000


def churn(lab: Lab) -> tuple[float, float]:
    """Processor time of a connected daemon in a mesh of 2,000 while 100 members a minute come and go.

    In percent of a core; the bound is 1 %.
    """
    made = lab.with_members(_CROWD, summary=SUMMARY)
    rosa = made.daemons["rosa"]
    if not rosa.running:
        rosa.start()
        rosa.ready()
    return asyncio.run(_churn(made)), 1.0


async def _churn(made: Mesh) -> float:
    rosa = made.daemons["rosa"]
    owner = peer_of(rosa)
    await _come_and_go(owner, 0)
    began, before = time.monotonic(), cpu_s(rosa.pid)
    for number in range(1, _COMING + 1):
        await asyncio.sleep(began + number * _APART_S - time.monotonic())
        await _come_and_go(owner, number)
    return (cpu_s(rosa.pid) - before) / (time.monotonic() - began) * 100


async def _come_and_go(owner: Peer, number: int) -> None:
    identity, name = make_identity(), f"job-{number}-{new_id().lower()}"
    body = owner.join_body(make_invite(owner), name, identity) | {"ephemeral": True}
    status, joined = await http_request(owner.broker_url, "POST", "/v1/join", body)
    assert status == 201, joined
    job = dataclasses.replace(owner, name=name, identity=identity, member_id=joined["member_id"])
    async with job.connect() as link:
        await link.call("leave")


async def whole(link: Link) -> Sequence[dict[str, Any]]:
    """The pages of the whole list."""
    pages = [(await link.call("peers"))["ok"]]
    while pages[-1]["next"] is not None:
        pages.append((await link.call("peers", after=pages[-1]["next"]))["ok"])
    return pages


def change(lab: Lab) -> tuple[float, float]:
    """A daemon takes over and keeps one change of 20,000, beside its bytes appended and synced; ms."""
    entries = asyncio.run(_entries(lab.with_members(MEMBERS, summary=SUMMARY)))
    rosa = lab.with_members(MEMBERS).daemons["rosa"]
    folder = rosa.root.parent / "bench"
    folder.mkdir(mode=0o700, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    directory = Directory(folder / "peers.json", peer_of(rosa).mesh_id)
    directory.apply(entries)
    directory.note_version("1-" + "a" * 32)
    directory.save()
    kept, alone = [], []
    for number in range(_CHANGES):
        entry = dataclasses.replace(entries[number], summary=f"{SUMMARY} {number}")
        started = time.perf_counter()
        directory.apply([entry])
        directory.note_version(f"{number + 2}-" + "a" * 32)
        directory.save()
        kept.append(time.perf_counter() - started)
        alone.append(_append(folder / "alone", 600))
    return statistics.median(kept) * 1000, statistics.median(alone) * 1000


async def _entries(made: Mesh) -> Sequence[replies.PeerEntry]:
    async with peer_of(made.daemons["rosa"]).connect() as link:
        return [entry for page in await whole(link) for entry in replies.peers(page).items]


def _append(path: Path, size: int) -> float:
    data, end = os.urandom(size), path.stat().st_size if path.exists() else 0
    started = time.perf_counter()
    append_private(path, end, data)
    return time.perf_counter() - started
