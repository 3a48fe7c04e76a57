"""A daemon of a mesh with thousands of members: what a restart of the broker and a change cost it."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager

from tests.support.crowd import fill
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.proxy import Rules, proxy

MEMBERS = 3000
LEFT = 1000


class Counting(Rules):
    """Rules that let everything pass, and note what the broker's answers and news about members hold."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[int] = []
        self.largest = 0

    def judge(self, text: str) -> str:
        frame = json.loads(text)
        body = frame.get("ok") if frame["type"] == "reply" else frame.get("data")
        if isinstance(body, dict) and "gone" in body:
            self.listed.append(len(body["items"]) + len(body["gone"]))
            self.largest = max(self.largest, len(text))
        return super().judge(text)


@contextmanager
def large_mesh(rules: Rules) -> Generator[tuple[Mesh, Daemon, Daemon, list[str]]]:
    """alice and bob in a mesh of thousands, alice behind a proxy; names of those who are still there."""
    with mesh("alice", "bob", start=False, front=True) as made:
        made.broker.stop()
        alice, bob = made.daemons.values()
        mesh_id = json.loads((alice.root / "membership.json").read_text())["mesh_id"]
        database = made.broker.data / "broker.db"
        fill(database, mesh_id, LEFT, "gone-", status="left")
        here = fill(database, mesh_id, MEMBERS, "here-", summary="x" * 100)
        made.broker.start()
        made.broker.ready()
        with proxy(made.broker.port, rules, made.broker.front_port) as port:
            path = alice.root / "membership.json"
            path.write_text(
                json.dumps({**json.loads(path.read_text()), "broker_url": f"ws://127.0.0.1:{port}"})
            )
            for daemon in (alice, bob):
                daemon.start()
                daemon.ready()
            names = sorted(["alice", "bob", *(one.name for one in here)])
            until(lambda: len(peers(alice)) == len(names), "alice knows everybody", 120)
            yield made, alice, bob, names
            for daemon in (alice, bob):
                assert daemon.stop() == 0


def peers(daemon: Daemon) -> dict[str, dict[str, object]]:
    """Return all members that a daemon lists, by name, page by page."""
    items: list[dict[str, object]] = []
    after = ""
    while True:
        _, page = daemon.request("GET", f"/v1/peers?limit=500{after}")
        items += page["items"]
        if page["next"] is None:
            return {str(item["name"]): item for item in items}
        after = f"&after={page['next']}"


def test_a_restart_of_the_broker_costs_a_daemon_no_list() -> None:
    """Nor does a restart of the daemon; who left was never listed; a profile costs one entry."""
    rules = Counting()
    with large_mesh(rules) as (made, alice, bob, names):
        assert sorted(peers(alice)) == names
        assert sum(rules.listed) < len(names) + 100
        assert rules.largest < 150_000
        written = (alice.root / "peers.json").stat().st_mtime_ns

        rules.listed.clear()
        for _ in range(2):
            made.broker.kill()
            made.broker.start()
            made.broker.ready()
            bob.ready()
            alice.ready()
            until(lambda: bob.request("POST", "/v1/profile", {"status": "back"})[0] == 200, "bob is linked")
        bob.request("POST", "/v1/profile", {"status": "busy", "summary": "builds things"})
        until(lambda: peers(alice)["bob"]["summary"] == "builds things", "alice hears of bob's profile")
        assert sum(rules.listed) <= 6

        rules.listed.clear()
        assert alice.stop() == 0
        alice.start()
        alice.ready()
        until(lambda: len(rules.listed) > 0, "alice has asked")
        assert sorted(peers(alice)) == names
        assert peers(alice)["bob"]["summary"] == "builds things"
        assert sum(rules.listed) <= 2
        assert (alice.root / "peers.json").stat().st_mtime_ns == written


def test_a_daemon_that_is_killed_while_it_keeps_a_change_asks_for_that_change() -> None:
    """The version is on the disk with the members that it stands for, or neither is."""
    rules = Counting()
    with large_mesh(rules) as (_, alice, bob, names):
        for point in ("file.after_append=kill@1", "file.after_append=kill@2", "file.after_append=kill@3"):
            assert alice.stop() == 0
            alice.start(failpoints=point)
            alice.ready()
            number = 0
            while alice.running:
                bob.request("POST", "/v1/profile", {"status": f"{point} {number}"})
                number += 1
            alice.wait_killed()
            bob.request("POST", "/v1/profile", {"status": f"after {point}"})
            rules.listed.clear()
            alice.start()
            alice.ready()
            until(lambda: str(peers(alice)["bob"]["status"]).startswith("after"), "alice has caught up")
            assert peers(alice)["bob"]["status"] == f"after {point}"
            assert sorted(peers(alice)) == names
            assert sum(rules.listed) <= 4
