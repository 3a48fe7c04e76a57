"""The writer of the snapshots of 0.1.0: processes of that release that leave a row of each kind behind.

It runs in a checkout of the release, with the package and the `tests/support` of that checkout:

    git worktree add --detach /tmp/old e423227
    cd /tmp/old
    PYTHONPATH=. PYTHON SNAPSHOTS/write_0_1_0.py SNAPSHOTS/0.1.0

The folder gets `sqlite/` and `postgres/`: the broker's database, and what four hosts hold.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import secrets
import sqlite3
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from claudemesh.protocol.invites import parse_link
from claudemesh.protocol.keys import new_identity
from claudemesh.protocol.signing import sign_join
from tests.integration.hooks.hooked import Host
from tests.support.audit import broker_rows, rows, wait_done, wait_received
from tests.support.postgres import Server, binaries, empty_database
from tests.support.processes import Daemon, Mesh, mesh, until

HOSTS = ("alice", "bob", "carol", "dave")
# Files that a host keeps beside its databases.
FILES = ("membership.json", "keypair.json", "peers.json")
# Far enough ahead for every ephemeral member to have been away for long.
LATER_MS = 1000 * 86_400_000
OTHER_KEY = "k_01M8ETSW7ZWJCQK08NTRMFSMNW"


def on_sqlite(folder: Path) -> None:
    """Write the snapshot of a mesh whose broker keeps a file."""
    with mesh(*HOSTS, start=False) as made:
        fill(made)
        asyncio.run(let_leave("sqlite", "SqliteStore", made.broker.data / "broker.db"))
        keep(made, folder)
        (folder / "broker.sql").write_text(sqlite_dump(made.broker.data / "broker.db"))


async def on_postgres(folder: Path) -> None:
    """Write the snapshot of a mesh whose broker keeps a database."""
    server = Server()
    server.start()
    try:
        async with empty_database(server) as url:
            await asyncio.to_thread(_fill_postgres, url, folder)
    finally:
        server.remove()


def _fill_postgres(url: str, folder: Path) -> None:
    with mesh(*HOSTS, start=False, database_url=url) as made:
        fill(made)
        asyncio.run(let_leave("postgres", "PostgresStore", url))
        keep(made, folder)
        (folder / "broker.sql").write_text(postgres_dump(url))


def fill(made: Mesh) -> None:
    """Let the members do what leaves rows; no process runs at the end."""
    alice, bob, carol, _ = made.daemons.values()
    host = Host(bob)
    host.script("on-dm", "cat >>$OUT/events")
    host.manifest(on_dm={})
    for daemon in made.daemons.values():
        daemon.start()
    for daemon in made.daemons.values():
        daemon.ready()
    join_for_a_while(made, "erin")
    deliver(alice, bob, host)
    deliver_sealed(alice, bob, host)
    deliver_without_acknowledgement(alice, bob)
    leave_waiting(made)
    let_die(alice)
    leave_inflight(made)
    made.broker.stop()
    ok(carol.send("bob", "pending 1", client_message_id="pending-1"))
    carol.stop()


def deliver(alice: Daemon, bob: Daemon, host: Host) -> None:
    """Sends that are done; received messages, one of them with a mention and acknowledged by its reader."""
    for path, topic in (
        ("create", "deploys"),
        ("create", "queue:builds"),
        ("subscribe", "deploys"),
        ("subscribe", "queue:builds"),
    ):
        ok((alice if path == "create" else bob).request("POST", f"/v1/topic/{path}", {"topic": topic}))
    ok(alice.send("bob", "dm 1", client_message_id="dm-1"))
    ok(alice.post("deploys", "topic 1", client_message_id="topic-1", mentions=["bob"], priority="low"))
    ok(alice.post("queue:builds", "queue 1", client_message_id="queue-1"))
    wait_received(bob, ["dm-1", "topic-1", "queue-1"])
    ok(bob.send("alice", "dm b", client_message_id="dm-b"))
    wait_received(alice, ["dm-b"])
    [read] = [item["id"] for item in bob.inbox() if item["client_message_id"] == "topic-1"]
    ok(bob.request("POST", "/v1/inbox/ack", {"ids": [read], "as": "acked"}))
    until(lambda: (host.out / "events").exists(), "the hook has run")
    jobs = "SELECT count(*) FROM hook_jobs"
    until(lambda: rows(bob.root / "inbox.db", jobs) == [(0,)], "no hook is left to run")


def deliver_sealed(alice: Daemon, bob: Daemon, host: Host) -> None:
    """A message that is sealed to a key that its host does not hold; the host has no hooks then."""
    bob.stop()
    path, folder = bob.root / "keypair.json", bob.home / "hooks-aside"
    keypair = path.read_text()
    path.write_text(json.dumps(json.loads(keypair) | {"key_id": OTHER_KEY}))
    host.folder.rename(folder)
    bob.start()
    bob.ready()
    ok(alice.send("bob", "dm sealed", client_message_id="dm-sealed"))
    wait_received(bob, ["dm-sealed"], opened=False)
    bob.stop()
    path.write_text(keypair)
    folder.rename(host.folder)


def deliver_without_acknowledgement(alice: Daemon, bob: Daemon) -> None:
    """A message that its host has stored and the broker still owes, and a hook that is to run for it."""
    bob.start("r2=kill@1")
    bob.ready()
    ok(alice.send("bob", "dm again", client_message_id="dm-again"))
    bob.wait_killed()


def leave_waiting(made: Mesh) -> None:
    """Leave messages waiting at the broker, for an absent member and for a revoked one."""
    alice, dave = made.daemons["alice"], made.daemons["dave"]
    dave.stop()
    ok(alice.send("bob", "dm 2", client_message_id="dm-2", priority="now", meta={"number": 2}))
    ok(alice.post("deploys", "topic 2", client_message_id="topic-2"))
    ok(alice.post("deploys", "topic 3", client_message_id="topic-3", mentions=["bob", "carol"]))
    ok(alice.post("queue:builds", "queue 2", client_message_id="queue-2"))
    ok(alice.send("dave", "dm dave", client_message_id="dm-dave"))
    wait_done(alice, ["dm-2", "topic-2", "topic-3", "queue-2", "dm-dave"])
    where = ["--data-dir", str(made.broker.data), "--broker", made.broker.url]
    made.cli(alice, "broker", "member", "revoke", made.slug, "dave", *where)


def let_die(alice: Daemon) -> None:
    """Sends that the broker refuses: one as it is, one dropped, one sent again under another id."""
    for name in ("dead-1", "dead-2", "dead-3"):
        ok(alice.post("nowhere", name, client_message_id=name))
    until(lambda: {row["status"] for key, row in alice.outbox().items() if "dead" in key} == {"dead"}, "dead")
    ok(alice.request("POST", "/v1/outbox/dead-2/drop"))
    ok(alice.request("POST", "/v1/outbox/dead-3/requeue", {"new_client_message_id": "dead-4"}))
    until(lambda: alice.outbox()["dead-4"]["status"] == "dead", "it is refused again")


def leave_inflight(made: Mesh) -> None:
    """A send that the broker has accepted and not answered: in flight at its host."""
    alice = made.daemons["alice"]
    made.broker.stop()
    made.broker.start("a10=hang@1")
    made.broker.ready()
    alice.ready()
    ok(alice.post("deploys", "inflight 1", client_message_id="inflight-1"))
    query = "SELECT 1 FROM client_message_dedupe WHERE client_message_id = 'inflight-1'"
    until(lambda: broker_rows(made, query), "it is accepted")
    alice.kill()
    made.broker.kill()
    made.broker.start()
    made.broker.ready()


def join_for_a_while(made: Mesh, name: str) -> None:
    """Let an ephemeral member join whose keys are not kept."""
    link = json.loads(made.cli(made.daemons["alice"], "invite", "create", "--json"))["invite"]
    invite = parse_link(link)
    identity = new_identity(secrets.token_bytes, OTHER_KEY)
    audience = f"127.0.0.1:{made.broker.port}"
    proof = sign_join(
        identity, audience=audience, mesh_id=invite.mesh_id, invite_id=invite.invite_id, name=name
    )
    body = {
        "invite": link,
        "name": name,
        "ed25519_pubkey": identity.ed25519_pubkey,
        "x25519_pubkey": identity.x25519_pubkey,
        "x25519_signature": b64encode(identity.x25519_signature).decode(),
        "key_id": identity.key_id,
        "ephemeral": True,
        "proof": b64encode(proof).decode(),
    }
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{audience}/v1/join", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        assert response.status == 201


async def let_leave(package: str, name: str, where: object) -> None:
    """Let the ephemeral member leave, by the statement that a broker of the release runs after days."""
    store: Any = getattr(importlib.import_module(f"claudemesh.broker.store.{package}"), name)(where)
    await store.open()
    now_ms = time.time_ns() // 1_000_000
    assert len(await store.reap_ephemeral(now_ms + LATER_MS, now_ms + LATER_MS)) == 1
    await store.close()


def ok(answer: tuple[int, Any]) -> None:
    """Take an answer that is a success."""
    assert answer[0] in (200, 201, 202), answer


def keep(made: Mesh, folder: Path) -> None:
    """Write what the hosts hold; the port of the broker becomes 0."""
    for name in HOSTS:
        root, home = made.daemons[name].root, folder / name
        home.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            text = json.dumps(json.loads((root / file).read_text()), indent=2, sort_keys=True)
            (home / file).write_text(text.replace(f"127.0.0.1:{made.broker.port}", "127.0.0.1:0") + "\n")
        for database in ("outbox", "inbox"):
            (home / f"{database}.sql").write_text(sqlite_dump(root / f"{database}.db"))


def sqlite_dump(path: Path) -> str:
    """Return the statements that make the file again."""
    connection = sqlite3.connect(path)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    text = "\n".join([*connection.iterdump(), f"PRAGMA user_version = {version};"]) + "\n"
    connection.close()
    return text


def postgres_dump(url: str) -> str:
    """Return the statements that make the database again, without those of one version of pg_dump."""
    options = ("--inserts", "--no-owner", "--no-privileges", "--no-comments")
    done = subprocess.run([binaries() / "pg_dump", *options, url], capture_output=True, text=True, check=True)
    unwanted = ("--", "SET ", "\\", "SELECT pg_catalog.set_config")
    return "".join(f"{line}\n" for line in done.stdout.splitlines() if line and not line.startswith(unwanted))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    on_sqlite(target / "sqlite")
    asyncio.run(on_postgres(target / "postgres"))
