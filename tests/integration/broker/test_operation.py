"""Operation: data dir, drain, health, metrics, admin API (docs/spec/broker.md, Operation)."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import BrokerSettings, Limits
from claudemesh.runtime.errors import StorageUnavailable
from claudemesh.runtime.exits import CANNOT_CREATE, CONFIGURATION, TEMPORARY, ExitWith
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.living import files_in
from tests.support.waiting import WAIT_S
from tests.support.wspeer import Frame, http_request, make_identity, owner_body


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_everything_in_the_data_dir_is_private(tmp_path: Path) -> None:
    """0700 for the directory, 0600 for what is in it."""
    async with running_broker(data_dir=tmp_path / "broker") as broker:
        await create_mesh(broker)
        folder = broker.settings.data_dir
        assert mode(folder) == 0o700
        assert {path.name: oct(mode(path)) for path in files_in(folder) if mode(path) != 0o600} == {}
        text = (folder / "broker.json").read_bytes()
        found = orjson.loads(text)
        assert found.pop("settings")["listen"] == broker.settings.listen
        own = {"url": broker.url, "public_urls": [], "pid": os.getpid(), "certificate": None}
        assert found == own
        assert broker.admin_token.encode() not in text
        assert (folder / "admin_token").read_text() == broker.admin_token
    assert not (folder / "broker.json").exists()


async def test_the_token_the_epoch_and_the_data_outlive_a_restart(tmp_path: Path) -> None:
    """A restart is not a new broker."""
    async with running_broker(data_dir=tmp_path / "broker") as broker:
        ada = await create_mesh(broker)
        token, epoch = broker.admin_token, broker.context.state.store_epoch
    async with running_broker(data_dir=tmp_path / "broker") as broker:
        assert (broker.admin_token, broker.context.state.store_epoch) == (token, epoch)
        member = await broker.context.store.members.by_key(ada.mesh_id, ada.pubkey)
    assert member is not None


async def test_messages_outlive_a_restart(tmp_path: Path) -> None:
    """A message that was acknowledged to its sender is delivered by the next process, and a retry is a
    duplicate."""
    async with running_broker(data_dir=tmp_path / "broker") as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        envelope = ada.envelope(bob)
        async with ada.connect() as link:
            first = await link.request(envelope)
        port = broker.url.rpartition(":")[2]
    async with (
        running_broker(data_dir=tmp_path / "broker", listen=f"127.0.0.1:{port}"),
        ada.connect() as link,
        bob.connect() as receiving,
    ):
        again = await link.request(envelope)
        delivered = await receiving.deliveries(1)
    assert (again["status"], again["history_id"]) == (200, first["history_id"])
    assert delivered[0]["envelope"] == envelope


async def test_a_second_broker_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """The lock decides; the first one is not disturbed."""
    async with running_broker(data_dir=tmp_path / "broker") as broker:
        second = Broker(BrokerSettings(listen="127.0.0.1:0", data_dir=tmp_path / "broker"))
        with pytest.raises(ExitWith) as caught:
            await second.start()
        assert caught.value.code == TEMPORARY
        assert (await http_request(broker.url, "GET", "/readyz"))[0] == 200


async def test_an_address_in_use_is_said_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """Exit 73, and the data dir can be used at once."""
    async with running_broker() as broker:
        taken = broker.url.removeprefix("ws://")
        second = Broker(BrokerSettings(listen=taken, data_dir=tmp_path / "broker"))
        with pytest.raises(ExitWith) as caught:
            await second.start()
        assert caught.value.code == CANNOT_CREATE
    async with running_broker(data_dir=tmp_path / "broker"):
        pass


async def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Exit 78 with the chmod that mends it."""
    folder = tmp_path / "broker"
    async with running_broker(data_dir=folder):
        pass
    (folder / "admin_token").chmod(0o644)
    with pytest.raises(ExitWith) as caught:
        await Broker(BrokerSettings(listen="127.0.0.1:0", data_dir=folder)).start()
    assert caught.value.code == CONFIGURATION
    assert "chmod 600" in caught.value.message


async def test_stop_answers_what_is_in_flight_and_closes_with_4006() -> None:
    """Every send that was taken is answered; then the close says: connect again."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            requests = [await link.send(ada.envelope("all")) for _ in range(50)]
            first = await link.result(requests[0])
            await broker.stop()
            code, reason = await link.closed()
            results = [first, *link.waiting("send_result")]
    assert (code, reason["kind"]) == (4006, "broker_draining")
    assert {result["status"] for result in results} <= {201, 503}
    assert sum(result["status"] == 201 for result in results) >= 1


async def test_a_stop_that_misses_acknowledgements_logs_whose_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The deliveries stay owed."""
    async with running_broker(limits=Limits(acks_s=1.0)) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            await link.request(ada.envelope(ada))
            await link.deliveries(1)
            await broker.stop()
            assert (await link.closed())[0] == 4006
    [line] = [record for record in caplog.records if record.msg == "acks_missing"]
    fields = line.fields  # type: ignore[attr-defined]
    assert (fields["members"], fields["deliveries"]) == ([ada.member_id], 1)


