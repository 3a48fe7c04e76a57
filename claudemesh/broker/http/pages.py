"""Refusal of web pages: a browser in the broker's network can send requests for any page that it shows.

See `runtime/web/browser.py`. `Host` is checked on a broker that is dialled on the loopback only: elsewhere a
host may have any name, and a proxy may set a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from claudemesh.broker.settings import BrokerSettings
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.urls import is_loopback
from claudemesh.runtime.web.browser import is_foreign_page, names_address

_JUDGED = (b"origin", b"sec-fetch-site")


class PageGuard:
    """Checks the head of every HTTP request before its route is looked up."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._is_local = _is_local(settings)

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise `ProtocolError` 403 for a request that a web page sent."""
        hosts = []
        for name, value in headers:
            if name in _JUDGED and is_foreign_page({name: value}):
                raise ProtocolError("origin_not_allowed", "Web pages may not send requests to a broker.")
            if name == b"host":
                hosts.append(value.decode("latin-1"))
        if self._is_local and not (len(hosts) == 1 and names_address(hosts[0])):
            raise ProtocolError(
                "host_not_allowed",
                "This broker listens on the loopback and answers under its address or localhost only. "
                "Start it with --public-url if it is behind a proxy.",
            )


def _is_local(settings: BrokerSettings) -> bool:
    """Whether the broker listens on the loopback, and is not published under another URL."""
    return is_loopback(settings.address[0]) and not settings.public_url
