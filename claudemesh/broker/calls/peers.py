"""The calls about the member list, and about a member's own profile."""

from __future__ import annotations

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, count, flag, only, short_text
from claudemesh.broker.directory.cards import card, read_cards
from claudemesh.broker.store.types import parse_version
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import check_uuid
from claudemesh.protocol.replies import MEMBERS_ASKED, MEMBERS_SEEN
from claudemesh.protocol.session_cards import cards_text, check_cards

_SUMMARY_CHARACTERS = 512
_STATUS_CHARACTERS = 64
_VERSION_CHARACTERS = 64


async def peers(caller: Caller, params: Params) -> Answer:
    """Return the members that changed since a version of the list, or one page of the whole list.

    `since` is a `version` of an earlier answer. When the broker knows it, the answer holds the members that
    changed, and in `gone` the ids of those that left; `version` is then the caller's, and there is more
    while `next` is given. Otherwise `whole` is true: the list begins at `after`, and goes on with
    `after` = `next`. Members that have left are not in it, and the last page has the version.

    With `follow` this connection gets later changes as events. With `online` the last page has the ids of
    online members.
    """
    only(params, "since", "after", "limit", "follow", "online")
    context, mesh_id = caller.context, caller.mesh_id
    since = parse_version(short_text(params, "since", _VERSION_CHARACTERS) or "")
    after, limit = count(params, "after", 0), count(params, "limit", 0)
    wants_online = flag(params, "online")
    if flag(params, "follow"):
        # In this order, and before the list is read: then no change is missed.
        context.feed.follow(caller.connection_id)
        await context.feed.enter(mesh_id)
        if since is None and not wants_online and not limit:
            whole = await context.feed.pages.get(context.store.directory, mesh_id, after)
            if caller.member_id not in whole.hidden:
                return whole.answer

    online = context.announcer.online(mesh_id) | {caller.member_id}
    cards = await read_cards(
        context.store.directory,
        mesh_id,
        since,
        context.settings.limits,
        after=after,
        limit=limit,
        own_id=caller.member_id,
        online=online,
    )
    page = cards.page
    answer = {**cards.fields(), "next": page.next, "whole": page.is_whole}
    if wants_online and page.next is None:
        answer["online"] = sorted(online)
    return answer


async def members_left(caller: Caller, params: Params) -> Answer:
    """Return those of some members that have left. The list lacks them, and messages of theirs may wait."""
    only(params, "member_ids")
    wanted = _member_ids(params, MEMBERS_ASKED)
    found = [await caller.context.store.members.find(caller.mesh_id, one) for one in sorted(wanted)]
    return {"items": [card(one, is_own=False) for one in found if one is not None and one.status == "left"]}


async def members_seen(caller: Caller, params: Params) -> Answer:
    """Return when some members were seen last. A change of that time makes no version of the list."""
    only(params, "member_ids")
    wanted = _member_ids(params, MEMBERS_SEEN)
    seen = await caller.context.store.presence.last_seen(caller.mesh_id, wanted)
    return {"items": [{"member_id": one, "last_seen_at": at_ms} for one, at_ms in seen.items()]}


def _member_ids(params: Params, most: int) -> set[str]:
    given = params.get("member_ids")
    if not isinstance(given, list) or len(given) > most:
        raise InvalidField("invalid_params", "member_ids", f"member_ids must be a list of at most {most}.")
    return {check_uuid(one, "member_ids") for one in given}


async def profile(caller: Caller, params: Params) -> Answer:
    """Change what is given of the caller's profile, at most once a second."""
    only(params, "summary", "status", "visible", "sessions")
    visible = params.get("visible")
    if visible is not None and not isinstance(visible, bool):
        raise InvalidField("invalid_params", "visible", "visible must be true or false.")
    given = {
        "summary": short_text(params, "summary", _SUMMARY_CHARACTERS),
        "status": short_text(params, "status", _STATUS_CHARACTERS),
        "visible": visible,
        "sessions": _sessions(params),
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if changed:
        await caller.context.profiles.set(caller.mesh_id, caller.member_id, changed)
    return {}


def _sessions(params: Params) -> str | None:
    given = params.get("sessions")
    if given is None:
        return None
    try:
        return cards_text(check_cards(given, "sessions"))
    except InvalidField as error:
        raise InvalidField("invalid_params", "sessions", error.message) from error


METHODS: dict[str, Method] = {
    "peers": peers,
    "members_left": members_left,
    "members_seen": members_seen,
    "profile": profile,
}
