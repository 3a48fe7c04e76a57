"""Blobs of a real broker: uploads in parts and downloads, by a member's link and plain HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from claudemesh.broker.app import Broker
from tests.support.wspeer import Frame, Link

Answer = tuple[int, dict[str, str], bytes]


async def exchange(
    url: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    length: int | None = None,
) -> Answer:
    """Make one request; return status, headers and body. `length` is a Content-Length of the test's own."""
    address = urlsplit(url)
    given = {
        "host": address.netloc,
        "content-length": str(len(body) if length is None else length),
        **headers,
    }
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {text}\r\n" for name, text in given.items())
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(head.encode("latin-1") + b"\r\n" + body)
        await writer.drain()
        top = await reader.readuntil(b"\r\n\r\n")
        lines = top.decode("latin-1").strip().split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in lines[1:])
        content = b"" if method == "HEAD" else await reader.readexactly(int(found["content-length"]))
    finally:
        writer.close()
    return int(lines[0].split(" ", 2)[1]), found, content


def digest_of(data: bytes) -> str:
    """Return the SHA-256 that an upload is begun with."""
    return hashlib.sha256(data).hexdigest()


async def begin(link: Link, data: bytes, **params: Any) -> Frame:
    """Begin an upload and return what the broker gives."""
    reply = await link.call("blob_begin", size=len(data), sha256=digest_of(data), **params)
    assert "ok" in reply, reply
    granted: Frame = reply["ok"]
    return granted


async def refused(link: Link, method: str, **params: Any) -> str:
    """Make a call that is refused, and return its code."""
    reply = await link.call(method, **params)
    assert "error" in reply, reply
    code: str = reply["error"]["code"]
    return code


async def put(
    broker: Broker,
    granted: Mapping[str, Any],
    data: bytes,
    first: int = 0,
    end: int | None = None,
    **headers: str,
) -> tuple[int, dict[str, Any]]:
    """Upload the bytes from `first` up to `end`; return the status and the answer."""
    end = len(data) if end is None else end
    given = {
        "authorization": f"Bearer {granted['ticket']}",
        "content-range": f"bytes {first}-{end - 1}/{len(data)}",
        **headers,
    }
    path = f"/v1/blobs/{granted['blob_id']}"
    status, _, body = await exchange(broker.url, "PUT", path, given, data[first:end])
    return status, orjson.loads(body)


async def get(broker: Broker, blob_id: str, ticket: str, **headers: str) -> Answer:
    """Download a blob."""
    given = {"authorization": f"Bearer {ticket}", **headers}
    return await exchange(broker.url, "GET", f"/v1/blobs/{blob_id}", given)


async def fetch(broker: Broker, link: Link, blob_id: str) -> bytes:
    """Open and download a whole blob."""
    reply = await link.call("blob_open", blob_id=blob_id)
    status, _, body = await get(broker, blob_id, reply["ok"]["ticket"])
    assert status == 200
    assert (len(body), digest_of(body)) == (reply["ok"]["size"], reply["ok"]["sha256"])
    return body


async def share(broker: Broker, link: Link, data: bytes) -> str:
    """Upload a whole blob and return its id."""
    granted = await begin(link, data)
    status, answer = await put(broker, granted, data)
    assert (status, answer["complete"]) == (200, True), answer
    blob_id: str = granted["blob_id"]
    return blob_id
