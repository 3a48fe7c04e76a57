"""Look-ups of members by name or key, and of a received message by number or id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from claudemesh.cli import output
from claudemesh.client.errors import ApiError
from claudemesh.client.local import LocalClient

_NOT_FOUND = 404


def find_received(client: LocalClient, id_or_seq: str) -> dict[str, Any] | None:
    """Return a message of the inbox by its seq or any of its ids; None when there is none."""
    try:
        return client.get(f"/v1/inbox/{quote(id_or_seq, safe='')}")
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        return None


def find_peer(client: LocalClient, name: str) -> dict[str, Any] | None:
    """Return a member by its name, with or without @, or by its public key; None when there is none.

    When several members match, one that is online is returned.
    """
    wanted = name.removeprefix("@").lower()
    found = [peer for peer in client.items("/v1/peers") if wanted in (peer["name"].lower(), peer["pubkey"])]
    return max(found, key=lambda peer: peer["online"], default=None)


def find_member(client: LocalClient, wanted: str) -> dict[str, Any]:
    """Return a member, active or revoked, by its id, key or name. `ApiError` names similar ones."""
    named = wanted.removeprefix("@").lower()
    members = list(client.items("/v1/members"))
    for field in ("member_id", "pubkey", "name"):
        found = [one for one in members if one[field].lower() == named]
        if found:
            return min(found, key=lambda one: str(one["status"]))
    raise unknown_peer(client, wanted)


def note_without_link(client: LocalClient, members: Iterable[Mapping[str, Any]]) -> None:
    """Say that a list of members is as old as the last link, if there is none now."""
    # The daemon is online for itself while it has a link.
    if any(item["online"] for item in members):
        return
    health = client.get("/v1/health")
    if not health["connected"]:
        output.note(
            f"The daemon has no link to the broker ({health['last_error'] or 'connecting'}). The list is "
            "as old as the last link, and whether a member is online is not known."
        )


def unknown_peer(client: LocalClient, name: str) -> ApiError:
    """Return the error for an unknown name of a member, with similar names."""
    # Imported here: only this error needs it.
    from claudemesh.daemon.identity.nearby import candidates, near_names

    names = {peer["name"].lower(): peer["name"] for peer in client.items("/v1/peers")}
    near = [names[match] for match in near_names(name.removeprefix("@").lower(), names)]
    text = f"No member {name!r} is known in this mesh. {candidates(near, list(names.values()))}"
    return ApiError(
        _NOT_FOUND,
        {"error": "destination_not_found", "message": text, "near": near, "next": "claudemesh peers"},
    )
