"""Little room and none at all: what was accepted is safe, retries are answered, it goes on by itself."""

from __future__ import annotations

from tests.support.audit import assert_contract
from tests.support.cli import run
from tests.support.disks import fill, small_disk
from tests.support.processes import Daemon, mesh, until

CONFIG = "[reconnect]\nmax_backoff_ms = 500\n"


def send_until_refused(daemon: Daemon, size: int) -> tuple[list[str], str]:
    """Send until there is no room; returns the ids that were taken and the one that was not."""
    taken: list[str] = []
    while True:
        client_message_id = f"send-{len(taken)}"
        status, answer = daemon.send("bob", "x" * size, client_message_id=client_message_id)
        if status == 507:
            assert answer["error"] == "insufficient_storage"
            return taken, client_message_id
        assert status == 202, answer
        taken.append(client_message_id)
        assert len(taken) < 5000


def answers_known_ids(daemon: Daemon, taken: list[str], size: int) -> None:
    """The first and the last are known as before; the same id with another text is a conflict."""
    for client_message_id in (taken[0], taken[-1]):
        assert daemon.send("bob", "x" * size, client_message_id=client_message_id)[0] in (200, 202)
        assert daemon.send("bob", "another", client_message_id=client_message_id)[0] == 409


def test_at_95_percent_of_the_budget_only_new_sends_are_refused() -> None:
    """The alarm is in the log and health says degraded; a larger budget, by a reload, is enough to go on."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.broker.kill()
        config = alice.root / "config.toml"
        config.write_text(f"{CONFIG}[disk]\nreserved_bytes = 4000000\n")
        assert run(alice.home, "daemon", "reload").code == 0
        taken, refused = send_until_refused(alice, 20_000)
        assert '"outbox_pressure_high"' in alice.log.read_text()
        [item] = alice.request("GET", "/v1/health")[1]["degraded"]
        assert item["code"] == "disk_almost_full"
        assert str(alice.root) in item["message"]
        answers_known_ids(alice, taken, 20_000)
        assert alice.request("GET", "/v1/inbox")[0] == 200
        config.write_text(CONFIG)
        assert run(alice.home, "daemon", "reload").code == 0
        assert alice.send("bob", "x" * 20_000, client_message_id=refused)[0] == 202
        until(lambda: not alice.request("GET", "/v1/health")[1]["degraded"], "it is well again")
        made.broker.start()
        assert_contract(made, alice, [bob], [*taken, refused])


def test_a_full_queue_takes_new_sends_again_as_it_drains() -> None:
    """max_queue_bytes bounds what waits, not what was ever sent; a restart counts the same."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.broker.kill()
        (alice.root / "config.toml").write_text(f"{CONFIG}[outbox]\nmax_queue_bytes = 1048576\n")
        assert run(alice.home, "daemon", "reload").code == 0
        taken, refused = send_until_refused(alice, 50_000)
        assert 10 < len(taken) < 21
        assert alice.stop() == 0
        alice.start()
        alice.ready(connected=False)
        assert alice.send("bob", "x" * 50_000, client_message_id=refused)[0] == 507
        made.broker.start()
        until(lambda: alice.send("bob", "x" * 50_000, client_message_id=refused)[0] == 202, "there is room")
        assert_contract(made, alice, [bob], [*taken, refused])


def test_prune_frees_payloads_and_keeps_ids() -> None:
    """A retry of a pruned send is answered as ever, and its conflict too."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        ids = [f"done-{number}" for number in range(5)]
        for client_message_id in ids:
            assert alice.send("bob", "text", client_message_id=client_message_id)[0] == 202
        assert_contract(made, alice, [bob], ids)
        assert run(alice.home, "daemon", "outbox", "prune").code == 64
        assert run(alice.home, "daemon", "outbox", "prune", "--confirm", "--json").json["pruned"] == 5
        assert run(alice.home, "daemon", "outbox", "prune", "--confirm", "--json").json["pruned"] == 0
        assert alice.send("bob", "text", client_message_id=ids[0])[0] == 200
        assert alice.send("bob", "other", client_message_id=ids[0])[0] == 409


def test_a_full_disk_loses_nothing_and_heals_without_a_restart() -> None:
    """Not the budget but the disk itself: every commit fails until space is freed."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = made.daemons.values()
        with small_disk(alice.root, "8m"):
            for daemon in (alice, bob):
                daemon.start()
            for daemon in (alice, bob):
                daemon.ready()
            before = [f"before-{number}" for number in range(3)]
            for client_message_id in before:
                assert alice.send("bob", "text", client_message_id=client_message_id)[0] == 202
            assert_contract(made, alice, [bob], before)
            made.broker.kill()
            fill(alice.root / "ballast")
            taken, refused = send_until_refused(alice, 20_000)
            assert alice.send("bob", "text", client_message_id=before[0])[0] == 200
            until(lambda: alice.request("GET", "/v1/health")[1]["degraded"], "it says that it is degraded")
            assert alice.request("GET", "/v1/inbox")[0] == 200
            (alice.root / "ballast").unlink()
            until(
                lambda: alice.send("bob", "x" * 20_000, client_message_id=refused)[0] == 202,
                "it takes sends again",
            )
            made.broker.start()
            assert_contract(made, alice, [bob], [*before, *taken, refused])
            until(lambda: not alice.request("GET", "/v1/health")[1]["degraded"], "it is well again")
            alice.kill()


def degraded(daemon: Daemon) -> dict[str, str]:
    """The conditions that a daemon's health shows: messages by code."""
    return {item["code"]: item["message"] for item in daemon.request("GET", "/v1/health")[1]["degraded"]}


