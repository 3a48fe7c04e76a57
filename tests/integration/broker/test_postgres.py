"""A broker on Postgres does what an embedded one does, and its data is in the database alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from claudemesh.runtime.exits import CONFIGURATION, UNAVAILABLE
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.postgres import empty_database
from tests.support.processes import REPOSITORY
from tests.support.waiting import WAIT_S
from tests.support.wspeer import http_request


async def test_a_dm_and_a_topic_post_are_accepted_and_delivered(tmp_path: Path) -> None:
    """Live to the one that is here, later to the one that is not; acknowledged, nothing is owed."""
    async with empty_database() as url:
        async with running_broker(database_url=url, data_dir=tmp_path / "broker") as broker:
            ada = await create_mesh(broker)
            bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
            dm, post = ada.envelope(bob, "for bob", mentions=[bob.pubkey]), ada.envelope("all", "for all")
            async with ada.connect() as sending, bob.connect() as receiving:
                results = [await sending.request(dm), await sending.request(post)]
                again = await sending.request(dm)
                conflict = await sending.request(
                    ada.envelope(bob, "other", client_message_id=dm["client_message_id"])
                )
                frames = await receiving.deliveries(2)
                await receiving.acknowledge(frames)
            async with cleo.connect() as late:
                later = await late.deliveries(1)
                await late.acknowledge(later)
            while await broker.context.store.messages.deliveries_pending():
                await broker.context.store.ping()
            assert (await http_request(broker.url, "GET", "/readyz"))[0] == 200
            assert not (broker.settings.data_dir / "broker.db").exists()
        assert [result["status"] for result in results] == [201, 201]
        assert (again["status"], again["broker_message_id"]) == (200, results[0]["broker_message_id"])
        assert conflict["status"] == 409
        assert [frame["envelope"] for frame in frames] == [dm, post]
        assert [frame["broker_message_id"] for frame in later] == [results[1]["broker_message_id"]]


async def test_messages_outlive_the_broker_and_its_data_dir(tmp_path: Path) -> None:
    """Another data dir, the same database: the members, the messages and the epoch are there."""
    async with empty_database() as url:
        async with running_broker(database_url=url, data_dir=tmp_path / "one") as broker:
            ada = await create_mesh(broker)
            bob = await join_mesh(ada, "bob")
            envelope, epoch = ada.envelope(bob), broker.context.state.store_epoch
            async with ada.connect() as link:
                first = await link.request(envelope)
            port = broker.url.rpartition(":")[2]
        listen = f"127.0.0.1:{port}"
        async with running_broker(database_url=url, data_dir=tmp_path / "two", listen=listen) as broker:
            async with ada.connect() as link, bob.connect() as receiving:
                again = await link.request(envelope)
                delivered = await receiving.deliveries(1)
            assert broker.context.state.store_epoch == epoch
    assert (again["status"], again["history_id"]) == (200, first["history_id"])
    assert delivered[0]["envelope"] == envelope


async def test_the_command_line_says_why_a_database_will_not_do(tmp_path: Path) -> None:
    """One sentence, the exit code, and no password; by flag and by environment."""
    secret = "hunter2hunter2"
    done = up(tmp_path, {}, "--database-url", f"postgresql://me:{secret}@/x?host={tmp_path}")
    assert done.returncode == UNAVAILABLE, done.stderr
    assert "database does not answer" in done.stderr
    assert secret not in done.stderr + done.stdout
    done = up(tmp_path, {"CLAUDEMESH_BROKER_DATABASE_URL": f"mysql://me:{secret}@host/x"})
    assert done.returncode == CONFIGURATION
    assert "CLAUDEMESH_BROKER_DATABASE_URL: database_url must be a URL such as" in done.stderr
    assert secret not in done.stderr + done.stdout
    data_dir = tmp_path / "data"
    (data_dir / "broker.toml").write_text(f"database_url = {json.dumps(f'postgresql://@/x?host={tmp_path}')}")
    done = up(tmp_path, {})
    assert done.returncode == UNAVAILABLE


def up(root: Path, changes: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    """Run `broker up`, which is expected to end by itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLAUDEMESH_")}
    environment = {**kept, "CLAUDEMESH_HOME": str(root), "PYTHONPATH": str(REPOSITORY), **changes}
    command = [sys.executable, "-m", "claudemesh", "broker", "up", "--listen", "127.0.0.1:0"]
    return subprocess.run(
        [*command, "--data-dir", str(root / "data"), *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
