"""Client of a broker's HTTP routes: create a mesh, register an invite, join."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from claudemesh.client.errors import (
    ApiError,
    ClientError,
    UntrustedCertificate,
    WrongAddress,
    WrongHome,
    WrongUse,
)
from claudemesh.runtime.brokerhttp import BrokerAnswer, ask_broker
from claudemesh.runtime.exchange import Redirected
from claudemesh.runtime.oserrors import words
from claudemesh.runtime.outward import by_proxy, certificate_trouble, is_of_unknown_authority
from claudemesh.runtime.peer import owners_of_port
from claudemesh.runtime.urls import audience_of, canonical_audience, check_broker_url, is_loopback

if TYPE_CHECKING:
    from claudemesh.protocol.http_replies import JoinChallenge, JoinedMember, MeshMade

T = TypeVar("T")

UNREACHABLE = "broker_unreachable"

_DEADLINE_S = 60.0
_NOT_FOUND = 404
# The members of a large mesh are some megabytes.
_MOST_BYTES = 64 << 20


def _broker_parts(url: str) -> SplitResult:
    try:
        return check_broker_url(url)
    except ValueError as error:
        raise WrongUse("invalid_broker_url", f"{error} Give ws://HOST:PORT or wss://HOST.") from error


def _place(url: str) -> tuple[str, str]:
    """Return scheme and address of a broker's URL in one spelling."""
    return url.partition(":")[0].lower(), canonical_audience(audience_of(url))


