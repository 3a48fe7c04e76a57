"""Sharing of files by real daemons: what is accepted is on the disk, and nothing else is."""

from __future__ import annotations

import http.client
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh, until

CONTENT = b"a canary of the content " * 70_000


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    """Alice, whose broker is away, so that her files wait."""
    with mesh("alice", "bob") as running:
        running.broker.kill()
        yield running


@pytest.fixture
def alice(made: Mesh) -> Daemon:
    """Alice's daemon, which runs."""
    daemon = made.daemons["alice"]
    if not daemon.running:
        daemon.start()
    daemon.ready(connected=False)
    return daemon


def share(daemon: Daemon, path: Path | str, **fields: Any) -> tuple[int, Any]:
    return daemon.request("POST", "/v1/file/share", {"path": str(path), "to": "bob", **fields})


def sent(daemon: Daemon) -> dict[str, Any]:
    """The files that are not deleted, by id."""
    status, page = daemon.request("GET", "/v1/file/list?direction=out&limit=500")
    assert status == 200
    return {item["file_id"]: item for item in page["items"] if item["state"] != "deleted"}


def spooled(daemon: Daemon) -> set[str]:
    folder = daemon.root / "spool"
    return set(os.listdir(folder)) if folder.exists() else set()


def test_an_accepted_file_outlives_its_source_and_the_daemon(alice: Daemon, tmp_path: Path) -> None:
    """202 comes behind the sync; what lies on the disk is encrypted; a retry finds the row."""
    path = tmp_path / "secret-name.log"
    path.write_bytes(CONTENT)
    status, answer = share(alice, path, client_message_id="outlives", message="the log")
    assert (status, answer["status"], answer["size"]) == (202, "queued", len(CONTENT))
    path.unlink()
    alice.kill()
    alice.start()
    alice.ready(connected=False)
    again = share(alice, path, client_message_id="outlives", message="the log")
    assert (again[0], again[1]["file_id"]) == (202, answer["file_id"])
    assert sent(alice)[answer["file_id"]]["state"] == "uploading"
    assert answer["file_id"] in spooled(alice)
    assert b"canary" not in (alice.root / "spool" / answer["file_id"]).read_bytes()
    other = share(alice, path, client_message_id="outlives", message="another")
    assert (other[0], other[1]["error"]) == (409, "idempotency_key_reused")
    assert "outlives" not in alice.outbox()


@pytest.mark.parametrize("point", ["share.before_spool_sync", "share.before_commit", "share.after_commit"])
def test_a_crash_leaves_a_row_with_its_copy_or_neither(alice: Daemon, tmp_path: Path, point: str) -> None:
    """A copy without a row is deleted; a row has always its copy; the retry is accepted once."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    alice.stop()
    alice.start(f"{point}=kill@1")
    alice.ready(connected=False)
    with pytest.raises((OSError, http.client.HTTPException)):
        share(alice, path, client_message_id=point)
    alice.wait_killed()
    alice.start()
    alice.ready(connected=False)
    until(lambda: spooled(alice) == set(sent(alice)), "copies and rows agree")
    status, answer = share(alice, path, client_message_id=point)
    assert status == 202
    ids = [item["file_id"] for item in sent(alice).values() if item["client_message_id"] == point]
    assert ids == [answer["file_id"]]
    assert spooled(alice) == set(sent(alice))


def test_a_file_that_waits_holds_up_no_other_send(alice: Daemon, tmp_path: Path) -> None:
    """Sends are accepted meanwhile, and the file is not among them."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert share(alice, path, client_message_id="waits")[0] == 202
    assert alice.send("bob", "text", client_message_id="passes")[0] == 202
    rows = alice.outbox()
    assert "passes" in rows and "waits" not in rows
    taken = share(alice, path, client_message_id="passes")
    assert (taken[0], taken[1]["error"]) == (409, "idempotency_key_reused")


def test_a_deleted_file_is_gone_before_it_was_sent(alice: Daemon, tmp_path: Path) -> None:
    """Its encrypted copy too; a second time and an unknown id are answered."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    file_id = share(alice, path)[1]["file_id"]
    for _ in range(2):
        status, answer = alice.request("POST", "/v1/file/delete", {"id": file_id})
        assert (status, answer["status"]) == (200, "deleted")
    assert file_id not in sent(alice) and file_id not in spooled(alice)
    status, answer = alice.request("POST", "/v1/file/delete", {"id": "01HZ0000000000000000000000"})
    assert (status, answer["error"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"path": "relative"}, 400, "invalid_field"),
        ({"path": "/dev/zero"}, 400, "not_a_regular_file"),
        ({"path": "/"}, 400, "not_a_regular_file"),
        ({"path": "/no/such/file"}, 404, "file_not_found"),
        ({"path": "/etc/hostname", "to": "nobody-here"}, 404, "destination_not_found"),
        ({"path": "/etc/hostname", "to": "#"}, 400, "invalid_topic"),
        ({"path": "/etc/hostname", "mode": 1}, 400, "unknown_field"),
    ],
)
def test_a_wrong_share_leaves_nothing(alice: Daemon, fields: dict[str, Any], status: int, error: str) -> None:
    """Neither a row nor a copy."""
    before = (set(sent(alice)), spooled(alice))
    found = alice.request("POST", "/v1/file/share", {"to": "bob", **fields})
    assert (found[0], found[1]["error"]) == (status, error)
    assert (set(sent(alice)), spooled(alice)) == before


def test_the_keys_of_the_host_are_not_shared(alice: Daemon, tmp_path: Path) -> None:
    """By their path, or by a link to them."""
    (tmp_path / "link").symlink_to(alice.root / "keypair.json")
    for path in (alice.root / "keypair.json", tmp_path / "link", alice.home / "daemon"):
        found = share(alice, path)
        assert found[0] == 400 and found[1]["error"] in ("own_directory", "not_a_regular_file")


def test_a_send_whose_file_is_on_its_way_is_shown_as_that(alice: Daemon, made: Mesh, tmp_path: Path) -> None:
    """The outbox has the send when the broker has the file. One whose file is deleted is not waited for."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    file_id = share(alice, path, client_message_id="on-its-way")[1]["file_id"]
    assert alice.send("bob", "long " * 100_000, client_message_id="long-text")[0] == 202
    for sent_id in ("on-its-way", "long-text"):
        status, answer = alice.request("GET", f"/v1/outbox/{sent_id}")
        assert (status, answer["error"], answer["file_state"]) == (404, "not_found", "uploading")
        assert "its file is on its way to the broker" in made.cli(alice, "status", sent_id)
    wait = ("wait", "--for", "message=on-its-way", "--state", "accepted", "--timeout")
    assert "on its way to the broker" in run(alice.home, *wait, "1s").err
    alice.request("POST", "/v1/file/delete", {"id": file_id})
    ended = run(alice.home, *wait, "10m")
    assert (ended.code, "its file was deleted" in ended.err) == (69, True)
    assert "file_state" not in alice.request("GET", "/v1/outbox/never-sent")[1]


def test_a_post_that_waits_for_a_key_says_so_in_the_list(alice: Daemon, made: Mesh) -> None:
    """The topic has no key before its first post, and the broker is away."""
    assert alice.post("all", "text", client_message_id="no-key")[0] == 202
    assert alice.outbox()["no-key"]["waiting_for"] == "topic_key"
    [line] = [row for row in made.cli(alice, "outbox", "list").splitlines() if row.startswith("no-key")]
    assert line.endswith("waits for the key of its topic")
