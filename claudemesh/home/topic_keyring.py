"""Keys of topics and queues that this host holds: `topic_keys.json` (docs/spec/daemon.md, Files).

Each entry is a key beside the statement by which its maker has made the epoch. The statement lets this host
register the epoch again at a broker that was restored from before it.

Crash story: a change is on the disk before it is in memory, and a key is in the file before anything is
sealed with it or said of it to the broker. A key that a crash has kept out comes again by its wrap.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from claudemesh.home.key_archive import move_aside
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_topic
from claudemesh.protocol.topic_keys import KEY_BYTES, EpochStatement, TopicKey
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import read_private, write_atomic
from claudemesh.runtime.logs import get_logger

log = get_logger("keys")

_SCHEMA_VERSION: Final = 1

# The newest epochs of a topic, kept on the disk, and older ones of all topics, kept in memory.
MAX_EPOCHS: Final = 64
MAX_OLDER: Final = 4096


class HeldKey(NamedTuple):
    """A key of a topic, and the statement of its epoch's maker."""

    key: TopicKey
    statement: EpochStatement


class TopicKeyring:
    """The held keys, in memory and on disk."""

    def __init__(self, path: Path, mesh_id: str, held: Iterable[HeldKey] = ()) -> None:
        self._path = path
        self._mesh_id = mesh_id
        self._topics: dict[str, dict[int, HeldKey]] = {}
        self._older: dict[tuple[str, int], HeldKey] = {}
        for one in held:
            self._topics.setdefault(one.key.topic, {})[one.key.key_epoch] = one

    @classmethod
    def load(cls, path: Path, mesh_id: str, wall_ms: int) -> TopicKeyring:
        """Read the file. A malformed one is moved aside: the keys come again by their wraps.

        `OSError` and `UnsafeFile` for a file that cannot be read, `ExitWith` for one of a newer version.
        """
        try:
            return cls(path, mesh_id, parse_keys(read_private(path), mesh_id))
        except FileNotFoundError:
            return cls(path, mesh_id)
        except (ValueError, KeyError, TypeError, ProtocolError):
            # The error may quote the content, which is secret.
            moved = move_aside(path, wall_ms)
            log.error("topic_keys_malformed", moved_to=str(moved))
            return cls(path, mesh_id)

    @property
    def topics(self) -> Sequence[str]:
        """The topics of which a key is held."""
        return tuple(self._topics)

    def find(self, topic: str, key_epoch: int) -> HeldKey | None:
        """Return the key of an epoch."""
        found = self._topics.get(topic, {}).get(key_epoch)
        return self._older.get((topic, key_epoch)) if found is None else found

    def newest(self, topic: str) -> HeldKey | None:
        """Return the key of the newest epoch that is held."""
        epochs = self._topics.get(topic)
        return epochs[max(epochs)] if epochs else None

    def add(self, held: HeldKey) -> None:
        """Write a key. `OSError` changes nothing. An epoch that is held under another commitment is replaced.

        The oldest epochs of the topic beyond 64 stay in memory: a host that was away for long opens what it
        is owed, and asks for their wraps again after a crash. It takes one caller at a time, in any thread.
        """
        topic = held.key.topic
        epochs = {**self._topics.get(topic, {}), held.key.key_epoch: held}
        kept = dict(sorted(epochs.items())[-MAX_EPOCHS:])
        if held.key.key_epoch not in kept:
            self._keep_older(held)
            return
        topics = {**self._topics, topic: kept}
        write_atomic(self._path, encode_keys(one for of in topics.values() for one in of.values()))
        self._topics = topics
        for key_epoch in epochs.keys() - kept.keys():
            self._keep_older(epochs[key_epoch])

    def _keep_older(self, held: HeldKey) -> None:
        self._older[held.key.topic, held.key.key_epoch] = held
        while len(self._older) > MAX_OLDER:
            del self._older[next(iter(self._older))]


def parse_keys(raw: bytes, mesh_id: str) -> tuple[HeldKey, ...]:
    """Return the keys of a file.

    `ValueError`, `KeyError`, `TypeError` or `ProtocolError` when it is malformed. `ExitWith` schema_too_new
    for the file of a newer version.
    """
    value = orjson.loads(raw)
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is int and version > _SCHEMA_VERSION:
        raise ExitWith(
            CONFIGURATION,
            "schema_too_new",
            "The file topic_keys.json was written by a newer claudemesh. Use that version, or a later one.",
        )
    if type(version) is not int or version != _SCHEMA_VERSION:
        raise ValueError("schema_version is not known")
    return tuple(_parse(item, mesh_id) for item in value["keys"])


def encode_keys(held: Iterable[HeldKey]) -> bytes:
    """Return the content of the file."""
    entries = [
        {
            "topic": one.key.topic,
            "key": base64.b64encode(one.key.key).decode(),
            **one.statement.to_dict(),
        }
        for one in held
    ]
    return orjson.dumps({"schema_version": _SCHEMA_VERSION, "keys": entries})


def _parse(item: Mapping[str, Any], mesh_id: str) -> HeldKey:
    topic = check_topic(item["topic"])
    statement = EpochStatement.parse(dict(item), topic)
    key = TopicKey(topic, statement.key_epoch, base64.b64decode(item["key"], validate=True))
    if len(key.key) != KEY_BYTES or key.commitment(mesh_id) != statement.commitment:
        raise ValueError("a key does not match its commitment")
    return HeldKey(key, statement)
