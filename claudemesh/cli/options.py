"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


class Duration(click.ParamType[int]):
    """`30m`, `24h`, `7d`: a whole number and a unit, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return seconds."""
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is no duration: write 30m, 24h or 7d.", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


def complete_members(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete a member's name from the directory of the daemon, if one runs."""
    # Imported here: only a shell that completes needs them.
    from claudemesh.client.errors import ClientError
    from claudemesh.client.local import LocalClient

    try:
        peers = LocalClient(ctx.params.get("mesh")).items("/v1/peers")
    except ClientError:
        return []
    return [peer["name"] for peer in peers if peer["name"].startswith(incomplete)]


def mesh_option(function: F) -> F:
    """`--mesh`, needed only where this host is in several."""
    return click.option("--mesh", metavar="SLUG", help="Which mesh, if this host is in several.")(function)


def json_option(function: F) -> F:
    """`--json`, for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
