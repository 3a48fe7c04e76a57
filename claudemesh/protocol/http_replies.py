"""Answers of the HTTP routes of a broker: parsers to typed values. `BadReply` for a wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from claudemesh.protocol import fields
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.fields import Json
from claudemesh.protocol.frames import MAX_MESSAGE_CHARACTERS
from claudemesh.protocol.ids import HEX_32, MEMBER_NAME, SLUG, UUID_TEXT
from claudemesh.protocol.replies import MAX_ENTRIES, Read, reader, record
from claudemesh.protocol.wire import ROLES, Role

URL_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class JoinChallenge:
    """The broker's key for proofs of possession, and its addresses.

    `accepted` tells whether the dialled address is one of them, None when the broker does not tell.
    """

    key: str
    addresses: tuple[str, ...] = ()
    accepted: bool | None = None


@dataclass(frozen=True, slots=True)
class MeshMade:
    """A mesh that was created, and its first member."""

    mesh_id: str
    slug: str
    member_id: str


@dataclass(frozen=True, slots=True)
class JoinedMember:
    """A member that has joined; `created` is false when it was a member already."""

    mesh_id: str
    slug: str
    member_id: str
    name: str
    role: Role
    created: bool


@dataclass(frozen=True, slots=True)
class RequestRefusal:
    """The code and message with which a broker refused a request.

    `reasons` are the conditions for which it is not ready: code, since and message of each.
    """

    code: str
    message: str
    reasons: Sequence[Json] = ()


@reader("join/challenge")
def challenge(value: Any) -> JoinChallenge:
    """Read the answer to `GET /v1/join/challenge`."""
    found = record(value, "answer")
    key = fields.matching(found, "challenge_key", HEX_32)
    if "accepted" not in found:
        return JoinChallenge(key)
    return JoinChallenge(key, fields.each(found, "addresses", _url), fields.boolean(found, "accepted"))


@reader("mesh")
def mesh_made(value: Any) -> MeshMade:
    """Read the answer to `POST /v1/admin/meshes`."""
    found = record(value, "answer")
    return MeshMade(
        fields.matching(found, "mesh_id", UUID_TEXT),
        fields.matching(found, "slug", SLUG),
        fields.matching(found, "member_id", UUID_TEXT),
    )


@reader("join")
def joined(value: Any) -> JoinedMember:
    """Read the answer to `POST /v1/join`."""
    found = record(value, "answer")
    return JoinedMember(
        mesh_id=fields.matching(found, "mesh_id", UUID_TEXT),
        slug=fields.matching(found, "slug", SLUG),
        member_id=fields.matching(found, "member_id", UUID_TEXT),
        name=fields.matching(found, "name", MEMBER_NAME),
        role=fields.one_of(found, "role", ROLES),
        created=fields.boolean(found, "created"),
    )


def refused(value: Any) -> RequestRefusal | None:
    """Return the refusal in the body of an error, None when there is none."""
    try:
        found = record(value, "answer")
        return RequestRefusal(
            fields.matching(found, "error", fields.NAME),
            fields.text(found, "message", MAX_MESSAGE_CHARACTERS),
            _conditions(found, "reasons") if "reasons" in found else (),
        )
    except InvalidField:
        return None


def object_with(reply: str, *names: str) -> Read[Json]:
    """Return the reader of an object with these fields, each a text, a number, a boolean or null."""

    @reader(reply)
    def read(value: Any) -> Json:
        return _with_scalars(record(value, "answer"), names)

    return read


def table_with(reply: str, columns: Sequence[str]) -> Read[Json]:
    """Return the reader of a page of objects with these columns. A column may hold an object."""

    @reader(reply)
    def read(value: Any) -> Json:
        found = record(value, "answer")
        items = found.get("items")
        if not isinstance(items, list) or len(items) > MAX_ENTRIES:
            fields.refuse("items", f"be a list of at most {MAX_ENTRIES}")
        for place, item in enumerate(items):
            _with_scalars(record(item, f"items[{place}]"), columns, nested=True)
        return {**found, "next": fields.optional_text(found, "next", URL_CHARACTERS)}

    return read


@reader("readyz")
def readiness(value: Any) -> Json:
    """Read the answer to `GET /readyz` of a broker that serves."""
    found = _with_scalars(record(value, "answer"), ("ready",))
    _conditions(found, "degraded")
    return found


def _conditions(found: Json, name: str) -> Sequence[Json]:
    """Return the conditions in a field: code, since and message of each."""
    listed = found.get(name)
    if not isinstance(listed, list) or len(listed) > MAX_ENTRIES:
        fields.refuse(name, f"be a list of at most {MAX_ENTRIES}")
    names = ("code", "since", "message")
    return [
        _with_scalars(record(condition, f"{name}[{place}]"), names) for place, condition in enumerate(listed)
    ]


@reader("jobs/run")
def check_report(value: Any) -> Json:
    """Read the answer to a run of the check for orphans."""
    found = _with_scalars(record(value, "answer"), ("count", "found"))
    findings = found.get("findings")
    if not isinstance(findings, list) or len(findings) > MAX_ENTRIES:
        fields.refuse("findings", f"be a list of at most {MAX_ENTRIES}")
    for place, finding in enumerate(findings):
        _with_scalars(record(finding, f"findings[{place}]"), ("kind", "broker_message_id"))
    return found


def _with_scalars(found: Json, names: Sequence[str], *, nested: bool = False) -> Json:
    for name in names:
        value = found.get(name)
        is_scalar = value is None or isinstance(value, bool | int | float | str)
        if name not in found or not (is_scalar or (nested and isinstance(value, dict))):
            fields.refuse(name, "be there, as a text, a number, true, false or null")
    return found


def _url(value: object, field: str) -> str:
    return fields.text({field: value}, field, URL_CHARACTERS)
