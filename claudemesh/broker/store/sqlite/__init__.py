"""The store on SQLite: one file, one connection, whole transactions (docs/spec/broker.md, Storage)."""

from claudemesh.broker.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
