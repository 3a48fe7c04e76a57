"""A broker's HTTP routes: making meshes, registering invites, joining."""

from __future__ import annotations

import http.client
import ipaddress
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from claudemesh.client.errors import ApiError, ClientError, WrongHome
from claudemesh.runtime.exchange import exchange
from claudemesh.runtime.peer import owners_of_port

_DEADLINE_S = 60.0
# The members of a large mesh are some megabytes.
_MOST_BYTES = 64 << 20


class BrokerClient:
    """The broker at a ws:// or wss:// URL. Methods raise `ApiError`, or `ClientError` broker_unreachable."""

    def __init__(self, url: str, *, insecure: bool = False) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.path.rstrip("/"):
            raise ClientError(
                "invalid_broker_url", f"{url!r} is no broker: give ws://HOST:PORT or wss://HOST."
            )
        if parts.scheme == "ws" and not insecure and not _is_loopback(parts.hostname):
            raise ClientError(
                "insecure_broker_url",
                f"{url} is not encrypted: use wss://, or --insecure in a network that you trust.",
            )
        self.url = url.rstrip("/")
        self._tls = parts.scheme == "wss"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)

    def check_own(self) -> None:
        """Raise when another user listens on a loopback address that is taken for this user's broker.

        The port of a broker that does not run is anybody's, and the admin token is for nobody else. Root may
        listen: it forwards ports into containers.
        """
        if not _is_loopback(self._host):
            return
        others = owners_of_port(self._port) - {0, os.geteuid()}
        if others:
            raise WrongHome(
                "foreign_broker",
                f"A process of another user (uid {min(others)}) listens at {self.url}, and would get the "
                "admin token of your own broker; nothing was sent. Start yours (`claudemesh broker up`), or "
                "give the token of that one with --admin-token-file.",
            )

    def create_mesh(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a mesh with its first member."""
        return self.ask("POST", "/v1/admin/meshes", body, token=token)

    def register_invite(self, link: str) -> dict[str, Any]:
        """Let the broker know of an invite, so that it can be listed and revoked."""
        return self.ask("POST", "/v1/invites", {"invite": link})

    def challenge_key(self) -> str:
        """Return the broker's x25519 key for proofs of possession."""
        key = self.ask("GET", "/v1/join/challenge", None).get("challenge_key")
        if not isinstance(key, str):
            raise ClientError("bad_answer", f"{self.url} gave no challenge key: upgrade the broker.")
        return key

    def join(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Become a member."""
        return self.ask("POST", "/v1/join", body)

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, token: str | None = None
    ) -> dict[str, Any]:
        """Make one request; with the admin token where a route asks for it."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        raw_body = None if body is None else orjson.dumps(body)
        try:
            status, raw = exchange(
                self._host,
                self._port,
                method,
                path,
                raw_body,
                headers,
                tls=self._tls,
                deadline_s=_DEADLINE_S,
                most_bytes=_MOST_BYTES,
            )
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(
                "broker_unreachable",
                f"Nobody answers at {self.url} ({error}): check the address, or start it with "
                "`claudemesh broker up`.",
            ) from error
        answer = _object(raw)
        if status >= 400 or answer is None:
            raise ApiError(status, answer or {"message": f"{self.url} is not a claudemesh broker."})
        return answer


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
