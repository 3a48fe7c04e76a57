"""Reasons for the failure of a link: a local cause as such, and never a traceback."""

from __future__ import annotations

from collections.abc import Callable

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import local_trouble, words
from claudemesh.runtime.outward import by_proxy, certificate_trouble

log = get_logger("link")

# Exceptions of opening and carrying a link when the broker or the network fails.
_LISTED = (OSError, TimeoutError, EOFError, InvalidHandshake, InvalidURI, ConnectionClosed)


class LinkFaults:
    """Returns the reasons for the failures of one link. `url` returns the address that is dialled."""

    def __init__(self, url: Callable[[], str], on_local_cause: Callable[[str | None], None]) -> None:
        self._url = url
        self._on_local_cause = on_local_cause
        self._unlisted: set[str] = set()

    def opened(self) -> None:
        """Note that the link is open, so that no local cause prevents it."""
        self._on_local_cause(None)

    def reason(self, error: Exception, *, opened: bool) -> str:
        """Return the reason for an error. An unexpected type of error is logged once."""
        url = self._url()
        text = words(error)
        cause = local_trouble(error)
        if cause is not None:
            reason = f"the link to {url} cannot be opened, because {cause.reason}: {cause.remedy}"
            self._on_local_cause(f"{reason[0].upper()}{reason[1:]}. It is tried again by itself.")
            return reason
        if not isinstance(error, _LISTED):
            kind = type(error).__name__
            text = f"{kind}: {text}"
            if kind not in self._unlisted:
                self._unlisted.add(kind)
                log.warning("link_error_unlisted", error=repr(error), opened=opened)
        refused = certificate_trouble(error)
        if refused is not None:
            return f"{url} was not used: {refused}"
        if opened:
            return f"the link to {url} was lost: {text}"
        return f"cannot reach {url}{by_proxy(url)}: {text}"
