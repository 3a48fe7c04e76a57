"""Known topics: the mesh's topics and queues in the broker's last list. A send to any other is refused.

They are kept in topics.json, so that they are known without the broker. When the file is missing or
damaged, no send is refused until the next list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from claudemesh.daemon.calls import Ask, whole_topic_list
from claudemesh.daemon.identity.nearby import near_names
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import News, TopicCreated, TopicDeleted
from claudemesh.protocol.ids import check_topic
from claudemesh.protocol.replies import MAX_TOPICS, TopicList
from claudemesh.protocol.wire import TOPIC_MODES
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.destinations import spell_destination
from claudemesh.runtime.files import UnsafeFile, read_own, write_atomic
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.sidefiles import PacedFile, WriteFile

log = get_logger("topics")

_ASK_EVERY_S = 1.0


class KnownTopics:
    """Names and modes of the mesh's topics, in memory and in topics.json."""

    def __init__(
        self,
        path: Path,
        ask: Ask,
        connected: Callable[[], bool],
        tasks: TaskOwner,
        clock: Clock,
        write: WriteFile,
    ) -> None:
        self._path = path
        self._ask = ask
        self._connected = connected
        self._tasks = tasks
        self._clock = clock
        self._write = write
        self._file = PacedFile(tasks, self._save)
        # None before the first list: no topic is known to be missing.
        self._modes: dict[str, str] | None = None
        self._asking = asyncio.Lock()
        self._asked_at = clock.monotonic() - _ASK_EVERY_S
        self._on_list: Callable[[TopicList], None] = lambda answer: None
        self._lists = 0
        self._failed = False

    def on_list(self, listener: Callable[[TopicList], None]) -> None:
        """Set the function that gets each list of the broker."""
        self._on_list = listener

    def load(self) -> None:
        """Read topics.json."""
        try:
            items = orjson.loads(read_own(self._path))["topics"]
            self._modes = _read(items)
        except FileNotFoundError:
            return
        except (OSError, UnsafeFile, ValueError, KeyError, TypeError) as error:
            log.warning("topics_file_ignored", path=str(self._path), error=str(error))

    def check(self, kind: str, name: str) -> None:
        """Raise `ProtocolError` topic_not_found for a topic or queue that is not listed.

        Before the first list every name is accepted while the broker cannot be reached.
        """
        modes = self._modes
        if modes is None:
            if self._failed or not self._connected():
                return
            modes = {}
        if modes.get(name) != kind:
            raise _not_found(kind, name, modes, connected=self._connected())

    def missing(self, name: str, *, is_queue: bool) -> ProtocolError:
        """Return the error for a topic or queue that the broker does not have, with similar names."""
        others = {other: mode for other, mode in (self._modes or {}).items() if other != name}
        return _not_found("queue" if is_queue else "topic", name, others, connected=True)

    def apply(self, answer: TopicList) -> None:
        """Apply the broker's list. If it has malformed entries, the known topics stay beside the others."""
        modes = dict(self._modes or {}) if answer.faults else {}
        modes.update((entry.topic, entry.mode) for entry in answer.items)
        self._lists += 1
        self._on_list(answer)
        if modes != self._modes:
            self._modes = modes
            self._file.changed()

    def created(self, name: str, mode: str) -> None:
        """Add a topic that the broker has created or already had."""
        modes = self._modes
        if modes is not None and modes.get(name) != mode and (name in modes or len(modes) < MAX_TOPICS):
            modes[name] = mode
            self._file.changed()

    def deleted(self, name: str) -> None:
        """Remove a topic that was deleted."""
        if self._modes is not None and self._modes.pop(name, None) is not None:
            self._file.changed()

    def on_event(self, news: News) -> None:
        """Add a topic that another member has created, or remove one that was deleted."""
        if isinstance(news, TopicCreated):
            self.created(news.topic, news.mode)
        elif isinstance(news, TopicDeleted):
            self.deleted(news.topic)

    def link_up(self) -> None:
        """Ask for the list in the background, because the link is open."""
        self._tasks.start(self.after_miss(), "topics")

    async def after_miss(self) -> bool:
        """Ask the broker for a list that is newer than this call; return whether one came.

        Simultaneous callers share one request, and there is at most one request a second.
        """
        seen = self._lists
        async with self._asking:
            if self._lists > seen + 1:
                return True  # asked and answered after this call
            pause_s = self._asked_at + _ASK_EVERY_S - self._clock.monotonic()
            if self._modes is not None and pause_s > 0:
                await asyncio.sleep(pause_s)
            asked_at = self._clock.monotonic()
            try:
                self.apply(await whole_topic_list(self._ask))
            except ProtocolError as error:
                log.info("topics_refresh_failed", error=repr(error))
                self._failed = True
                return False
            self._asked_at, self._failed = asked_at, False
        return True

    def close(self) -> None:
        """Write the changes that are not written yet."""
        self._file.close()

    def _save(self) -> None:
        items = [{"topic": name, "mode": mode} for name, mode in (self._modes or {}).items()]
        text = orjson.dumps({"schema_version": 1, "topics": items})
        self._write(self._path.name, lambda: write_atomic(self._path, text))


def _read(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the modes by name. A malformed entry is left out."""
    modes = {}
    for item in items:
        try:
            name, mode = check_topic(item["topic"]), item["mode"]
        except (ProtocolError, KeyError, TypeError):
            continue
        if mode in TOPIC_MODES:
            modes[name] = mode
    return modes


def _not_found(kind: str, name: str, modes: Mapping[str, str], *, connected: bool) -> ProtocolError:
    shown = spell_destination(kind, name)
    other = modes.get(name)
    if other is not None:
        right = spell_destination(other, name)
        text = f"{name!r} is a {other}, not a {kind}: send to {right}."
        return ProtocolError("topic_not_found", text, near=[right], next="claudemesh topic list")
    close = near_names(name, modes)
    near = [spell_destination(modes[match], match) for match in close]
    create = f"claudemesh topic create {shown if kind == 'queue' else name}"
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    if connected:
        text = f"There is no {kind} {name!r} in this mesh.{hint} `{create}` creates it."
    else:
        text = (
            f"No {kind} {name!r} is known here, and the broker cannot be asked now whether somebody "
            f"has made it since.{hint} Send again when the daemon is connected; `{create}` creates it then."
        )
    return ProtocolError("topic_not_found", text, near=near, next=create)
