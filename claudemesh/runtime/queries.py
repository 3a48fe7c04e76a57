"""Named SQL statements from .sql files: `-- name: one sentence`, then the statement."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_HEADER = re.compile(r"^-- ([a-z][a-z0-9_]*): \S.*$", re.MULTILINE)


def parse_queries(text: str) -> Mapping[str, str]:
    """Return a mapping from name to statement. Raise `ValueError` for a repeated name or an empty
    statement."""
    parts = _HEADER.split(text)
    queries: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        statement = body.strip().removesuffix(";").strip()
        if not statement or name in queries:
            raise ValueError(f"query {name!r} is empty or stands twice")
        queries[name] = statement
    return queries


def load_queries(package: str, filename: str) -> Mapping[str, str]:
    """Read a .sql file that ships inside a package."""
    return parse_queries(files(package).joinpath(filename).read_text(encoding="utf-8"))
