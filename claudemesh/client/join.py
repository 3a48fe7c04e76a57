"""Becoming a member: keys first, then the broker, then membership.json (lifecycle.md, Joining).

Crash story: a crash after the keys leaves a folder without membership.json; the next try uses the
same keys, and the broker answers a join that it had committed before with the same member.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import WrongHome
from claudemesh.home.paths import home
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.http_replies import Joined, MeshMade
from claudemesh.protocol.ids import UlidFactory, check_member_name, check_slug
from claudemesh.protocol.invites import Invite, parse_link, sign_invite
from claudemesh.protocol.keys import Identity, new_identity
from claudemesh.protocol.possession import prove_possession
from claudemesh.protocol.signing import audience_of, sign_join
from claudemesh.runtime.files import make_private_dir, read_private, write_atomic
from claudemesh.runtime.hardening import protect_memory

new_ulid = UlidFactory(lambda: time.time_ns() // 1_000_000, secrets.token_bytes).new


def create_mesh(broker: BrokerClient, token: str, slug: str, name: str) -> dict[str, Any]:
    """Make a mesh on a broker, with this host as its first member; returns the membership."""
    check_slug(slug)
    check_member_name(name)
    folder = _folder(slug)
    identity = _identity(folder)
    made = broker.create_mesh(token, {"slug": slug, "owner": {"name": name, **_public(identity)}})
    return _keep(folder, made, {"slug": slug}, broker=broker, inviter=None, name=name, role="owner")


def join(link: str, name: str | None, default_name: str, *, insecure: bool = False) -> dict[str, Any]:
    """Join by an invite; returns the membership. `ProtocolError` when the link is not genuine.

    The signature is checked before anything of the link is used: whoever changed the broker's address in it
    is not asked for anything. A host that is a member joins again as the same member, under its name unless
    another is given: for a broker whose database was restored from before it had joined. Its queues and
    inbox stay.
    """
    invite = parse_link(link)
    if not invite.verify():
        raise ProtocolError(
            "bad_signature",
            "This invite was changed after it was signed: ask its maker to send it again, by another way.",
        )
    broker = BrokerClient(invite.broker_url, insecure=insecure)
    folder = home() / "daemon" / invite.slug
    known = _known(folder, invite)
    name = name or (known["name"] if known else default_name)
    check_member_name(name)
    make_private_dir(folder)
    identity = _identity(folder)
    proof = sign_join(
        identity,
        audience=audience_of(invite.broker_url),
        mesh_id=invite.mesh_id,
        invite_id=invite.invite_id,
        name=name,
    )
    body = {
        "invite": link,
        "name": name,
        **_public(identity),
        "ephemeral": False,
        "proof": base64.b64encode(proof).decode(),
        "x25519_proof": base64.b64encode(_possession(identity, broker)).decode(),
    }
    if known:
        body["member_id"] = known["member_id"]
    joined = broker.join(body)
    if known and not joined.created:
        raise _already_member(invite.slug)
    expected = {"mesh_id": invite.mesh_id, "slug": invite.slug, "name": name, "role": invite.role}
    return _keep(
        folder,
        joined,
        expected,
        broker=broker,
        inviter=invite.inviter_pubkey,
        invite=link.strip(),
    )


def set_broker(slug: str, url: str, *, insecure: bool = False) -> dict[str, Any]:
    """Let this host's daemon dial a mesh's broker at another address; returns the membership without invite.

    The broker there has to know the address for its own. Only the address is changed: keys, queues and inbox
    stay, and a broker that has no such member says so at the next start of the daemon.
    """
    broker = BrokerClient(url, insecure=insecure)
    path = home() / "daemon" / slug / "membership.json"
    kept = orjson.loads(read_private(path))
    broker.check_address(broker.challenge())
    write_atomic(path, orjson.dumps({**kept, "broker_url": broker.url}))
    return {**{name: value for name, value in kept.items() if name != "invite"}, "broker_url": broker.url}


def make_invite(slug: str, *, role: str, uses: int, expires_in_s: int) -> tuple[Invite, str]:
    """Sign an invite with this host's key; returns it and its link."""
    protect_memory()
    folder = home() / "daemon" / slug
    membership = orjson.loads(read_private(folder / "membership.json"))
    invite = sign_invite(
        Identity.from_json(orjson.loads(read_private(folder / "keypair.json"))),
        broker_url=membership["broker_url"],
        mesh_id=membership["mesh_id"],
        slug=slug,
        invite_id=new_ulid(),
        role=role,
        expires_at_ms=time.time_ns() // 1_000_000 + expires_in_s * 1000,
        uses=uses,
        inviter=(membership["name"], membership["member_id"]),
    )
    return invite, invite.to_link()


def _known(folder: Path, invite: Invite) -> dict[str, Any] | None:
    """Return this host's membership in the invite's mesh. `WrongHome` when it is in another of this name."""
    try:
        known: dict[str, Any] = orjson.loads(read_private(folder / "membership.json"))
    except FileNotFoundError:
        return None
    if known.get("mesh_id") != invite.mesh_id:
        raise _already_member(invite.slug)
    return known


def _already_member(slug: str) -> WrongHome:
    return WrongHome("already_member", f"This host is in mesh {slug} already: `claudemesh status` shows it.")


def _folder(slug: str) -> Path:
    folder = home() / "daemon" / slug
    if (folder / "membership.json").exists():
        raise _already_member(slug)
    make_private_dir(folder)
    return folder


def _identity(folder: Path) -> Identity:
    protect_memory()
    path = folder / "keypair.json"
    if path.exists():
        return Identity.from_json(orjson.loads(read_private(path)))
    identity = new_identity(secrets.token_bytes, f"k_{new_ulid()}")
    write_atomic(path, orjson.dumps({"schema_version": 1, **identity.to_json()}))
    return identity


def _public(identity: Identity) -> dict[str, str]:
    return {
        "ed25519_pubkey": identity.ed25519_pubkey,
        "x25519_pubkey": identity.x25519_pubkey,
        "x25519_signature": base64.b64encode(identity.x25519_signature).decode(),
        "key_id": identity.key_id,
    }


def _possession(identity: Identity, broker: BrokerClient) -> bytes:
    key = broker.challenge().key
    try:
        return prove_possession(identity.x25519_privkey, key, identity.ed25519_pubkey)
    except ValueError as error:
        raise broker.bad_answer(str(error)) from error


def _keep(
    folder: Path,
    answer: MeshMade | Joined,
    expected: Mapping[str, str],
    *,
    broker: BrokerClient,
    inviter: str | None,
    invite: str | None = None,
    **known: str,
) -> dict[str, Any]:
    """Write membership.json from a broker's answer. The broker may not change what was asked for."""
    told = asdict(answer)
    for field, value in expected.items():
        if told[field] != value:
            raise broker.bad_answer(f"{field} is not {value!r}, as it was asked for")
    membership = {
        "schema_version": 1,
        **{field: (dict(expected) | known)[field] for field in ("slug", "name", "role")},
        "mesh_id": answer.mesh_id,
        "member_id": answer.member_id,
        "broker_url": broker.url,
        "inviter_pubkey": inviter,
    }
    # The invite stays in the file: it is shown nowhere, because it may admit others.
    write_atomic(folder / "membership.json", orjson.dumps({**membership, "invite": invite}))
    return membership
