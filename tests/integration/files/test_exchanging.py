"""Files and long texts between two daemons and a real broker: whole, resumed, and unreadable to it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.living import files_in
from tests.support.processes import REPOSITORY, Daemon, Mesh, mesh, until
from tests.support.waiting import WAIT_S

CANARY = b"a canary that no disk of a broker may show"
CONTENT = CANARY * 70_000


@pytest.fixture(scope="module")
def running() -> Generator[Mesh]:
    """Alice, bob and their broker."""
    with mesh("alice", "bob") as made:
        yield made


@pytest.fixture
def pair(running: Mesh) -> Mesh:
    """The same, mended after a test that failed."""
    running.heal()
    return running


def share(daemon: Daemon, path: Path | str, to: str = "bob", **fields: Any) -> str:
    """Share a file; return its id."""
    status, answer = daemon.request("POST", "/v1/file/share", {"path": str(path), "to": to, **fields})
    assert status == 202, answer
    file_id: str = answer["file_id"]
    return file_id


def state_of(daemon: Daemon, file_id: str) -> dict[str, Any]:
    _, page = daemon.request("GET", "/v1/file/list?direction=out&limit=500")
    [item] = [item for item in page["items"] if item["file_id"] == file_id]
    found: dict[str, Any] = item
    return found


def announced(daemon: Daemon, file_id: str) -> Any:
    """The message that announces this file, once it is here."""

    def found() -> Any:
        return [m for m in daemon.inbox() if file_id in [one["file_id"] for one in m["attachments"]]]

    return until(found, "the file is announced")[0]


def get(daemon: Daemon, file_id: str, out: Path | str) -> tuple[int, Any]:
    """Fetch a file; the last answer."""
    while True:
        status, answer = daemon.request("POST", "/v1/file/get", {"id": file_id, "out": str(out)})
        if status != 202:
            return status, answer


def written(path: Path, content: bytes = CONTENT) -> Path:
    path.write_bytes(content)
    return path


def searched(folder: Path, needle: bytes) -> list[str]:
    """The files below a folder that hold these bytes."""
    return [str(path) for path in files_in(folder) if needle in path.read_bytes()]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_001])
def test_a_file_arrives_as_it_was(pair: Mesh, tmp_path: Path, size: int) -> None:
    """Bytes, name and size; the copies that were needed on the way are gone."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    content = os.urandom(size)
    file_id = share(alice, written(tmp_path / "build.log", content), message="the log")
    message = announced(bob, file_id)
    assert (message["body"], message["sender_name"]) == ("the log", "alice")
    out = tmp_path / "out"
    out.mkdir()
    status, answer = get(bob, file_id, out)
    assert (status, answer["path"], answer["sha256"]) == (
        200,
        str(out / "build.log"),
        hashlib.sha256(content).hexdigest(),
    )
    assert (out / "build.log").read_bytes() == content
    assert os.listdir(out) == ["build.log"]
    until(lambda: state_of(alice, file_id)["state"] == "shared", "the sender is done")
    until(lambda: not (alice.root / "spool" / file_id).exists(), "its copy is gone")
    again = get(bob, file_id, out)
    assert (again[0], again[1]["error"]) == (409, "file_exists")


