"""The workload: callers that send and retry under fixed ids, readers that follow, page and acknowledge."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tortures import client
from tortures.cluster import Cluster
from tortures.history import DM, QUEUE, TOPIC, History, Seen, Send

TOPIC_NAME: Final = "news"
QUEUE_NAME: Final = "work"
_NOWHERE: Final = "nowhere"
_PACE_S: Final = (0.1, 0.5)
_BURST: Final = 40
_BURST_EVERY_S: Final = (2.0, 5.0)
_RETRY_S: Final = (0.1, 0.6)
_PAGE: Final = 200
_FINAL: Final = frozenset({400, 401, 403, 404, 405, 409, 413, 415, 422})
_LARGE_BYTES: Final = 30_000
_WAIT_MS: Final = 2000


@dataclass(frozen=True, slots=True)
class Stream:
    """A caller's line of messages to one destination; the next one starts when the last is acknowledged."""

    sender: str
    kind: str
    destination: str
    line: str = ""

    @property
    def name(self) -> str:
        """Its name, and the first part of its messages' ids."""
        return "-".join(part for part in (self.sender, self.kind, self.destination, self.line) if part)


class Workload:
    """Sends and reads until told to stop, and writes down what it was answered."""

    def __init__(self, cluster: Cluster, history: History, seed: int) -> None:
        self._cluster = cluster
        self._history = history
        self._seed = seed
        self._is_stopping = asyncio.Event()
        self._positions = dict.fromkeys(cluster.shape.daemons, 0)
        self._callers: list[asyncio.Task[None]] = []
        self._readers: list[asyncio.Task[None]] = []
        self.answers: dict[int, int] = {}
        self.unanswered = 0

    async def prepare(self) -> None:
        """Make the topic and the queue, and subscribe."""
        first, *others = self._cluster.shape.daemons
        await self._ask(first, "/v1/topic/create", {"topic": TOPIC_NAME})
        await self._ask(first, "/v1/topic/create", {"topic": f"queue:{QUEUE_NAME}"})
        for name in self._cluster.shape.daemons:
            await self._ask(name, "/v1/topic/subscribe", {"topic": TOPIC_NAME})
        for name in others:
            await self._ask(name, "/v1/topic/subscribe", {"topic": f"queue:{QUEUE_NAME}"})
        self._history.subscribers = {
            TOPIC_NAME: frozenset(self._cluster.shape.daemons),
            QUEUE_NAME: frozenset(others),
        }

    async def _ask(self, name: str, path: str, body: Any) -> None:
        status, answer = await client.request(self._cluster.daemon(name).sock, "POST", path, body)
        if status not in (200, 201):
            raise RuntimeError(f"{name} answered {path} with {status} {answer}")

    def start(self) -> None:
        """Start every caller and every reader."""
        names = self._cluster.shape.daemons
        for number, name in enumerate(names):
            peer = names[(number + 1) % len(names)]
            for kind, destination in ((DM, peer), (TOPIC, TOPIC_NAME), (QUEUE, QUEUE_NAME)):
                self._callers.append(asyncio.ensure_future(self._call(Stream(name, kind, destination))))
            self._callers.append(asyncio.ensure_future(self._burst(name)))
            self._readers.append(asyncio.ensure_future(self._follow(name)))
        self._callers.append(asyncio.ensure_future(self._provoke(names[0])))
        # The first daemon's messages are acknowledged one by one, the others' never.
        self._readers.append(asyncio.ensure_future(self._page(names[0])))

    async def stop_sending(self) -> None:
        """Let every caller bring its last message to an answer."""
        self._is_stopping.set()
        await asyncio.gather(*self._callers)

    async def stop_reading(self) -> None:
        """End the readers."""
        for task in self._readers:
            task.cancel()
        results = await asyncio.gather(*self._readers, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def cancel(self) -> None:
        """End everything at once."""
        for task in (*self._callers, *self._readers):
            task.cancel()

    def followed(self, name: str) -> int:
        """The position of the reader of a daemon's event stream."""
        return self._positions[name]

    async def _call(self, stream: Stream) -> None:
        chance = random.Random(f"{self._seed} {stream.name}")
        number = 0
        while not self._is_stopping.is_set():
            number += 1
            send = self._make(stream, number, chance)
            body = _body(send)
            again = 2 if chance.random() < 0.1 else 1
            query = f"?wait_ms={_WAIT_MS}" if chance.random() < 0.1 else ""
            retries = [random.Random(f"{self._seed} {send.id} {caller}") for caller in range(again)]
            await asyncio.gather(*(self._send(send, body, query, retry) for retry in retries))
            if chance.random() < 0.05:
                # A caller that has lost the answer asks again after it was given.
                await self._send(send, body, "", chance)
            await self._pause(chance.uniform(*_PACE_S))

    async def _burst(self, sender: str) -> None:
        """Send many queue messages at once: they fill the workers' windows, and have no order."""
        chance = random.Random(f"{self._seed} {sender} burst")
        number = 0
        while not self._is_stopping.is_set():
            await self._pause(chance.uniform(*_BURST_EVERY_S))
            sends = []
            for _ in range(_BURST):
                number += 1
                send = self._make(Stream(sender, QUEUE, QUEUE_NAME, f"burst{number}"), number, chance)
                sends.append(self._send(send, _body(send), "", random.Random(f"{self._seed} {send.id}")))
            await asyncio.gather(*sends)

    async def _provoke(self, sender: str) -> None:
        """Post to a topic that does not exist: refused at once, or dead with that reason."""
        chance = random.Random(f"{self._seed} provoke")
        number = 0
        while not self._is_stopping.is_set():
            number += 1
            send = self._make(Stream(sender, TOPIC, _NOWHERE), number, chance)
            send.provokes = "not_found"
            await self._send(send, _body(send), "", chance)
            await self._pause(chance.uniform(3, 6))

    async def _pause(self, seconds: float) -> None:
        with_deadline = asyncio.wait_for(self._is_stopping.wait(), seconds)
        try:
            await with_deadline
        except TimeoutError:
            return

    def _make(self, stream: Stream, number: int, chance: random.Random) -> Send:
        size = _LARGE_BYTES if chance.random() < 0.02 else chance.randrange(200)
        text = json.dumps({"stream": stream.name, "number": number, "pad": "x" * size})
        send = Send(
            id=f"{stream.name}-{number}",
            sender=stream.sender,
            kind=stream.kind,
            destination=stream.destination,
            stream=stream.name,
            number=number,
            text=text,
            began_s=time.monotonic(),
        )
        self._history.sends.append(send)
        return send

    async def _send(self, send: Send, body: Any, query: str, chance: random.Random) -> None:
        """Send until there is a final answer; the id stays the same."""
        sock = self._cluster.daemon(send.sender).sock
        while True:
            try:
                status, answer = await client.request(sock, "POST", f"/v1/send{query}", body)
            except client.Unanswered:
                self.unanswered += 1
                await asyncio.sleep(chance.uniform(*_RETRY_S))
                continue
            self.answers[status] = self.answers.get(status, 0) + 1
            if self._note(send, status, answer):
                return
            await asyncio.sleep(chance.uniform(*_RETRY_S))

    def _note(self, send: Send, status: int, answer: Any) -> bool:
        """Write an answer down; return whether it is final."""
        if status in (200, 202):
            if send.accepted_s is None:
                send.accepted_s = time.monotonic()
            if answer.get("broker_message_id") is not None:
                send.broker_ids.add(answer["broker_message_id"])
            return True
        if status in _FINAL:
            send.refusals.append(f"{status} {answer.get('error')} {answer.get('reason', '')}".strip())
            return True
        return False

    async def _follow(self, name: str) -> None:
        """Follow a daemon's event stream over all its restarts, from the position of the last message."""
        sock = self._cluster.daemon(name).sock
        while True:
            try:
                async for event, seq, data in client.events(sock, self._positions[name]):
                    if event == "message":
                        self._history.seen.append(Seen(name, seq, data["client_message_id"]))
                        self._positions[name] = seq
            except client.Unanswered:
                pass
            await asyncio.sleep(0.1)

    async def _page(self, name: str) -> None:
        """Read a daemon's inbox page by page, and mark what was read as done."""
        sock = self._cluster.daemon(name).sock
        after = 0
        while True:
            with suppress(client.Unanswered):
                after = await self._read_page(name, after, lambda path, body: _get_or_post(sock, path, body))
            await asyncio.sleep(0.5)

    async def _read_page(
        self, name: str, after: int, ask: Callable[[str, Any], Awaitable[tuple[int, Any]]]
    ) -> int:
        status, page = await ask(f"/v1/inbox?limit={_PAGE}&after={after}", None)
        if status != 200 or not page["items"]:
            return after
        items = page["items"]
        status, _ = await ask("/v1/inbox/ack", {"ids": [item["id"] for item in items], "as": "acked"})
        if status != 200:
            return after
        self._history.marked.update((name, item["client_message_id"]) for item in items)
        return int(items[-1]["seq"])


def _body(send: Send) -> dict[str, Any]:
    to = {DM: send.destination, TOPIC: f"#{send.destination}", QUEUE: f"queue:{send.destination}"}[send.kind]
    return {"to": to, "message": send.text, "client_message_id": send.id}


async def _get_or_post(sock: Any, path: str, body: Any) -> tuple[int, Any]:
    return await client.request(sock, "GET" if body is None else "POST", path, body)
