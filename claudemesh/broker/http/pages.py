"""Refusal of web pages: a browser in the broker's network can send requests for any page that it shows.

The broker's own page is the console. Its files, and its one POST, of the code that begins a session, are
served to pages of the broker's own origin. Browsers send no `Origin` with its other requests, which read.

See `runtime/web/browser.py`. `Host` is checked on a broker that is dialled on the loopback only: elsewhere a
host may have any name, and a proxy may set a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from claudemesh.broker.settings import BrokerSettings
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.urls import is_loopback
from claudemesh.runtime.web.browser import is_foreign_page, names_address

_JUDGED = (b"origin", b"sec-fetch-site")
# The path of the console, the beginning of those of its files, and the path to which it posts.
PAGE_PATH: Final = "/console"
SESSION_PATH: Final = "/v1/console/session"


class PageGuard:
    """Checks the head of every HTTP request before its route is looked up."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._is_local = _is_local(settings)
        self._has_console = settings.console

    def check(self, headers: Iterable[tuple[bytes, bytes]], path: str = "") -> None:
        """Raise `ProtocolError` 403 for a request that a web page sent, unless the console did."""
        headers = list(headers)
        hosts, own = [], self._own_origins(headers, path)
        for name, value in headers:
            if name in _JUDGED and is_foreign_page({name: value}, own):
                raise ProtocolError("origin_not_allowed", "Web pages may not send requests to a broker.")
            if name == b"host":
                hosts.append(value.decode("latin-1"))
        if self._is_local and not (len(hosts) == 1 and names_address(hosts[0])):
            raise ProtocolError(
                "host_not_allowed",
                "This broker listens on the loopback and answers under its address or localhost only. "
                "Start it with --public-url if it is behind a proxy.",
            )

    def _own_origins(self, headers: Iterable[tuple[bytes, bytes]], path: str) -> frozenset[bytes]:
        if not (self._has_console and (path == SESSION_PATH or path.startswith(PAGE_PATH))):
            return frozenset()
        hosts = [value for name, value in headers if name == b"host"]
        # A proxy may have taken TLS off the connection.
        return frozenset(scheme + host for host in hosts[:1] for scheme in (b"http://", b"https://"))


def _is_local(settings: BrokerSettings) -> bool:
    """Whether the broker listens on the loopback, and is not published under another URL."""
    return is_loopback(settings.address[0]) and not settings.public_url
