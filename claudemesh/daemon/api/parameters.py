"""Parameters of the local API: names of topics and members, cursors that are names, and ids in paths."""

from __future__ import annotations

from claudemesh.daemon.outbox.request import check_topic_or_queue
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import CLIENT_MESSAGE_ID, HEX_32, check_member_name, check_session, check_uuid
from claudemesh.runtime.web.query import Parameter, cursor
from claudemesh.runtime.web.routes import Request


def name_cursor() -> Parameter:
    """Declare `after` where the cursor is a name."""
    return cursor(lambda text: check_member_name(text))


def member_cursor() -> Parameter:
    """Declare `after` where the cursor is a name and a member id: a name may have had several members."""

    def read(text: str) -> str:
        name, _, member_id = text.partition("/")
        return f"{check_member_name(name)}/{check_uuid(member_id, 'after')}"

    return cursor(read)


def topic(name: str) -> Parameter:
    """Declare a topic's or queue's name, with or without its # or queue:."""
    takes = "a topic's name: 1 to 63 of a-z 0-9 . _ -"
    return Parameter(name, {"type": "string"}, takes, check_topic_or_queue)


def member(name: str) -> Parameter:
    """Declare a member: its name, with or without @, or its key."""

    def read(text: str) -> str:
        if HEX_32.fullmatch(text) is not None:
            return text
        return check_member_name(text.removeprefix("@"))

    return Parameter(name, {"type": "string"}, "a member's name or its key in 64 hexadecimal digits", read)


def session(name: str) -> Parameter:
    """Declare the name of a session of this host."""
    takes = "a session's name: 1 to 63 of a-z 0-9 . _ -"
    return Parameter(name, {"type": "string"}, takes, lambda text: check_session(text, name))


def session_cursor() -> Parameter:
    """Declare `after` where the cursor is the name of a session."""
    return cursor(lambda text: check_session(text, "after"))


def row_key(request: Request) -> str:
    """Return the path's `id`: a row's own id, or its client_message_id. `InvalidField`."""
    key = request.path_values["id"]
    if CLIENT_MESSAGE_ID.fullmatch(key) is None:
        text = "The id is a row's id or its client_message_id: 1 to 255 characters, each from ! to ~."
        raise InvalidField("invalid_parameter", "id", text)
    return key