class BrokerClient:
    """The broker at a ws:// or wss:// URL. Methods raise `ApiError`, or `ClientError` broker_unreachable."""

    def __init__(
        self,
        url: str,
        *,
        insecure: bool = False,
        deadline_s: float = _DEADLINE_S,
        ca_file: Path | None = None,
        certificate: str | None = None,
    ) -> None:
        """The authorities of `ca_file` are trusted besides those of the system, for wss://.

        `certificate` is that of the broker of this host (PEM): it alone is trusted then.
        """
        parts = _broker_parts(url)
        host = parts.hostname or ""
        if parts.scheme == "ws" and not insecure and not is_loopback(host):
            raise WrongUse(
                "insecure_broker_url",
                f"{url} is not encrypted: use wss://, or --insecure in a network that you trust.",
            )
        self.url = url.rstrip("/")
        self._host = host
        self._port = parts.port or (443 if parts.scheme == "wss" else 80)
        self._deadline_s = deadline_s
        self._ca_file = ca_file
        self._certificate = certificate

    def check_own(self, owner: int, urls: Iterable[str]) -> None:
        """Raise when this is not the owner's broker on this host, which alone may get the token found here.

        `urls` are those of that broker, while it runs. On the loopback another user may listen at the port of
        a broker that does not run. Root may listen: it forwards ports into containers.
        """
        if not is_loopback(self._host):
            if _place(self.url) not in map(_place, urls):
                raise WrongUse(
                    "no_admin_token",
                    f"{self.url} is not an address of this user's own broker on this host, so the admin "
                    "token found here was not sent to it. The token of that broker is the file "
                    "admin_token in its data directory. Give it with --admin-token-file, or set "
                    "CLAUDEMESH_BROKER_ADMIN_TOKEN.",
                )
            return
        others = owners_of_port(self._port) - {0, os.geteuid(), owner}
        if others:
            raise WrongHome(
                "foreign_broker",
                f"A process of another user (uid {min(others)}) listens at {self.url}, and would get the "
                "admin token of your own broker; nothing was sent. Start yours (`claudemesh broker up -d`), "
                "or give the token of that one with --admin-token-file.",
            )

    def create_mesh(self, token: str, body: Mapping[str, Any]) -> MeshMade:
        """Create a mesh with its first member. The broker has to know the address that is dialled."""
        from claudemesh.protocol import http_replies

        self.check_address(self.challenge())
        return self.ask("POST", "/v1/admin/meshes", body, http_replies.mesh_made, token=token)

    def register_invite(self, link: str) -> None:
        """Register an invite at the broker, so that it can be listed and revoked."""
        self.ask("POST", "/v1/invites", {"invite": link}, lambda answer: None)

    def challenge(self) -> JoinChallenge:
        """Return the broker's x25519 key for proofs of possession, and its addresses."""
        from claudemesh.protocol import http_replies

        path = f"/v1/join/challenge?audience={quote(audience_of(self.url), safe='')}"
        try:
            return self.ask("GET", path, None, http_replies.challenge)
        except ApiError as error:
            if error.status == _NOT_FOUND:
                raise self._no_broker(error.status) from error
            raise

    def check_address(self, found: JoinChallenge) -> None:
        """`ClientError` wrong_address when the broker does not know the address at which it was dialled."""
        if found.accepted is not False:
            return
        known = ", ".join(found.addresses) or "no address"
        raise WrongAddress(
            "wrong_address",
            f"The broker at {self.url} knows itself as {known}: use that address, or give the broker this "
            f"one too (`broker up --public-url {self.url}`, beside the others).",
        )

    def join(self, body: Mapping[str, Any]) -> JoinedMember:
        """Ask to become a member."""
        from claudemesh.protocol import http_replies

        return self.ask("POST", "/v1/join", body, http_replies.joined)

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], T],
        *,
        token: str | None = None,
    ) -> T:
        """Make one request, with the admin token where a route asks for it, and read the answer."""
        # Imported here: parsers need the protocol, and most commands do not.
        from claudemesh.protocol.http_replies import refused
        from claudemesh.protocol.replies import BadReply

        answer = self._request(method, path, body, token)
        if answer.status >= 400:
            told = refused(answer.body)
            if told is None:
                raise self._no_broker(answer.status)
            reasons = {"reasons": told.reasons} if told.reasons else {}
            raise ApiError(answer.status, {"error": told.code, "message": told.message, **reasons})
        if answer.body is None:
            raise self._no_broker(answer.status)
        try:
            return read(answer.body)
        except BadReply as error:
            raise self.bad_answer(error.message.rstrip(".")) from error

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, token: str | None
    ) -> BrokerAnswer:
        try:
            return ask_broker(
                self.url,
                method,
                path,
                body,
                token=token,
                ca_file=self._ca_file,
                certificate=self._certificate,
                deadline_s=self._deadline_s,
                most_bytes=_MOST_BYTES,
            )
        except Redirected as error:
            text = f"{self.url} answers with {error}: give the broker's own address."
            raise WrongAddress("redirected", text) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ClientError:
        refused = certificate_trouble(error)
        if refused is not None:
            text = f"{self.url} was not used: {refused}."
            return UntrustedCertificate(
                "untrusted_certificate", text, needs_authority=is_of_unknown_authority(error)
            )
        if is_loopback(self._host):
            text = f"No broker answers at {self.url} ({words(error)}). Check the address, or start it."
            return ClientError(UNREACHABLE, text, next="claudemesh broker up -d")
        way = by_proxy(self.url)
        return ClientError(
            UNREACHABLE,
            f"No broker answers at {self.url}{way} ({words(error)}). Check the address, whether the broker "
            "runs there and listens at it (`claudemesh broker status` on its host), and firewalls in "
            "between.",
        )

    def bad_answer(self, reason: str) -> ClientError:
        """Return the error for an answer that is not used."""
        return ClientError(
            "bad_answer",
            f"The broker at {self.url} gave a wrong answer ({reason}). Nothing was kept: check the address.",
        )

    def _no_broker(self, status: int) -> ApiError:
        text = f"{self.url} is not a claudemesh broker."
        if urlsplit(self.url).path:
            text += " A proxy in front of it removes the path of the URL from each request."
        return ApiError(status, {"message": text})
