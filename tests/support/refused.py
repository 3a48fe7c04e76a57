"""A member whose sends are all refused, in a process of its own: `-m tests.support.refused KIND FOLDER`.

FOLDER is that of its daemon, which does not run. It sends as fast as it is answered, until its standard input
ends, and then prints the number of answers by status as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import orjson

from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import load_membership
from tests.support.processes import REPOSITORY
from tests.support.waiting import WAIT_S
from tests.support.wspeer import Frame, Peer, make_identity

KINDS = ("bad signature", "unknown destination", "over quota")
# As many as a broker takes of one connection before it stops reading.
IN_FLIGHT = 1024
_DIFFERENT = 256


def member_of(folder: Path) -> Peer:
    """The member whose daemon has this folder."""
    membership = load_membership(folder / "membership.json")
    return Peer(
        membership.name,
        Keyring.load(folder / "keypair.json").current,
        membership.mesh_id,
        membership.slug,
        membership.member_id,
        membership.broker_url,
    )


def _envelopes(member: Peer, kind: str) -> Sequence[Frame]:
    if kind == "bad signature":
        sends = [member.envelope("all", f"forged {number}") for number in range(_DIFFERENT + 1)]
        return [one | {"signature": other["signature"]} for one, other in pairwise(sends)]
    if kind == "unknown destination":
        stranger = Peer("x", make_identity(), member.mesh_id, member.slug, "", member.broker_url)
        return [member.envelope(stranger, f"to nobody {number}") for number in range(_DIFFERENT)]
    return [member.envelope("all", "x" * 4000) for _ in range(_DIFFERENT)]


async def _flood(member: Peer, kind: str, stopping: asyncio.Event) -> Counter[str]:
    frames = [
        orjson.dumps({"type": "send", "id": number, "envelope": envelope}).decode()
        for number, envelope in enumerate(_envelopes(member, kind))
    ]
    counts: Counter[str] = Counter()
    free = asyncio.Semaphore(IN_FLIGHT)
    async with member.connect(max_queue=None) as link:
        await link.have_key("all")
        if kind == "over quota":
            # The broker counts stored bytes from time to time, so that a burst may pass the quota.
            statuses: set[int] = set()
            while 507 not in statuses:
                sent = [await link.send(member.envelope("all", "x" * 4000)) for _ in range(64)]
                statuses = {(await link.result(request))["status"] for request in sent}

        async def read() -> None:
            async for text in link.websocket:
                if b'"send_result"' in (text.encode() if isinstance(text, str) else text):
                    counts[str(orjson.loads(text)["status"])] += 1
                    free.release()

        reading = asyncio.create_task(read())
        number = 0
        while not stopping.is_set() and not reading.done():
            await free.acquire()
            await link.websocket.send(frames[number % len(frames)])
            number += 1
            if number == IN_FLIGHT:
                print("flooding", flush=True)
        reading.cancel()
    return counts


@dataclass
class Refused:
    """A flood that goes on; `result` has the answers by status once it has been stopped."""

    result: dict[str, int] = field(default_factory=dict)


@contextmanager
def refused(kind: str, folder: Path) -> Generator[Refused]:
    """Let a member send for as long as the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.refused", kind, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    made = Refused()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "flooding\n"
        yield made
    finally:
        out, _ = process.communicate(timeout=WAIT_S)
        made.result.update(json.loads(out))


async def _main(kind: str, folder: str) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    waiting = loop.run_in_executor(None, sys.stdin.read)
    waiting.add_done_callback(lambda _: stopping.set())
    counts = await _flood(member_of(Path(folder)), kind, stopping)
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
