"""Authorization of hooks by capability token (docs/spec/daemon.md, Hooks).

The socket's mode admits every program of this user. A hook is recognized by its peer credentials: its process
descends from the daemon's fork server for hooks.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, Protocol

from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send
from claudemesh.runtime.web.errors import HttpRefusal, refused
from claudemesh.runtime.web.heads import PEER
from claudemesh.runtime.web.replies import respond

log = SparseLog(get_logger("api.hook_auth"))

GRANT: Final = "claudemesh.grant"
_BEARER: Final = b"bearer cap_"


class HookGrant(Protocol):
    """The permission of one running hook."""

    def admit(self, request: SendRequest) -> SendRequest:
        """Return the send, restricted to what is allowed. `ProtocolError` when it is not allowed."""
        ...


class HookAccess(Protocol):
    """The registry of running hooks."""

    def grant(self, token: str) -> HookGrant | None:
        """Return the grant of a capability token, or None when its hook has ended."""
        ...

    def is_hook(self, pid: int) -> bool:
        """Whether a process is a hook, or descends from one."""
        ...


class HookAuth:
    """ASGI middleware of the socket: a hook may use `routes`, with its grant in the scope, and no others."""

    def __init__(self, app: App, hooks: HookAccess, routes: frozenset[str]) -> None:
        self._app = app
        self._routes = routes
        self._hooks = hooks

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on, or answer the refusal."""
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
            return self._app(scope, receive, send)
        log.warning("security_event", reason=refusal.code, method=scope["method"], path=scope["path"][:200])
        return respond(send, refused(refusal))

    def _is_hook(self, scope: Scope) -> bool:
        client = scope.get("client")
        return client is not None and client[0] == PEER and self._hooks.is_hook(client[1])


def _token(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            token: str = value[7:].decode("latin-1")
            return token
    return None


def _ended() -> HttpRefusal:
    return HttpRefusal(
        403, "capability_ended", "This token was for one run of a hook, and that run has ended."
    )


def _out_of_scope() -> HttpRefusal:
    return HttpRefusal(403, "capability_scope", "A hook's token allows sends and posts only.")


def _no_token() -> HttpRefusal:
    text = (
        "A hook must send Authorization: Bearer $CLAUDEMESH_CAPABILITY_TOKEN. It has one when hooks.toml "
        "gives it a capability_token_scope."
    )
    return HttpRefusal(403, "capability_required", text)