async def test_a_draining_broker_says_so() -> None:
    """It is not ready, refuses new connections, and refuses sends for now."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            broker.context.state.draining = True
            await broker.context.acceptor.close()
            result = await link.request(ada.envelope("all"))
            status, body = await http_request(broker.url, "GET", "/readyz")
    assert (result["status"], result["error"]) == (503, "broker_busy")
    assert (status, body["error"]) == (503, "broker_draining")


async def test_health_is_the_process_and_readiness_the_database() -> None:
    """/healthz stays 200 while the database is away; /readyz does not."""
    async with running_broker() as broker:
        assert (await http_request(broker.url, "GET", "/healthz"))[0] == 200
        assert (await http_request(broker.url, "GET", "/readyz"))[0] == 200

        async def failing() -> None:
            raise StorageUnavailable("a test said so")

        broker.context.store.ping = failing  # type: ignore[method-assign]
        assert (await http_request(broker.url, "GET", "/healthz"))[0] == 200
        assert (await http_request(broker.url, "GET", "/readyz"))[0] == 503


async def test_a_store_that_fails_makes_a_send_transient() -> None:
    """503, never a made up outcome; the same send is accepted later."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        real = broker.context.store.messages.accept

        async def failing(*args: Any) -> Any:
            raise StorageUnavailable("a test said so")

        async with ada.connect() as link:
            broker.context.store.messages.accept = failing  # type: ignore[method-assign,assignment]
            envelope = ada.envelope("all")
            lost = await link.request(envelope)
            broker.context.store.messages.accept = real  # type: ignore[method-assign]
            found = await link.request(envelope)
    assert (lost["status"], lost["error"]) == (503, "storage_unavailable")
    assert found["status"] == 201


async def test_metrics_count_and_name_nobody() -> None:
    """Every name starts with cm_broker_, and no member, key or id is in it."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            await link.request(ada.envelope("all"))
            _, text = await http_request(broker.url, "GET", "/metrics")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(line.startswith("cm_broker_") for line in lines)
    assert 'cm_broker_accepts_total{status="201"} 1.0' in lines
    assert "cm_broker_connections 1.0" in lines
    for secret in (ada.name, ada.pubkey, ada.member_id, ada.mesh_id):
        assert secret not in text


async def test_meshes_are_made_and_listed_by_the_holder_of_the_token() -> None:
    """201, then in the list; the slug is taken from then on."""
    async with running_broker() as broker:
        ada = await create_mesh(broker, "home")
        body = {"slug": "home", "owner": owner_body("eve", make_identity())}
        status, taken = await http_request(
            broker.url, "POST", "/v1/admin/meshes", body, token=broker.admin_token
        )
        _, listed = await http_request(broker.url, "GET", "/v1/admin/meshes", token=broker.admin_token)
    assert (status, taken["error"]) == (409, "slug_taken")
    assert [(item["slug"], item["mesh_id"]) for item in listed["items"]] == [("home", ada.mesh_id)]


@pytest.mark.parametrize("token", [None, "", "wrong", "x" * 9000, "ключ".encode().decode("latin-1")])
async def test_without_the_token_nothing_is_told(token: str | None) -> None:
    """401 for every wrong token, of any shape."""
    async with running_broker() as broker:
        for method in ("GET", "POST"):
            status, body = await http_request(broker.url, method, "/v1/admin/meshes", {}, token=token)
            assert (status, body["error"]) == (401, "unauthenticated")


OWNER = owner_body("ada", make_identity())
BAD: list[tuple[Frame, str]] = [
    ({"slug": "Home", "owner": OWNER}, "invalid_slug"),
    ({"slug": "x" * 64, "owner": OWNER}, "invalid_slug"),
    ({"slug": 1, "owner": OWNER}, "invalid_slug"),
    ({"owner": OWNER}, "invalid_slug"),
    ({"slug": "home"}, "invalid_owner"),
    ({"slug": "home", "owner": []}, "invalid_owner"),
    ({"slug": "home", "owner": OWNER | {"name": "a b"}}, "invalid_name"),
    ({"slug": "home", "owner": OWNER | {"role": "owner"}}, "unknown_field"),
    ({"slug": "home", "owner": OWNER | {"ed25519_pubkey": "Z" * 64}}, "invalid_key"),
    ({"slug": "home", "owner": OWNER, "policy": "x"}, "unknown_field"),
]


@pytest.mark.parametrize(("body", "error"), BAD)
async def test_each_bad_field_of_a_mesh_has_a_code(body: Frame, error: str) -> None:
    """400 with a code and a sentence, and no mesh."""
    async with running_broker() as broker:
        status, answer = await http_request(
            broker.url, "POST", "/v1/admin/meshes", body, token=broker.admin_token
        )
        _, listed = await http_request(broker.url, "GET", "/v1/admin/meshes", token=broker.admin_token)
    assert (status, answer["error"]) == (400, error)
    assert answer["message"]
    assert listed["items"] == []


async def test_keys_that_do_not_belong_together_make_no_member() -> None:
    """The x25519 key must be signed by the ed25519 key."""
    body = {"slug": "home", "owner": OWNER | {"x25519_pubkey": make_identity().x25519_pubkey}}
    async with running_broker() as broker:
        status, answer = await http_request(
            broker.url, "POST", "/v1/admin/meshes", body, token=broker.admin_token
        )
    assert (status, answer["error"]) == (403, "bad_signature")


async def test_paths_and_methods_that_are_not_there_are_told_in_json() -> None:
    """404 and 405 have the one shape of every error."""
    async with running_broker() as broker:
        for method, path, status, error in (
            ("GET", "/", 404, "not_found"),
            ("GET", "/v1/ws", 404, "not_found"),
            ("GET", "/v1/join", 405, "method_not_allowed"),
            ("DELETE", "/healthz", 405, "method_not_allowed"),
            ("POST", "/healthz/../metrics", 404, "not_found"),
        ):
            found, body = await http_request(broker.url, method, path)
            assert (found, body["error"]) == (status, error)
            assert body["message"]


async def test_run_serves_until_it_is_stopped(tmp_path: Path) -> None:
    """`run` returns after `stop`, from wherever that is called."""
    broker = Broker(BrokerSettings(listen="127.0.0.1:0", data_dir=tmp_path / "broker"))
    await broker.start()
    await asyncio.wait_for(asyncio.gather(broker.run(), broker.stop()), WAIT_S)
