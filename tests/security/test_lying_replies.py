"""A broker whose replies and events are wrong costs a log line: the daemon goes on and answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from tests.support.processes import Daemon, mesh, until
from tests.support.proxy import Rules, proxy

HUGE: dict[str, Any] = {"items": [{"last_seen_at": {}, "topic": 10**30}], "next": [], "version": -1}
LIES: list[Any] = [None, "x" * 10_000, [], {"items": {"a": 1}}, HUGE]


@dataclass
class Lies(Rules):
    """Puts something else in place of every reply to a method, or of the data of every event."""

    kind: str = ""
    lie: Any = None
    told: int = 0
    _methods: dict[str, str] = field(default_factory=dict)

    def told_more(self, before: int) -> bool:
        """Whether a lie was told since there were so many."""
        return self.told > before

    def _lied(self, result: dict[str, Any]) -> dict[str, Any]:
        wrong = {**result, "broker_message_id": self.lie}
        # The wait of a broker that stops is followed, up to an hour.
        return wrong if result["status"] >= 500 else {**wrong, "retry_after_ms": 10**18}

    def change(self, text: str) -> str:
        frame = json.loads(text)
        if frame["type"] == "call":
            self._methods[frame["id"]] = frame["method"]
        elif frame["type"] == "reply" and self._methods.get(frame["id"]) == self.kind:
            self.told += 1
            return json.dumps({"type": "reply", "id": frame["id"], "ok": self.lie})
        elif frame["type"] in ("send_result", "send_results") and self.kind == "send_result":
            self.told += 1
            if "items" in frame:
                return json.dumps({**frame, "items": [self._lied(item) for item in frame["items"]]})
            return json.dumps(self._lied(frame))
        elif frame["type"] == "event" and self.kind == "event":
            self.told += 1
            return json.dumps({**frame, "data": {"member_id": self.lie, "topic": self.lie}})
        return text


def shown(daemon: Daemon) -> set[str]:
    """The codes of the conditions that a daemon shows."""
    return {item["code"] for item in daemon.request("GET", "/v1/health")[1]["degraded"]}


@pytest.mark.parametrize("kind", ["peers", "topic_list", "send_status", "send_result", "event"])
def test_a_wrong_reply_costs_a_log_line_and_not_the_daemon(kind: str) -> None:
    """For any wrong value; after correct replies nothing is lost."""
    lies = Lies()
    with mesh("alice", "bob", start=False, front=True) as made:
        alice, bob = made.daemons.values()
        with proxy(made.broker.port, lies, made.broker.front_port) as port:
            path = alice.root / "membership.json"
            url = f"ws://127.0.0.1:{port}"
            path.write_text(json.dumps({**json.loads(path.read_text()), "broker_url": url}))
            alice.start()
            alice.ready()
            # The broker is asked about sends that it has accepted.
            assert alice.send("#all", "first", client_message_id="first")[0] == 202
            until(lambda: alice.outbox()["first"]["status"] == "done", "the first one is accepted")
            lies.kind, ids = kind, ["first"]
            for number, lie in enumerate(LIES):
                lies.lie, before = lie, lies.told
                ids.append(f"m-{number}")
                alice.send("#all", f"{number}", client_message_id=ids[-1])
                # A new link, a new member, and questions of its programs: each brings replies or events.
                made.broker.stop()
                made.broker.start()
                made.broker.ready()
                bob.start()
                bob.ready()
                until(partial(lies.told_more, before), f"the lie {lie!r:.40} was told")
                assert alice.request("GET", "/v1/peers")[0] == 200
                assert alice.request("GET", "/v1/topic/list")[0] in (200, 503)
                assert alice.running
                bob.stop()
            lies.kind = ""
            made.broker.stop()
            made.broker.start()
            made.broker.ready()
            bob.start()
            bob.ready()
            until(lambda: "broker_replies_wrong" not in shown(alice), "the truth ends the condition")
            until(lambda: {alice.outbox()[one]["status"] for one in ids} == {"done"}, "all are accepted")
            assert alice.send("bob", "after", client_message_id="after")[0] == 202
            until(lambda: "after" in [item["client_message_id"] for item in bob.inbox()], "it has arrived")
            assert alice.stop() == 0
