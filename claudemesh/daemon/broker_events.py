"""Events of the broker: parsed once, then told to the parts of the daemon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from claudemesh.daemon.calls import WrongReplies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import News, parse_event
from claudemesh.protocol.frames import Event


class Part(Protocol):
    """A part of the daemon that goes by the broker's news."""

    def on_event(self, news: News) -> None:
        """Take over what concerns this part."""
        ...


def take_event(event: Event, replies: WrongReplies, parts: Iterable[Part]) -> None:
    """Pass an event on to the parts. A wrong event is counted and passed to none."""
    try:
        news = replies.read(event.event, parse_event, event)
    except ProtocolError:
        return
    if news is None:
        return
    for part in parts:
        part.on_event(news)
