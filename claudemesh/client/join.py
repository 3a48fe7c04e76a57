"""Joining a mesh: the keys are written first, then the broker is asked, then membership.json is written.

Crash story: a crash after the keys leaves a folder without membership.json. The next try uses the same keys,
and the broker answers a join that it had committed before with the same member.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from claudemesh.client.broker import UNREACHABLE, BrokerClient
from claudemesh.client.errors import ClientError, WrongHome
from claudemesh.home.ended import load_ended
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import Membership, load_membership, save_membership
from claudemesh.home.paths import DaemonPaths, daemon_paths
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.http_replies import JoinedMember, MeshMade
from claudemesh.protocol.ids import UlidFactory, check_member_name, check_slug
from claudemesh.protocol.invites import Invite, find_link, parse_link, sign_invite
from claudemesh.protocol.possession import prove_possession
from claudemesh.protocol.signing import sign_join
from claudemesh.protocol.statements import Statement
from claudemesh.runtime.files import make_private_dir, remove, write_atomic
from claudemesh.runtime.hardening import protect_memory
from claudemesh.runtime.outward import read_authorities
from claudemesh.runtime.urls import audience_of, is_loopback

new_ulid = UlidFactory(lambda: time.time_ns() // 1_000_000, secrets.token_bytes).new


@dataclass(frozen=True, slots=True)
class Life:
    """The life of a member that joins. `ttl_s` bounds that of an ephemeral one."""

    ephemeral: bool = False
    ttl_s: int | None = None

    def as_body(self) -> dict[str, Any]:
        """Return the fields of `POST /v1/join`."""
        bound = {} if self.ttl_s is None else {"ttl_ms": self.ttl_s * 1000}
        return {"ephemeral": self.ephemeral, **bound}


PERSISTENT = Life()


def create_mesh(
    broker: BrokerClient, token: str, slug: str, name: str, *, ca_file: Path | None = None
) -> dict[str, Any]:
    """Create a mesh on a broker, with this host as its first member; returns the membership as shown."""
    check_slug(slug)
    check_member_name(name)
    paths = daemon_paths(slug)
    if paths.membership.exists():
        raise _already_member(slug)
    make_private_dir(paths.root)
    keyring = _keyring(paths)
    made = broker.create_mesh(token, {"slug": slug, "owner": {"name": name, **keyring.announced()}})
    _check(made, {"slug": slug}, broker)
    return _keep(
        paths,
        Membership(made.mesh_id, slug, broker.url, made.member_id, name, "owner", inviter_pubkey=None),
        ca_file,
    )


def join(
    pasted: str,
    name: str | None,
    default_name: str,
    *,
    insecure: bool = False,
    ca_file: Path | None = None,
    life: Life = PERSISTENT,
) -> dict[str, Any]:
    """Join by an invite; returns the membership as it is shown. `ProtocolError` when the link is not genuine.

    The link is taken out of the pasted text first: what is parsed, sent and kept is the same link.
    The signature is checked before anything of the link is used, so a changed address in it is never dialled.
    A host that is a member joins again as the same member, under its name unless another is given: for a
    broker whose database was restored from before it had joined. Its queues and inbox stay. A member that the
    broker still has takes the address in the invite: for a host that missed a move of the mesh.
    """
    link = find_link(pasted)
    invite = parse_link(link)
    if not invite.verify():
        raise ProtocolError(
            "bad_signature",
            "This invite was changed after it was signed. Ask the member who created it for a new one.",
        )
    if invite.ephemeral_only and not life.ephemeral:
        raise ProtocolError(
            "invite_ephemeral_only",
            "This invite admits ephemeral members only: use `claudemesh run` or `claudemesh daemon up "
            "--ephemeral`, or ask for another invite.",
        )
    paths = daemon_paths(invite.slug)
    broker = BrokerClient(invite.broker_url, insecure=insecure, ca_file=ca_file or paths.broker_ca)
    known = _known(paths, invite)
    if known is None:
        # A rest of a former membership, whose files were deleted up to this one.
        remove(paths.ended)
    name = name or (known.name if known else invite.name or default_name)
    check_member_name(name)
    make_private_dir(paths.root)
    membership, created = join_with_keys(link, invite, name, _keyring(paths), broker, known=known, life=life)
    if known and not created:
        if known.broker_url == membership.broker_url:
            raise _already_member(invite.slug)
        membership = replace(known, broker_url=membership.broker_url)
    return _keep(paths, membership, ca_file)


def join_with_keys(
    link: str,
    invite: Invite,
    name: str,
    keyring: Keyring,
    broker: BrokerClient,
    *,
    known: Membership | None = None,
    life: Life = PERSISTENT,
) -> tuple[Membership, bool]:
    """Join by a verified invite; returns the membership, and whether it is new. Nothing is written.

    `broker` may be dialled at another address than that in the invite.
    """
    with _telling_of_loopback(invite.broker_url):
        body = _request(link, invite, name, keyring, broker, known)
        joined = broker.join({**body, **life.as_body()})
    expected = {"mesh_id": invite.mesh_id, "slug": invite.slug, "name": name}
    if joined.created:
        # The role of a member that has joined before may have been changed since.
        expected["role"] = invite.role
    _check(joined, expected, broker)
    membership = Membership(
        joined.mesh_id,
        invite.slug,
        broker.url,
        joined.member_id,
        name,
        joined.role,
        inviter_pubkey=invite.inviter_pubkey,
        invite=link,
        ephemeral=life.ephemeral,
    )
    return membership, joined.created


def set_broker(slug: str, url: str, *, insecure: bool = False, ca_file: Path | None = None) -> dict[str, Any]:
    """Change the address at which this host's daemon dials its broker; returns the membership as it is shown.

    The broker there has to know the address for its own. Only the address is changed: keys, queues and inbox
    stay, and a broker that has no such member says so at the next start of the daemon.
    """
    paths = daemon_paths(slug)
    broker = BrokerClient(url, insecure=insecure, ca_file=ca_file or paths.broker_ca)
    known = load_membership(paths.membership)
    broker.check_address(broker.challenge())
    return _keep(paths, replace(known, broker_url=broker.url), ca_file)


def make_invite(
    slug: str,
    *,
    broker_url: str,
    role: str,
    uses: int,
    expires_in_s: int,
    ephemeral_only: bool = False,
    name: str | None = None,
    replace_by: Callable[[str], Statement] | None = None,
) -> tuple[Invite, str]:
    """Sign an invite with this host's key; returns it and its link. The new host dials `broker_url`.

    `replace_by` returns the statement for the id of the invite by which the new host takes the name over.
    """
    protect_memory()
    paths = daemon_paths(slug)
    membership = load_membership(paths.membership)
    invite_id = new_ulid()
    invite = sign_invite(
        Keyring.load(paths.keypair).current,
        broker_url=broker_url,
        mesh_id=membership.mesh_id,
        slug=slug,
        invite_id=invite_id,
        role=role,
        expires_at_ms=time.time_ns() // 1_000_000 + expires_in_s * 1000,
        uses=uses,
        inviter=(membership.name, membership.member_id),
        ephemeral_only=ephemeral_only,
        name=name,
        replacement=None if replace_by is None else replace_by(invite_id),
    )
    return invite, invite.to_link()


@contextmanager
def _telling_of_loopback(url: str) -> Generator[None]:
    """Add to `broker_unreachable` that the address of the invite leads to this machine itself."""
    try:
        yield
    except ClientError as error:
        if error.code != UNREACHABLE or not is_loopback(urlsplit(url).hostname or ""):
            raise
        raise ClientError(
            UNREACHABLE,
            f"No broker answers at {url}, the address in this invite, which leads to this machine itself. If "
            "the broker runs on another one, ask the inviter for an invite with an address that other hosts "
            "reach (`claudemesh daemon set-broker URL` there, then `claudemesh invite create`).",
        ) from error


def _known(paths: DaemonPaths, invite: Invite) -> Membership | None:
    """Return this host's membership in the invite's mesh. `WrongHome` when it is in another of this name."""
    if not paths.membership.exists():
        return None
    ended = load_ended(paths.ended)
    if ended is not None:
        raise ended.exit(invite.slug)
    known = load_membership(paths.membership)
    if known.mesh_id != invite.mesh_id:
        raise _already_member(invite.slug)
    return known


def _already_member(slug: str) -> WrongHome:
    return WrongHome("already_member", f"This host is in mesh {slug} already: `claudemesh status` shows it.")


def _keyring(paths: DaemonPaths) -> Keyring:
    """Return the keys of an earlier try, or new ones."""
    protect_memory()
    if paths.keypair.exists():
        return Keyring.load(paths.keypair)
    return Keyring.create(paths.keypair, secrets.token_bytes, f"k_{new_ulid()}")


def _request(
    link: str, invite: Invite, name: str, keyring: Keyring, broker: BrokerClient, known: Membership | None
) -> dict[str, Any]:
    """Return the body of `POST /v1/join`."""
    audience = audience_of(broker.url)
    proof = sign_join(
        keyring.current,
        audience=audience,
        mesh_id=invite.mesh_id,
        invite_id=invite.invite_id,
        name=name,
    )
    elsewhere = {} if audience == audience_of(invite.broker_url) else {"audience": audience}
    body = {
        **elsewhere,
        "invite": link,
        "name": name,
        **keyring.announced(),
        "proof": base64.b64encode(proof).decode(),
        "x25519_proof": base64.b64encode(_possession(keyring, broker)).decode(),
    }
    return body if known is None else {**body, "member_id": known.member_id}


def _possession(keyring: Keyring, broker: BrokerClient) -> bytes:
    own, key = keyring.current, broker.challenge().key
    try:
        return prove_possession(own.x25519_privkey, key, own.ed25519_pubkey)
    except ValueError as error:
        raise broker.bad_answer(str(error)) from error


def _check(answer: MeshMade | JoinedMember, expected: Mapping[str, str], broker: BrokerClient) -> None:
    """Refuse an answer of the broker that changes what was asked for."""
    told = asdict(answer)
    for field, value in expected.items():
        if told[field] != value:
            raise broker.bad_answer(f"{field} is not {value!r}, as it was asked for")


def _keep(paths: DaemonPaths, membership: Membership, ca_file: Path | None) -> dict[str, Any]:
    if ca_file is not None:
        # First: a membership whose broker is not trusted would be of no use.
        write_atomic(paths.broker_ca, read_authorities(ca_file))
    save_membership(paths.membership, membership)
    return membership.shown()