def test_the_broker_learns_nothing_of_a_file(pair: Mesh, tmp_path: Path) -> None:
    """Neither content nor name nor type is in any file of it."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file_id = share(alice, written(tmp_path / "very-secret-name.pdf"), message="a secret remark")
    announced(bob, file_id)
    until(lambda: state_of(alice, file_id)["state"] == "shared", "the sender is done")
    for needle in (CANARY, b"very-secret-name", b"application/pdf", b"a secret remark"):
        assert searched(pair.broker.data, needle) == []
    assert searched(alice.root / "spool", CANARY) == []


@pytest.mark.parametrize(
    "point", ["share.after_part", "share.after_upload", "share.after_announcement", "share.after_step"]
)
def test_a_file_arrives_once_though_its_sender_is_killed(pair: Mesh, tmp_path: Path, point: str) -> None:
    """At each step between the spool and the end; the message too comes once."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    alice.stop()
    alice.start()
    alice.ready()
    path = written(tmp_path / point)
    pair.broker.kill()
    until(lambda: not alice.request("GET", "/v1/health")[1]["connected"], "the link is down")
    file_id = share(alice, path, client_message_id=point)
    alice.stop()
    alice.start(f"{point}=kill@1")
    pair.broker.start()
    alice.wait_killed()
    path.unlink()
    alice.start()
    alice.ready()
    message = announced(bob, file_id)
    until(lambda: state_of(alice, file_id)["state"] == "shared", "the sender is done")
    assert [m["id"] for m in bob.inbox() if m["client_message_id"] == point] == [message["id"]]
    status, answer = get(bob, file_id, tmp_path / "out")
    assert status == 200, answer
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_an_upload_goes_on_behind_a_broker_that_was_killed(pair: Mesh, tmp_path: Path) -> None:
    """The blob is one at the end, and its message leaves behind it."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    content = os.urandom(24 << 20)
    file_id = share(alice, written(tmp_path / "big", content))
    until(lambda: _is_on_its_way(alice, file_id), "it is on its way")
    pair.broker.kill()
    pair.broker.start()
    announced(bob, file_id)
    status, answer = get(bob, file_id, tmp_path / "out")
    assert status == 200, answer
    assert (tmp_path / "out").read_bytes() == content


def _is_on_its_way(daemon: Daemon, file_id: str) -> bool:
    item = state_of(daemon, file_id)
    return item["state"] != "uploading" or (item["sent"] or 0) > 1 << 20


@pytest.mark.parametrize("point", ["fetch.after_chunk", "fetch.before_name", "fetch.after_name"])
def test_a_download_goes_on_behind_a_kill(pair: Mesh, tmp_path: Path, point: str) -> None:
    """The name exists when the whole is verified, and only then."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file_id = share(alice, written(tmp_path / "file"))
    announced(bob, file_id)
    bob.stop()
    bob.start(f"{point}=kill@2" if point == "fetch.after_chunk" else f"{point}=kill@1")
    bob.ready()
    out = tmp_path / "out"
    with pytest.raises(Exception, match=r".*"):
        get(bob, file_id, out)
    bob.wait_killed()
    is_named = point == "fetch.after_name"
    assert out.exists() == is_named
    if not is_named:
        assert (tmp_path / f".{file_id}.part").stat().st_size > 0
    bob.start()
    bob.ready()
    status, answer = get(bob, file_id, out)
    assert (status, answer.get("path")) == (200, str(out)), answer
    assert out.read_bytes() == CONTENT
    assert not (tmp_path / f".{file_id}.part").exists()


def test_a_download_to_standard_output_goes_on_behind_a_cut(pair: Mesh, tmp_path: Path) -> None:
    """The same command finds what an earlier one has left, a whole file too, and leaves nothing behind."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file_id = share(alice, written(tmp_path / "file"))
    announced(bob, file_id)
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def printed() -> bytes:
        return subprocess.run(
            [sys.executable, "-m", "claudemesh", "file", "get", file_id, "--out", "-"],
            env={**os.environ, "CLAUDEMESH_HOME": str(bob.home), "TMPDIR": str(temporary)},
            cwd=REPOSITORY,
            capture_output=True,
            timeout=WAIT_S,
        ).stdout

    for point in ("fetch.after_chunk=kill@2", "fetch.after_name=kill@1"):
        bob.stop()
        bob.start(point)
        bob.ready()
        assert printed() == b""
        bob.wait_killed()
        [kept] = temporary.iterdir()
        assert max(path.stat().st_size for path in kept.iterdir()) > 0
        bob.start()
        bob.ready()
    (kept / f".{file_id}.part").unlink()
    assert printed() == CONTENT
    assert list(temporary.iterdir()) == []


def test_a_changed_temporary_file_is_noticed(pair: Mesh, tmp_path: Path) -> None:
    """The download begins again, and blames no side."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file_id = share(alice, written(tmp_path / "file"))
    announced(bob, file_id)
    part = written(tmp_path / f".{file_id}.part", b"x" * (1 << 20))
    part.chmod(0o600)
    status, answer = get(bob, file_id, tmp_path / "out")
    assert status == 200, answer
    assert (tmp_path / "out").read_bytes() == CONTENT


def _blob_files(made: Mesh) -> list[Path]:
    return [path for path in files_in(made.broker.data) if "blobs" in path.parts]


