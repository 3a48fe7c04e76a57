"""Routes for sessions: register, renew, end and list them (docs/spec/daemon.md, Sessions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from claudemesh.daemon.api.parameters import row_key, session_cursor
from claudemesh.daemon.api.schemas import EmptyBody
from claudemesh.daemon.api.schemas_sessions import (
    SessionBody,
    SessionEnded,
    SessionHeartbeatBody,
    SessionNewsItem,
    SessionPage,
    SessionPush,
    SessionRegistered,
    SessionToldBody,
)
from claudemesh.daemon.sessions.news import SessionNews
from claudemesh.daemon.sessions.process import mark
from claudemesh.daemon.sessions.pushing import Pushing
from claudemesh.daemon.sessions.service import Sessions
from claudemesh.daemon.sessions.state import LEASE_S, Registration, Session
from claudemesh.runtime.web.paging import Item, page, page_limit
from claudemesh.runtime.web.query import flag, whole_number
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

_LONGEST_WAIT_MS = 30_000
_MOST_SENDERS = 100


class SessionRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of /v1/sessions."""

    sessions: Sessions
    pushing: Pushing
    news: SessionNews

    async def register(self, request: Request) -> Reply:
        """Register a session, or renew the one that registers again."""
        body: SessionBody = request.body
        about = Registration(
            client=body.client,
            reach=body.reach,
            name=body.name,
            client_version=body.client_version,
            cwd=body.cwd,
            client_session_id=body.session_id,
            process=None if body.pid is None else mark(body.pid),
        )
        return _registered(await self.sessions.register(about))

    async def heartbeat(self, request: Request) -> Reply:
        """Renew a session's lease."""
        body: SessionHeartbeatBody = request.body
        return _registered(self.sessions.renew(row_key(request), body.state))

    async def push(self, request: Request) -> Reply:
        """Return the next push of a session, waiting for it up to `wait_ms`."""
        found = await self.pushing.next(row_key(request), (request.query["wait_ms"] or 0) / 1000)
        push, items = found.push, found.items
        answer = {
            "form": push.form,
            "reason": push.reason,
            "ids": list(push.ids),
            "senders": sorted({item["sender_name"] for item in items}),
            "message": items[0] if push.form == "text" else None,
            "count": found.count,
            "more": found.more,
            "through": found.through,
        }
        return Reply(200, answer)

    async def get_news(self, request: Request) -> Reply:
        """Return a summary of the messages that a session was not told of."""
        found = await self.news.of(row_key(request), with_told=request.query["told"])
        answer = {"count": found.count, "more": found.more, "through": found.through}
        return Reply(200, {**answer, "senders": list(found.senders[:_MOST_SENDERS])})

    async def told(self, request: Request) -> Reply:
        """Note that a session was told of its messages."""
        body: SessionToldBody = request.body
        session_id = row_key(request)
        await self.news.told(session_id, body.through)
        return Reply(200, {"session_id": session_id})

    async def end(self, request: Request) -> Reply:
        """End a session."""
        session_id = row_key(request)
        await self.sessions.end(session_id)
        return Reply(200, {"session_id": session_id})

    async def list_sessions(self, request: Request) -> Reply:
        """Return the live sessions by name."""
        live = await self.sessions.live()

        async def fetch(limit: int, after: str | None) -> tuple[Sequence[Item], str | None]:
            rest = [one for one in live if after is None or one.name > after]
            items = [self._item(one) for one in rest[:limit]]
            return items, items[-1]["name"] if len(rest) > limit else None

        return await page(request, fetch, lambda item: str(item["name"]), request.query["limit"])

    def _item(self, session: Session) -> dict[str, Any]:
        about = session.about
        return {
            "session_id": session.session_id,
            "name": session.name,
            "client": about.client,
            "client_version": about.client_version,
            "client_session_id": about.client_session_id,
            "cwd": about.cwd,
            "pid": None if about.process is None else about.process.pid,
            "reach": about.reach,
            "state": session.activity,
            "lease_left_s": self.sessions.lease_left_s(session),
        }


def _registered(session: Session) -> Reply:
    found = {"session_id": session.session_id, "name": session.name, "lease_s": round(LEASE_S)}
    return Reply(200, found)


ROUTES = (
    Route(
        "POST",
        "/v1/sessions",
        "Register a session",
        {200: SessionRegistered},
        SessionRoutes.register,
        body=SessionBody,
        errors=(507,),
    ),
    Route(
        "GET",
        "/v1/sessions",
        "List the live sessions of this host",
        {200: SessionPage},
        SessionRoutes.list_sessions,
        query=(page_limit(), session_cursor()),
        errors=(507,),
    ),
    Route(
        "POST",
        "/v1/sessions/{id}/heartbeat",
        "Renew the lease of a session",
        {200: SessionRegistered},
        SessionRoutes.heartbeat,
        body=SessionHeartbeatBody,
        errors=(404,),
    ),
    Route(
        "POST",
        "/v1/sessions/{id}/push",
        "Wait for the next push of a session",
        {200: SessionPush},
        SessionRoutes.push,
        query=(whole_number("wait_ms", 0, _LONGEST_WAIT_MS),),
        body=EmptyBody,
        errors=(404, 507),
    ),
    Route(
        "GET",
        "/v1/sessions/{id}/news",
        "Summarize the messages that a session was not told of",
        {200: SessionNewsItem},
        SessionRoutes.get_news,
        query=(flag("told"),),
        errors=(404, 507),
        # It renews the lease of the session.
        acts=True,
    ),
    Route(
        "POST",
        "/v1/sessions/{id}/told",
        "Note that a session was told of its messages",
        {200: SessionEnded},
        SessionRoutes.told,
        body=SessionToldBody,
        errors=(404, 507),
    ),
    Route(
        "DELETE",
        "/v1/sessions/{id}",
        "End a session",
        {200: SessionEnded},
        SessionRoutes.end,
        errors=(404, 507),
    ),
)