def test_a_budget_that_was_used_up_can_be_left_again_by_draining_and_pruning() -> None:
    """Without a restart: neither free pages nor the write-ahead log count against it."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.broker.kill()
        (alice.root / "config.toml").write_text(f"{CONFIG}[disk]\nreserved_bytes = 3000000\n")
        assert run(alice.home, "daemon", "reload").code == 0
        taken, refused = send_until_refused(alice, 60_000)
        assert 10 < len(taken) < 50
        assert "outbox" in degraded(alice)["disk_almost_full"]
        made.broker.start()
        assert_contract(made, alice, [bob], taken)
        assert run(alice.home, "daemon", "outbox", "prune", "--confirm").code == 0
        until(
            lambda: alice.send("bob", "x" * 60_000, client_message_id=refused)[0] == 202,
            "it takes sends again",
        )
        assert_contract(made, alice, [bob], [*taken, refused])
        until(lambda: not degraded(alice), "it is well again")


def test_a_full_inbox_leaves_messages_at_the_broker_and_deletes_nothing_unread() -> None:
    """Acknowledged messages make room; until there are some, what comes waits, and health says so."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        (bob.root / "config.toml").write_text(f"{CONFIG}[disk]\nreserved_bytes = 2000000\n")
        assert run(bob.home, "daemon", "reload").code == 0

        def settled() -> list[str]:
            refused = "inbox_unavailable" in degraded(bob)
            ids = [item["client_message_id"] for item in bob.inbox()]
            return ids if refused or len(ids) == len(sent) else []

        # One batch may exceed the budget, and then holds all that was sent until now.
        sent: list[str] = []
        unread: list[str] = []
        while len(unread) == len(sent):
            more = [f"send-{len(sent) + number}" for number in range(45)]
            for client_message_id in more:
                assert alice.send("bob", "x" * 50_000, client_message_id=client_message_id)[0] == 202
            sent += more
            unread = until(settled, "all are there, or it says that it takes no more")
        assert set(unread) < set(sent)
        seen: set[str] = set()

        def all_came() -> bool:
            items = bob.inbox()
            seen.update(item["client_message_id"] for item in items)
            ids = [item["id"] for item in items]
            assert bob.request("POST", "/v1/inbox/ack", {"ids": ids, "as": "acked"})[0] == 200
            return seen == set(sent)

        until(all_came, "every message has been read")


def test_a_daemon_starts_on_a_full_disk_reads_refuses_sends_and_heals() -> None:
    """Also when it was killed, with sends in flight; a member that joins meanwhile is known."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = made.daemons.values()
        with small_disk(alice.root, "8m"):
            for daemon in (alice, bob):
                daemon.start()
            for daemon in (alice, bob):
                daemon.ready()
            before = [f"before-{number}" for number in range(3)]
            assert bob.send("alice", "text", client_message_id="to-alice")[0] == 202
            for client_message_id in before:
                assert alice.send("bob", "text", client_message_id=client_message_id)[0] == 202
            assert_contract(made, alice, [bob], before)
            until(lambda: len(alice.inbox()) == 1, "alice has her message")
            for stop in (alice.stop, alice.kill):
                stop()
                fill(alice.root / "ballast")
                alice.start()
                alice.ready(connected=False)
                assert len(alice.inbox()) == 1
                status, answer = alice.send("bob", "text", client_message_id="refused")
                assert status == 507
                assert str(alice.root) in answer["message"]
                assert alice.send("bob", "text", client_message_id=before[0])[0] == 200
                until(lambda: "files_not_written" in degraded(alice), "it says which files wait")
                until(lambda: alice.request("GET", "/v1/health")[1]["connected"], "it is connected")
                carol = made.add(f"carol-{stop.__name__}")
                carol.start()
                carol.ready()
                until(
                    lambda name=carol.name: name in str(alice.request("GET", "/v1/peers")[1]),
                    "it knows who joined",
                )
                assert alice.running
                (alice.root / "ballast").unlink()
                until(lambda: not degraded(alice), "it is well again")
            until(lambda: alice.send("bob", "text", client_message_id="refused")[0] == 202, "it takes sends")
            assert_contract(made, alice, [bob], [*before, "refused"])
            for line in alice.log.read_text().splitlines():
                assert "Traceback" not in line
            alice.kill()


def test_a_broker_on_a_full_disk_starts_and_goes_on() -> None:
    """Its members stay connected, sends wait for space, and nothing is told to have gone wrong elsewhere."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = made.daemons.values()
        made.broker.stop()
        with small_disk(made.broker.data, "8m"):
            made.broker.start()
            made.broker.ready()
            for daemon in (alice, bob):
                daemon.start()
            for daemon in (alice, bob):
                daemon.ready()
            made.broker.stop()
            fill(made.broker.data / "ballast")
            made.broker.start()
            until(lambda: not made.broker.running or made.broker.is_ready(), "it starts or says why not")
            if not made.broker.running:
                assert made.broker.ended() == 75, made.broker.log.read_text()[-2000:]
                assert str(made.broker.data) in made.broker.log.read_text().splitlines()[-1]
            assert alice.send("bob", "text", client_message_id="one")[0] == 202
            (made.broker.data / "ballast").unlink()
            if not made.broker.running:
                made.broker.start()
            until(bob.inbox, "the message has arrived")
            # Opened without a shared memory file, its database is locked for other processes until the next
            # start.
            made.broker.stop()
            made.broker.start()
            made.broker.ready()
            assert_contract(made, alice, [bob], ["one"])
            made.broker.kill()
