"""Authorisation of hooks on the socket: a hook may do what its capability token allows (daemon.md, Hooks).

The socket's mode lets in every program of this user, and a hook is one; what sets it apart is that it
runs below the daemon's keeper of hooks, which its peer credentials tell.
"""

from __future__ import annotations

from typing import Final, Protocol

from claudemesh.daemon.api.errors import Refusal, refused
from claudemesh.daemon.api.wire import respond
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.runtime.heads import PEER
from claudemesh.runtime.http import App, Receive, Scope, Send
from claudemesh.runtime.logs import get_logger

log = get_logger("api.hooked")

GRANT: Final = "claudemesh.grant"
_BEARER: Final = b"bearer cap_"


class Grant(Protocol):
    """What a running hook may send."""

    def admit(self, request: SendRequest) -> SendRequest:
        """Return the send as it may go out. `ProtocolError` when it may not."""
        ...


class HookAccess(Protocol):
    """Who knows the hooks that run."""

    def grant(self, token: str) -> Grant | None:
        """Return what a token allows now, or None."""
        ...

    def is_hook(self, pid: int) -> bool:
        """Tell whether a process is a hook, or was started by one."""
        ...


class HookedCallers:
    """ASGI middleware of the socket: bears a hook's grant to the routes that take it, refuses the rest."""

    def __init__(self, app: App, hooks: HookAccess, routes: frozenset[str]) -> None:
        self._app = app
        self._routes = routes
        self._hooks = hooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        token = _token(scope)
        refusal = None
        if token is not None:
            grant = self._hooks.grant(token)
            if grant is None:
                refusal = _ended()
            elif scope["path"] not in self._routes:
                refusal = _out_of_scope()
            else:
                scope[GRANT] = grant
        elif self._is_hook(scope):
            refusal = _no_token()
        if refusal is None:
            await self._app(scope, receive, send)
            return
        log.warning("security_event", reason=refusal.code, method=scope["method"], path=scope["path"][:200])
        await respond(send, refused(refusal))

    def _is_hook(self, scope: Scope) -> bool:
        client = scope.get("client")
        return client is not None and client[0] == PEER and self._hooks.is_hook(client[1])


def _token(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            token: str = value[7:].decode("latin-1")
            return token
    return None


def _ended() -> Refusal:
    return Refusal(403, "capability_ended", "This token was for one run of one hook, and that run is over.")


def _out_of_scope() -> Refusal:
    return Refusal(403, "capability_scope", "A hook's token lets it send and post; it reads nothing.")


def _no_token() -> Refusal:
    text = (
        "A hook asks with Authorization: Bearer $CLAUDEMESH_CAPABILITY_TOKEN, which it has when "
        "hooks.toml gives it a capability_token_scope."
    )
    return Refusal(403, "capability_required", text)