def test_a_broker_that_changes_a_blob_is_named(pair: Mesh, tmp_path: Path) -> None:
    """No byte of it gets the name of the file, and nothing is deleted."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    before = set(_blob_files(pair))
    file_id = share(alice, written(tmp_path / "file"))
    announced(bob, file_id)
    [blob] = set(_blob_files(pair)) - before
    good = blob.read_bytes()
    for wrong in (_flipped(good, 100), _flipped(good, len(good) - 1), good[:-20] + os.urandom(20)):
        blob.write_bytes(wrong)
        status, answer = get(bob, file_id, tmp_path / "out")
        assert (status, answer["error"], answer["at_fault"]) == (422, "blob_changed", "broker")
        assert not (tmp_path / "out").exists()
        assert blob.exists()
    blob.write_bytes(good)
    assert get(bob, file_id, tmp_path / "out")[0] == 200
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_a_broker_that_gives_another_blob_is_named(pair: Mesh, tmp_path: Path) -> None:
    """Of the same size or not."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    blobs, ids = [], []
    for name, content in (("one", CONTENT), ("two", CONTENT[::-1]), ("short", b"short")):
        before = set(_blob_files(pair))
        ids.append(share(alice, written(tmp_path / name, content)))
        announced(bob, ids[-1])
        blobs += set(_blob_files(pair)) - before
    wanted = blobs[0].read_bytes()
    for other in blobs[1:]:
        blobs[0].write_bytes(other.read_bytes())
        status, answer = get(bob, ids[0], tmp_path / "out")
        assert status in (404, 422, 503) and answer.get("at_fault", "broker") == "broker", answer
        assert not (tmp_path / "out").exists()
    blobs[0].write_bytes(wanted)
    assert get(bob, ids[0], tmp_path / "out")[0] == 200
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("sha256", "ab" * 32, "sender"),
        ("blob_sha256", "ab" * 32, "sender"),
        ("size", len(CONTENT) - 1, "sender"),
        ("key", "A" * 43 + "=", "sender"),
    ],
)
def test_a_sender_that_announces_something_else_is_named(
    pair: Mesh, tmp_path: Path, field: str, value: object, fault: str
) -> None:
    """The broker delivers what was uploaded, so the announcement is wrong; nothing is deleted."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file_id = share(alice, written(tmp_path / "file"))
    message = announced(bob, file_id)
    bob.stop()
    with closing(sqlite3.connect(bob.root / "inbox.db")) as database, database:
        query = "SELECT attachments FROM inbox WHERE id = ?"
        [file] = json.loads(database.execute(query, (message["id"],)).fetchone()[0])
        changed = json.dumps([{**file, field: value}])
        database.execute("UPDATE inbox SET attachments = ? WHERE id = ?", (changed, message["id"]))
    bob.start()
    bob.ready()
    status, answer = get(bob, file_id, tmp_path / "out")
    assert (status, answer["error"], answer["at_fault"]) == (422, "file_wrong", fault)
    assert not (tmp_path / "out").exists()


def _flipped(raw: bytes, place: int) -> bytes:
    changed = bytearray(raw)
    changed[place] ^= 1
    return bytes(changed)


def test_a_deleted_file_can_no_longer_be_fetched(pair: Mesh, tmp_path: Path) -> None:
    """Its sender deletes it; a receiver cannot."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file_id = share(alice, written(tmp_path / "file"))
    announced(bob, file_id)
    until(lambda: state_of(alice, file_id)["state"] == "shared", "the sender is done")
    status, answer = bob.request("POST", "/v1/file/delete", {"id": file_id})
    assert (status, answer["error"]) == (403, "not_authorized")
    assert alice.request("POST", "/v1/file/delete", {"id": file_id})[0] == 200
    status, answer = get(bob, file_id, tmp_path / "out")
    assert (status, answer["error"]) == (404, "blob_not_found")


def text_of(daemon: Daemon, client_message_id: str) -> dict[str, Any]:
    """The message with this id, once it is here."""

    def found() -> Any:
        return [item for item in daemon.inbox() if item["client_message_id"] == client_message_id]

    item: dict[str, Any] = until(found, "the text is here")[0]
    return item


