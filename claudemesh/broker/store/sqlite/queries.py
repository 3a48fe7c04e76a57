"""The statements of this engine, by name."""

from __future__ import annotations

from claudemesh.runtime.queries import load_queries

QUERIES = load_queries("claudemesh.broker.store.sqlite", "queries.sql")
BLOBS = load_queries("claudemesh.broker.store.sqlite", "blobs.sql")
