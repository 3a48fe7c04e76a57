"""The store on Postgres: any number of connections, and of brokers beside this one.

| module | holds |
|---|---|
| `store` | `PostgresStore`, which holds one object for each facet |
| `accept` | the arguments and rows of the accept function |
| `preflight` | the first connection: checks of the server, then migrations |
| `schema` | migrations |
| `sessions` | the settings and socket options of a connection |
| `pools` | connections, deadlines, retries |
| `errors` | translation of the library's errors into ours |
| `values` | rows to dataclasses and back |

The other modules implement one facet each (store/facets.py), like their namesakes in store/sqlite.
"""

from claudemesh.broker.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
