"""Replies whose length is not known when they begin, such as event streams.

To a client of HTTP/1.1 such a reply is sent in chunks. HTTP/1.0 has no chunks, so there the reply ends with
the connection. uvicorn would send chunks to both.
"""

from __future__ import annotations

import sys

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from claudemesh.runtime.web.asgi import Scope, Send


def begin_unsized(scope: Scope, send: Send) -> None:
    """Let the reply that is about to begin end with the connection when its client speaks HTTP/1.0.

    The reply needs the header `Connection: close`.
    """
    cycle = getattr(send, "__self__", None)
    if scope["http_version"] == "1.0" and isinstance(cycle, RequestResponseCycle):
        cycle.chunked_encoding = False
        # More than is ever sent.
        cycle.expected_content_length = sys.maxsize


def end_unsized(send: Send) -> None:
    """Let the reply be complete with its next message."""
    cycle = getattr(send, "__self__", None)
    if isinstance(cycle, RequestResponseCycle) and not cycle.chunked_encoding:
        cycle.expected_content_length = 0
