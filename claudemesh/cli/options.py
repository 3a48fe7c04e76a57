"""Options and parameter types that several commands share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from claudemesh.cli.next_commands import NAMES_NO_AUTHORITY

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FILE_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_SEQ = re.compile(r"[0-9]{1,18}")
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def parse_duration(text: str) -> int:
    """Return the seconds of `30s`, `10m`, `24h` or `7d`. Raise `ValueError` for any other text."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration. Use a number and a unit, such as 30s, 10m, 24h or 7d.")
    return int(match[1]) * _UNITS[match[2]]


class Duration(click.ParamType[int]):
    """A duration such as `10m`, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return seconds."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[str]):
    """A moment: the time since then, such as `1h`, or an ISO 8601 time, as UTC in ISO 8601.

    A time without a zone is local time.
    """

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `2026-01-02T03:04:05.678Z`."""
        # Imported here: only commands with such an option need it.
        from datetime import datetime

        from claudemesh.runtime.clock import iso_ms

        if _DURATION.fullmatch(value):
            return iso_ms(int((time.time() - parse_duration(value)) * 1000))
        try:
            return iso_ms(round(datetime.fromisoformat(value).timestamp() * 1000))
        except (ValueError, OverflowError, OSError):
            text = f"{value!r} is not a time. Use a duration, such as 30m or 1h, or a time, such as"
            self.fail(f"{text} 2026-01-31T12:00:00Z.", param, ctx)


class Position(click.ParamType[Any]):
    """A position in the inbox: the seq of a message, `now` or `unread`."""

    name = "position"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["now", "unread"]:
        """Return the seq as a number, or the word."""
        if value == "now" or value == "unread":
            word: Literal["now", "unread"] = value
            return word
        if not isinstance(value, int) and _SEQ.fullmatch(value) is None:
            self.fail(f"{value!r} is not a position. Use the number of a message, now or unread.", param, ctx)
        return int(value)


class FileId(click.ParamType[str]):
    """The id of a file."""

    name = "file id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id as it is."""
        if _FILE_ID.fullmatch(value) is None:
            listed = "file list --sent" if ctx and ctx.info_name == "delete" else "file list"
            text = f"{value!r} is not the id of a file. An id has 26 digits and capital letters."
            text = f"{text} `claudemesh {listed}` shows the ids."
            self.fail(text, param, ctx)
        return str(value)


def default_name() -> str:
    """Return the host name, changed where needed into a valid name of a member."""
    # Imported here: only commands that make a member need it.
    import platform

    name = re.sub(r"[^A-Za-z0-9._-]", "-", platform.node().partition(".")[0])[:63]
    return name if re.match(r"[A-Za-z0-9]", name) else "host"


def complete_members(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a member, from the running daemon; without a daemon there are no completions."""
    # Imported here: only completion needs them.
    from claudemesh.client.errors import ClientError
    from claudemesh.client.local import LocalClient

    try:
        peers = LocalClient(ctx.params.get("mesh")).items("/v1/peers")
    except ClientError:
        return []
    return [peer["name"] for peer in peers if peer["name"].startswith(incomplete)]


def complete_meshes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the slug of a mesh that this host has joined."""
    # Imported here: only completion needs them.
    from claudemesh.client.errors import ClientError
    from claudemesh.client.meshes import meshes

    try:
        return [slug for slug in meshes() if slug.startswith(incomplete)]
    except ClientError:
        return []


class VariableOption(click.Option):
    """An option with an environment variable that other code reads, named for `describe`."""

    def __init__(self, *args: Any, variable: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.variable = variable


def variable_of(option: click.Option) -> str | None:
    """Return the environment variable that stands for an option."""
    if isinstance(option, VariableOption):
        return option.variable
    return option.envvar if isinstance(option.envvar, str) else None


def mesh_option(function: F) -> F:
    """Add `--mesh`, which is needed only when this host is in several meshes."""
    return click.option(
        "--mesh",
        cls=VariableOption,
        variable="CLAUDEMESH_MESH",
        metavar="SLUG",
        shell_complete=complete_meshes,
        help="Slug of the mesh. Needed only when this host is in several. Default: CLAUDEMESH_MESH, then the "
        "choice of `mesh use`.",
    )(function)


def ca_file_option(function: F) -> F:
    """Add `--ca-file`, for a broker with a certificate of one's own authority."""
    return click.option(
        "--ca-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        callback=_check_authorities,
        help="Certificate (PEM) of an authority of your own, trusted for this broker.",
    )(function)


def _check_authorities(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    ctx.meta[NAMES_NO_AUTHORITY] = value is None
    if value is None:
        return None
    # Imported here: only a command with this option needs TLS.
    from claudemesh.client.errors import UntrustedCertificate
    from claudemesh.runtime.outward import read_authorities

    try:
        read_authorities(value)
    except ValueError as error:
        text = f"{error} Give --ca-file the certificate of the authority that has signed the broker's."
        raise UntrustedCertificate("invalid_ca_file", text) from error
    return value


def all_option(text: str) -> Callable[[F], F]:
    """Add `--all`, which means the daemons of all meshes of this host."""
    return click.option("--all", "is_all", is_flag=True, help=text)


def refuse_mesh_with_all(mesh: str | None) -> None:
    """Refuse `--mesh` beside `--all`."""
    if mesh is not None:
        raise click.UsageError("--mesh and --all exclude each other.")


def json_option(function: F) -> F:
    """Add `--json`, the output for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def json_lines_option(function: F) -> F:
    """Add `--json` to a command that prints nothing but JSON."""
    return click.option("--json", is_flag=True, expose_value=False, help="Print JSON, as always.")(function)
