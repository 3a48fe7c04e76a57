"""JSON of the console's routes, as msgspec Structs (docs/spec/daemon.md, Console)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from claudemesh.daemon.api.schemas import Body


class ConsoleCode(Struct):
    """A one-time code for a browser, and the address that holds it behind the `#`."""

    code: str
    url: str
    port: int
    expires_in_s: int


class ConsoleSessionBody(Body):
    """The code that begins a session."""

    code: Annotated[str, Meta(min_length=1, max_length=64)]


class ConsoleSession(Struct):
    """The key of a session, for the header `X-Claudemesh-Console`. The cookie is its other part."""

    key: str
    expires_in_s: int
