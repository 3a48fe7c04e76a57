"""Move of a mesh to another address: the statement of an owner, given to the broker."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import WrongAddress
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import load_membership
from claudemesh.home.paths import daemon_paths
from claudemesh.protocol.statements import MOVE, sign_statement
from claudemesh.runtime.hardening import protect_memory
from claudemesh.runtime.urls import is_loopback


def move_mesh(slug: str, url: str, *, insecure: bool = False) -> dict[str, Any]:
    """State the new address to the broker, which passes the statement on to every daemon of the mesh.

    A broker has to answer at the new address, and know it for its own. This host's daemon follows like the
    others.
    """
    protect_memory()
    paths = daemon_paths(slug)
    membership, keyring = load_membership(paths.membership), Keyring.load(paths.keypair)
    present = BrokerClient(membership.broker_url, insecure=True, ca_file=paths.broker_ca)
    new = BrokerClient(url, insecure=insecure, ca_file=paths.broker_ca)
    _check(present.url, new.url)
    new.check_address(new.challenge())
    statement = sign_statement(
        keyring.current,
        MOVE,
        mesh_id=membership.mesh_id,
        subject=membership.mesh_id,
        at_ms=time.time_ns() // 1_000_000,
        **{"from": present.url, "to": new.url},
    )
    body = {"statement": statement.to_dict()}
    present.ask("POST", "/v1/meshes/move", body, lambda answer: None)
    return {"mesh": slug, "from": present.url, "to": new.url}


def _check(present: str, new: str) -> None:
    """Refuse an address that no daemon would follow."""
    if present == new:
        raise WrongAddress("same_address", f"The mesh is dialled at {new} already.")
    if is_loopback(urlsplit(new).hostname or "") and not is_loopback(urlsplit(present).hostname or ""):
        raise WrongAddress(
            "loopback_address", f"{new} is each host itself. Give an address that all hosts reach."
        )
    if present.startswith("wss:") and not new.startswith("wss:"):
        raise WrongAddress(
            "insecure_broker_url",
            f"{new} is not encrypted, and the present address is: no daemon would follow. "
            "`claudemesh daemon set-broker URL --insecure` changes the address of one host.",
        )
