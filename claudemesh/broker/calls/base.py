"""The interface of calls, and checks of their parameters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from msgspec import Struct

from claudemesh.broker.context import Context
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import has_control

Params: TypeAlias = Mapping[str, object]
Answer: TypeAlias = Mapping[str, object]


class Caller(Struct, frozen=True):
    """The member that calls, as its connection has authenticated it."""

    context: Context
    mesh_id: str
    member_id: str
    connection_id: str


_MOST = 2**63 - 1

Method: TypeAlias = Callable[[Caller, Params], Awaitable[Answer]]


def only(params: Params, *names: str) -> None:
    """Refuse parameters that the method does not know."""
    unknown = sorted(set(params) - set(names))
    if unknown:
        raise ProtocolError("unknown_field", f"The method has no parameter {unknown[0][:64]!r}. Remove it.")


def count(params: Params, name: str, default: int) -> int:
    """Return a whole number from 0, the default where there is none."""
    value = params.get(name, default)
    if type(value) is not int or not 0 <= value <= _MOST:
        raise InvalidField("invalid_params", name, f"{name} must be a whole number from 0.")
    return value


def flag(params: Params, name: str, *, default: bool = False) -> bool:
    """Return true or false, the default where it is not given."""
    value = params.get(name, default)
    if not isinstance(value, bool):
        raise InvalidField("invalid_params", name, f"{name} must be true or false.")
    return value


def short_text(params: Params, name: str, limit: int) -> str | None:
    """Return an optional text of at most `limit` characters without control characters."""
    value = params.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > limit or has_control(value):
        raise InvalidField(
            "invalid_params",
            name,
            f"{name} must be a text of at most {limit} characters, none of them a control character.",
        )
    return value
