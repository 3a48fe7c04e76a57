"""Routes for files: share, fetch, list, delete (docs/spec/daemon.md, Shared files).

Share and get read and write paths of this host, so they are served on the socket only. A program that has
just the token, such as one in a container, may not reach the files of this user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from claudemesh.daemon.api.failures import answered
from claudemesh.daemon.api.schemas_files import (
    FileDeleteBody,
    FileDeleted,
    FileFetched,
    FileFetching,
    FileGetBody,
    FilePage,
    FileShareBody,
    FileShared,
)
from claudemesh.daemon.files.fetching import Fetching
from claudemesh.daemon.files.listing import FileLists
from claudemesh.daemon.files.sharing import Sharing, parse_share, share_of_text
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import check_ulid
from claudemesh.runtime.web.paging import page, page_limit
from claudemesh.runtime.web.query import Parameter, choice, flag, number_cursor, whole_number
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

_LONGEST_WAIT_MS = 30_000
_WAIT_MS = 10_000
_MAX_PATH = 4096


class FileRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of /v1/file."""

    sharing: Sharing
    fetching: Fetching
    lists: FileLists

    async def share(self, request: Request) -> Reply:
        """Accept a file: 202 when its encrypted copy is on this host's disk."""
        body: FileShareBody = request.body
        fields = msgspec.structs.asdict(body)
        if not body.as_text:
            return answered(await self.sharing.share(parse_share(fields)))
        if body.message is not None or body.persistent:
            text = "With as_text the file is the message, so leave out message and persistent."
            raise InvalidField("invalid_field", "as_text", text)
        text_of_file = await self.sharing.text_at(body.path)
        return answered(await self.sharing.share(share_of_text(text_of_file, fields)))

    async def get(self, request: Request) -> Reply:
        """Fetch a file, by the query."""
        query = request.query
        for name in ("id", "out"):
            if query[name] is None:
                raise InvalidField("missing_parameter", name, f"Give {name}.")
        return answered(
            await self.fetching.fetch(query["id"], query["message_id"], query["out"], query["wait_ms"])
        )

    async def get_by_body(self, request: Request) -> Reply:
        """Fetch a file, by a body."""
        body: FileGetBody = request.body
        wait_ms = _WAIT_MS if body.wait_ms is None else body.wait_ms
        return answered(await self.fetching.fetch(body.id, body.message_id, body.out, wait_ms))

    async def list_files(self, request: Request) -> Reply:
        """Return files, newest first."""
        direction, with_texts = request.query["direction"], request.query["texts"]

        async def fetch(limit: int, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
            before = None if after is None else int(after)
            return await self.lists.page(direction, before, limit, with_texts=with_texts)

        return await page(request, fetch, None, request.query["limit"])

    async def delete(self, request: Request) -> Reply:
        """Delete a shared file."""
        body: FileDeleteBody = request.body
        return Reply(200, await self.lists.delete(body.id))


def _file_id() -> Parameter:
    return Parameter("id", {"type": "string"}, "the file_id of a file", lambda text: check_ulid(text, "id"))


def _message_id() -> Parameter:
    text = "the id of the message that announces the file"
    return Parameter("message_id", {"type": "string"}, text, lambda given: check_ulid(given, "message_id"))


def _out() -> Parameter:
    schema = {"type": "string", "maxLength": _MAX_PATH}
    return Parameter("out", schema, "an absolute path", str, longest=_MAX_PATH)


_FETCHED = {200: FileFetched, 202: FileFetching}
_GET_ERRORS = (401, 403, 404, 409, 422, 429, 503, 507)

ROUTES = (
    Route(
        "POST",
        "/v1/file/share",
        "Share a file; 202 means that its encrypted copy is on this host's disk",
        {200: FileShared, 202: FileShared},
        FileRoutes.share,
        body=FileShareBody,
        errors=(403, 404, 409, 413, 422, 429, 503, 507),
        socket_only=True,
    ),
    Route(
        "GET",
        "/v1/file/get",
        "Fetch a file into a directory; 202 means that the download goes on",
        _FETCHED,
        FileRoutes.get,
        query=(_file_id(), _message_id(), _out(), whole_number("wait_ms", 0, _LONGEST_WAIT_MS, _WAIT_MS)),
        errors=_GET_ERRORS,
        socket_only=True,
        acts=True,
    ),
    Route(
        "POST",
        "/v1/file/get",
        "Fetch a file into a directory; 202 means that the download goes on",
        _FETCHED,
        FileRoutes.get_by_body,
        body=FileGetBody,
        errors=_GET_ERRORS,
        socket_only=True,
    ),
    Route(
        "GET",
        "/v1/file/list",
        "List the files that were announced to this host, or that it shares",
        {200: FilePage},
        FileRoutes.list_files,
        query=(choice("direction", ("in", "out"), "in"), flag("texts"), page_limit(), number_cursor()),
    ),
    Route(
        "POST",
        "/v1/file/delete",
        "Delete a file that this host shares",
        {200: FileDeleted},
        FileRoutes.delete,
        body=FileDeleteBody,
        errors=(403, 404, 429, 503, 507),
    ),
)