def test_a_long_text_arrives_whole(pair: Mesh) -> None:
    """Its sender does nothing for it; the list shows the beginning, the message itself all of it."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    text = "zeile ü " * 80_000
    fields = {"client_message_id": "long", "meta": {"a": 1}, "priority": "now"}
    for _ in range(2):
        status, answer = alice.send("bob", text, **fields)
        assert (status, answer["client_message_id"]) == (202, "long"), answer
    shown = text_of(bob, "long")
    assert shown["body_truncated"] and shown["body_bytes"] == len(text.encode())
    assert text.startswith(shown["body"]) and 0 < len(shown["body"]) < 5000
    assert (shown["attachments"], shown["meta"], shown["priority"]) == ([], {"a": 1}, "now")
    for _ in range(2):
        status, whole = bob.request("GET", f"/v1/inbox/{shown['id']}")
        assert (status, whole["body_truncated"]) == (200, False)
        assert whole["body"] == text
    assert [m for m in bob.inbox() if m["client_message_id"] == "long"] == [shown]
    status, answer = alice.send("bob", text + "!", **fields)
    assert (status, answer["error"]) == (409, "idempotency_key_reused")
    assert searched(pair.broker.data, "zeile ü".encode()) == []
    assert bob.request("GET", "/v1/file/list")[1]["items"] == [
        item for item in bob.request("GET", "/v1/file/list")[1]["items"] if item["name"] != "message.txt"
    ]


def test_a_name_behind_the_beginning_of_a_long_post_is_a_mention(pair: Mesh) -> None:
    """The whole text counts, and lists say that they show the beginning only."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    text = "a line of a log\n" * 20_000 + "@bob: this is the end"
    assert alice.post("all", text, client_message_id="mentioning")[0] == 202
    shown = text_of(bob, "mentioning")
    assert shown["mentioned"] and shown["body_truncated"]
    assert "mentioning" in [
        m["client_message_id"] for m in bob.request("GET", "/v1/inbox?mentioned=true")[1]["items"]
    ]
    mark = f"[cut: the text has {len(text)} bytes; `claudemesh inbox show {shown['seq']}` prints all of it]"
    assert mark in pair.cli(bob, "inbox", "--mentions")
    assert f"[cut: the text has {len(text)} bytes" in pair.cli(bob, "history", "--topic", "all")
    assert f"[cut: the text has {len(text)} bytes]" in pair.cli(alice, "history", "--topic", "all")


def test_a_text_of_sixteen_mebibytes_goes_by_the_command_line(pair: Mesh, tmp_path: Path) -> None:
    """From a file; shown whole, and with --quiet alone."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    path = written(tmp_path / "text", b"line of sixteen.\n" * ((16 << 20) // 17))
    pair.cli(alice, "send", "bob", "--file", str(path), "--id", "longest")
    shown = text_of(bob, "longest")
    assert shown["body_bytes"] == path.stat().st_size
    assert pair.cli(bob, "inbox", "show", str(shown["seq"]), "-q").encode() == path.read_bytes()
    too_long = written(tmp_path / "longer", bytes((16 << 20) + 1))
    with pytest.raises(AssertionError, match="larger than"):
        pair.cli(alice, "send", "bob", "--file", str(too_long))


def test_files_by_the_command_line(pair: Mesh, tmp_path: Path) -> None:
    """Sent, listed, fetched to a directory and to standard output, deleted."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    path = written(tmp_path / "cli.log", b"by the command line\n")
    queued = pair.cli(alice, "file", "send", str(path), "bob", "-m", "here")
    file_id = queued.split()[1]
    announced(bob, file_id)
    assert file_id in pair.cli(bob, "file", "list")
    assert "cli.log" in pair.cli(bob, "inbox", "show", announced(bob, file_id)["id"])
    assert pair.cli(bob, "file", "get", file_id, "--out", "-") == "by the command line\n"
    out = tmp_path / "copy.log"
    assert pair.cli(bob, "file", "get", file_id, "--out", str(out)) == f"{out}\n"
    assert out.read_bytes() == path.read_bytes()
    until(lambda: "shared" in pair.cli(alice, "file", "list", "--sent"), "the sender is done")
    pair.cli(alice, "file", "delete", file_id)


def test_a_long_path_is_taken_by_the_query_as_by_the_body(pair: Mesh, tmp_path: Path) -> None:
    """A path of the system may have 4096 bytes."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file_id = share(alice, written(tmp_path / "file"))
    announced(bob, file_id)
    out = tmp_path.joinpath(*["d" * 200] * 3)
    out.mkdir(parents=True)
    status, answer = bob.request("GET", f"/v1/file/get?id={file_id}&out={out}")
    assert (status, answer.get("path")) == (200, str(out / "file"))


def test_a_file_to_a_topic_reaches_each_subscriber(pair: Mesh, tmp_path: Path) -> None:
    """A message of any kind announces files."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file_id = share(alice, written(tmp_path / "file"), to="#all")
    assert announced(bob, file_id)["topic"] == "all"
    assert get(bob, file_id, tmp_path / "out")[0] == 200


def test_keys_of_files_stay_in_the_database(pair: Mesh, tmp_path: Path) -> None:
    """The sender drops its copy of the key with the last use of it."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file_id = share(alice, written(tmp_path / "file"))
    announced(bob, file_id)
    until(lambda: state_of(alice, file_id)["state"] == "shared", "the sender is done")
    with closing(sqlite3.connect(alice.root / "files.db")) as database:
        query = "SELECT length(key) FROM shared WHERE file_id = ?"
        assert database.execute(query, (file_id,)).fetchone() == (0,)
