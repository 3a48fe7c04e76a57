"""The store on Postgres (broker.md, Storage): any number of connections, and of brokers beside this one.

| module | holds |
|---|---|
| `store` | the `Store` itself |
| `accept` | the accept function's arguments and answers |
| `members` | taking an invite's use with the member row |
| `values` | rows to dataclasses and back |
| `pools` | connections, retries, and what an error means |
| `preflight` | the first connection: is this a database to trust with messages? |
| `schema` | migrations |
"""

from claudemesh.broker.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
