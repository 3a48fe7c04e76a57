"""New member for a host whose files are a copy of another host's: `claudemesh daemon remint`.

Crash story: the new keys are on the disk before the broker is asked, and the name follows from them. So the
next try asks for the same member, and the broker answers a join that it had committed with this member.
"""

from __future__ import annotations

import secrets
import shutil
from typing import Any

from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import ClientError, WrongHome
from claudemesh.client.join import join_with_keys, new_ulid
from claudemesh.home.host_file import accept_host
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import load_membership, save_membership
from claudemesh.home.paths import DaemonPaths
from claudemesh.home.remint import Remint
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_member_name
from claudemesh.protocol.invites import find_link, parse_link
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import make_private_dir, write_atomic
from claudemesh.runtime.hardening import protect_memory

_NAME_CHARACTERS = 58
_KEY_CHARACTERS = 4


def remint(
    paths: DaemonPaths, pasted: str | None, name: str | None, id_override: str | None
) -> dict[str, Any]:
    """Make new keys and a new member, and exchange the files of this host for theirs.

    It joins by the given invite, or by the one that this host keeps. The caller holds the lock of the mesh.
    Returns the new membership as it is shown, with the folder of the old files.
    """
    protect_memory()
    exchange = Remint(paths)
    if exchange.membership.exists():
        return _finished(exchange)
    known = load_membership(paths.membership)
    link = find_link(pasted) if pasted is not None else known.invite
    if link is None:
        raise _needs_invite("This host keeps no invite.")
    invite = parse_link(link)
    if not invite.verify():
        raise ProtocolError(
            "bad_signature", "This invite was changed after it was signed. Ask for a new one."
        )
    if invite.mesh_id != known.mesh_id:
        raise WrongHome("other_mesh", f"This invite is for mesh {invite.slug}, and not for {known.slug}.")
    keyring, name = _begun(exchange, known.name, name)
    failpoint("remint.after_new_keys")
    # The mesh may have moved since the kept invite was made.
    url = known.broker_url if pasted is None else invite.broker_url
    broker = BrokerClient(url, insecure=True, ca_file=paths.broker_ca)
    try:
        membership, _ = join_with_keys(link, invite, name, keyring, broker)
    except ClientError as error:
        if error.code not in ("invite_exhausted", "invite_expired", "invite_revoked"):
            raise
        raise _needs_invite(error.message) from error
    failpoint("remint.after_join")
    accept_host(exchange.host, id_override)
    save_membership(exchange.membership, membership)
    failpoint("remint.after_decision")
    return _finished(exchange)


def _finished(exchange: Remint) -> dict[str, Any]:
    old = exchange.finish()
    return load_membership(exchange.paths.membership).shown() | {"old_files": str(old)}


def _begun(exchange: Remint, old_name: str, name: str | None) -> tuple[Keyring, str]:
    """Return the keys and the name of an earlier try, or new ones. Another name needs other keys."""
    if name is not None:
        check_member_name(name)
        if exchange.keypair.exists() and _kept_name(exchange) != name:
            shutil.rmtree(exchange.folder)
    make_private_dir(exchange.folder)
    if name is not None:
        write_atomic(exchange.name, name.encode())
    if exchange.keypair.exists():
        keyring = Keyring.load(exchange.keypair)
    else:
        keyring = Keyring.create(exchange.keypair, secrets.token_bytes, f"k_{new_ulid()}")
    default = f"{old_name[:_NAME_CHARACTERS]}-{keyring.pubkey[:_KEY_CHARACTERS]}"
    return keyring, _kept_name(exchange) or default


def _kept_name(exchange: Remint) -> str | None:
    return exchange.name.read_text() if exchange.name.exists() else None


def _needs_invite(reason: str) -> ClientError:
    return ClientError(
        "invite_needed",
        f"{reason} A new member needs an invite: ask an owner or admin of the mesh for one, then run "
        "`claudemesh daemon remint --invite LINK`. Nothing was changed.",
    )
