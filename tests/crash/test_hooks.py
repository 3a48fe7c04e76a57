"""SIGKILL around a hook: it runs at least once, and is answered once (docs/spec/daemon.md, Hooks)."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.integration.hooks.hooked import Host, processes
from tests.support.audit import rows
from tests.support.processes import Mesh, mesh, until

MESSAGES = 5


@pytest.fixture
def pair() -> Generator[Mesh]:
    """Alice, and bob who answers each dm by a hook."""
    with mesh("alice", "bob", start=False) as made:
        bob = Host(made.daemons["bob"])
        bob.script("on-dm", """echo $CLAUDEMESH_EVENT_ID >>$OUT/ran; echo '{"reply": "answer"}'""")
        bob.manifest(on_dm={"allow_reply": True})
        for daemon in made.daemons.values():
            daemon.start()
        for daemon in made.daemons.values():
            daemon.ready()
        yield made


@pytest.mark.parametrize(
    "point",
    [
        "receive.before_commit",
        "receive.after_commit",
        "receive.after_ack",
        "hook.before_run",
        "hook.before_job_removal",
    ],
)
def test_a_daemon_killed_around_a_hook_runs_it_again(pair: Mesh, point: str) -> None:
    """No message without its run, no run under another event id, no second answer."""
    alice, bob = pair.daemons["alice"], Host(pair.daemons["bob"])
    bob.daemon.stop()
    bob.daemon.start(f"{point}=kill@1")
    known = {item["id"] for item in alice.inbox()}
    ids = [f"{point}-{number}" for number in range(MESSAGES)]
    for client_message_id in ids:
        assert alice.send("bob", "question", client_message_id=client_message_id)[0] in (200, 202)
    bob.daemon.wait_killed()
    bob.daemon.start()
    bob.daemon.ready()

    def ran() -> list[str]:
        path = bob.out / "ran"
        return path.read_text().split() if path.exists() else []

    def events() -> set[str]:
        return {item["id"] for item in bob.daemon.inbox() if item["client_message_id"] in ids}

    until(lambda: len(events()) == MESSAGES and events() <= set(ran()), "every message's hook has run")
    assert set(ran()) == {item["id"] for item in bob.daemon.inbox()}
    jobs = "SELECT count(*) FROM hook_jobs"
    until(lambda: rows(bob.daemon.root / "inbox.db", jobs) == [(0,)], "no job is left")

    def answers() -> list[str]:
        return [item["reply_to_id"] for item in alice.inbox() if item["id"] not in known]

    until(lambda: len(set(answers())) == MESSAGES, "every message is answered")
    assert len(answers()) == MESSAGES


def test_hooks_that_run_when_the_daemon_dies_die_with_it(pair: Mesh) -> None:
    """SIGKILL of the daemon leaves no hook behind, and the next life runs it again."""
    alice, bob = pair.daemons["alice"], Host(pair.daemons["bob"])
    bob.script("on-dm", "echo $$ >>$OUT/begun; [ -e $OUT/second ] && exit 0; sleep 977 & wait")
    assert alice.send("bob", "question")[0] == 202
    until(_sleeping, "it runs")
    bob.daemon.kill()
    until(lambda: not _sleeping(), "it is gone")
    (bob.out / "second").touch()
    bob.daemon.start()
    bob.daemon.ready()
    until(lambda: len(bob.told("begun").split()) == 2, "it has run again")


def test_a_job_that_is_begun_in_too_many_lives_is_parked(pair: Mesh) -> None:
    """A hook that kills its daemon each time runs five times, not for ever; other jobs continue."""
    alice, bob = pair.daemons["alice"], Host(pair.daemons["bob"])
    bob.script("on-dm", "echo $CLAUDEMESH_EVENT_ID >>$OUT/parked")
    bob.daemon.stop()
    bob.daemon.start("hook.before_run=kill@1")
    assert alice.send("bob", "poison", client_message_id="poison")[0] == 202
    for _ in range(6):
        bob.daemon.wait_killed()
        bob.daemon.start("hook.before_run=kill@1")
    bob.daemon.ready()
    assert bob.log("hook_jobs_parked")[-1]["count"] == 1
    bob.daemon.stop()
    bob.daemon.start()
    bob.daemon.ready()
    assert alice.send("bob", "another", client_message_id="another")[0] == 202
    [other] = until(
        lambda: [item["id"] for item in bob.daemon.inbox() if item["client_message_id"] == "another"],
        "the other has arrived",
    )
    jobs = "SELECT count(*) FROM hook_jobs"
    until(lambda: (bob.out / "parked").exists() and bob.told("parked"), "its hook runs")
    until(lambda: rows(bob.daemon.root / "inbox.db", jobs) == [(1,)], "the parked job alone is left")
    assert bob.told("parked").split() == [other]


def _sleeping() -> bool:
    return bool(processes("sleep 977"))
