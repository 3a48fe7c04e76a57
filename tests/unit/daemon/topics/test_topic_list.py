"""The broker's list of topics is read to its end, page by page, and from a broker that knows no pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from claudemesh.daemon.calls import whole_topic_list
from claudemesh.protocol.errors import ProtocolError

ROW = {"mode": "topic", "subscribed": False, "subscribers": None, "created_at": 0}


class Answers:
    """A broker that answers from a script."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, method: str, params: Mapping[str, Any], read: Any) -> Any:
        self.asked.append(dict(params))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return read(answer)


def page(*names: str, following: str | None = None) -> dict[str, Any]:
    """An answer to `topic_list`."""
    return {"items": [{"topic": name, **ROW} for name in names], "next": following}


async def test_every_page_is_read() -> None:
    """Subscribers are not counted for it."""
    ask = Answers(page("a", "b", following="b"), page("c"))
    assert [entry.topic for entry in (await whole_topic_list(ask)).items] == ["a", "b", "c"]
    assert ask.asked == [{"counts": False}, {"counts": False, "after": "b"}]


async def test_a_broker_without_pages_is_asked_as_before() -> None:
    """It refuses parameters that it does not know."""
    items = [{"topic": "a", **ROW, "subscribers": 2}]
    ask = Answers(ProtocolError("unknown_field", "remove counts"), {"items": items})
    assert [entry.topic for entry in (await whole_topic_list(ask)).items] == ["a"]
    assert ask.asked == [{"counts": False}, {}]


async def test_a_list_without_an_end_is_not_believed() -> None:
    """It is an error, and no question for ever."""
    ask = Answers(*[page("a", following="a")] * 9)
    with pytest.raises(ProtocolError, match="no end"):
        await whole_topic_list(ask, most_pages=3)
    assert len(ask.asked) == 3
