"""An operator's commands at a broker, and TLS: with real processes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from claudemesh.client.own_broker import other_data_dirs
from tests.support.audit import wait_done, wait_received
from tests.support.certificates import authority
from tests.support.cli import Ran, run
from tests.support.crowd import fill
from tests.support.processes import Mesh, mesh, until

OK, USAGE, UNAVAILABLE, PERMISSION = 0, 64, 69, 77


@pytest.fixture
def trio() -> Generator[Mesh]:
    """A broker, and three members."""
    with mesh("alice", "bob", "carol") as made:
        yield made


def admin(made: Mesh, *arguments: str) -> Ran:
    """Run a broker command beside the broker."""
    return run(made.root / "operator", "broker", *arguments, "--data-dir", str(made.broker.data))


def test_members_are_listed_and_one_is_revoked(trio: Mesh) -> None:
    """At once and everywhere: its daemon ends with 77, cannot connect again, and gets no more messages."""
    alice, bob = trio.daemons["alice"], trio.daemons["bob"]
    before = [bob.send("alice", "a last word")[1]["client_message_id"]]
    wait_received(alice, before)
    listed = {item["name"]: item for item in admin(trio, "member", "list", "demo", "--json").json["items"]}
    assert {name: (item["status"], item["online"]) for name, item in listed.items()} == dict.fromkeys(
        ("alice", "bob", "carol"), ("active", True)
    )
    assert admin(trio, "member", "revoke", "demo", "@Bob").out == "revoked bob\n"
    assert bob.ended() == PERMISSION
    bob.start()
    assert bob.ended() == PERMISSION
    wait_received(alice, before)
    status, answer = alice.send("bob", "are you there?")
    assert (status, answer["error"]) == (404, "destination_not_found")
    carol = [alice.send("carol", "hello")[1]["client_message_id"]]
    wait_done(alice, carol)
    assert admin(trio, "member", "revoke", "demo", "bob").code == OK
    assert admin(trio, "member", "revoke", "demo", "nobody").code == USAGE
    kinds = [item["kind"] for item in admin(trio, "audit", "demo", "--json").json["items"]]
    assert kinds.count("member_revoked") == 1
    assert "mesh_created" in kinds


def test_an_invite_is_listed_and_revoked(trio: Mesh) -> None:
    """A host that joins by it afterwards gets the error."""
    made = json.loads(trio.cli(trio.daemons["alice"], "invite", "create", "--uses", "5", "--json"))
    items = {
        item["invite_id"]: item for item in admin(trio, "invite", "list", "demo", "--json").json["items"]
    }
    assert (items[made["invite_id"]]["uses"], items[made["invite_id"]]["max_uses"]) == (0, 5)
    assert admin(trio, "invite", "revoke", "demo", made["invite_id"]).code == OK
    refused = run(trio.root / "dave", "join", made["invite"], "--name", "dave", "--json")
    assert refused.json["error"] == "invite_revoked"
    assert admin(trio, "invite", "revoke", "demo", "no-such-invite").code == USAGE


def test_policies_of_a_mesh_are_listed_and_set(trio: Mesh) -> None:
    """A wrong one is named, and nothing is changed."""
    set_limit = ["mesh", "set", "demo", "--rate-limit-per-minute"]
    assert admin(trio, *set_limit, "7").code == OK
    wrong = admin(trio, "mesh", "set", "demo", "--dedupe-retention-days", "8", "--json")
    assert (wrong.code, wrong.json["error"]) == (USAGE, "retention_mismatch")
    assert admin(trio, "mesh", "set", "demo").code == USAGE
    listed = admin(trio, "mesh", "list", "--json").json["items"]
    assert [(item["slug"], item["rate_limit_per_minute"], item["online"]) for item in listed] == [
        ("demo", 7, 3)
    ]
    assert admin(trio, "mesh", "set", "other", "--rate-limit-per-minute", "1").code == USAGE


def test_a_wrong_name_is_answered_with_the_names_there_are(trio: Mesh) -> None:
    """Of meshes and of members, for people and for programs."""
    meshes, members = "claudemesh broker mesh list", "claudemesh broker member list demo"
    for command, near, next_command in (
        ("mesh set dem --rate-limit-per-minute 1", "demo", meshes),
        ("member list dem", "demo", meshes),
        ("invite revoke dem 01JV0000000000000000000000", "demo", meshes),
        ("audit dem", "demo", meshes),
        ("member revoke dem alice", "demo", meshes),
        ("member revoke demo alicf", "alice", members),
    ):
        body = admin(trio, *command.split(), "--json").json
        assert (body["error"], body["near"], body["next"]) == ("not_found", [near], next_command)
        assert body["message"].endswith(f"Did you mean {near}?"), command


def test_nobody_without_the_token_gets_in(trio: Mesh) -> None:
    """Wrong token, no token, no broker: each has its own words."""
    nowhere = trio.root / "nowhere"
    url = ["--broker", trio.broker.url]
    assert run(nowhere, "broker", "mesh", "list", *url).code == USAGE
    wrong = run(nowhere, "broker", "mesh", "list", *url, CLAUDEMESH_BROKER_ADMIN_TOKEN="x" * 32)
    assert (wrong.code, "admin token" in wrong.err) == (PERMISSION, True)
    away = run(nowhere, "broker", "mesh", "list", CLAUDEMESH_BROKER_ADMIN_TOKEN="x" * 32)
    assert (away.code, "broker up" in away.err) == (UNAVAILABLE, True)


def test_a_broker_with_another_data_directory_is_named(trio: Mesh) -> None:
    """By the sentence of a command that looks at the usual place. A mesh is made there with that option."""
    nowhere = trio.root / "nowhere"
    assert trio.broker.data in other_data_dirs(nowhere)
    assert trio.broker.data not in other_data_dirs(trio.broker.data)
    for command in (["mesh", "create", "more"], ["broker", "mesh", "list"], ["broker", "status"]):
        done = run(nowhere, *command)
        assert (done.code != OK, "Another one runs: name it with --data-dir /" in done.err) == (True, True)
    where = ["--data-dir", str(trio.broker.data)]
    made = run(nowhere, "mesh", "create", "more", "--name", "me", "--json", *where)
    assert (made.code, made.json["broker_url"]) == (OK, trio.broker.url)
    missing = run(nowhere, "mesh", "create", "again", "--data-dir", str(nowhere))
    assert (missing.code, "No broker runs with the data directory" in missing.err) == (UNAVAILABLE, True)


def test_jobs_and_the_check_run_on_demand(trio: Mesh) -> None:
    """Exit 0 while everything is whole, 1 with what is not, 64 for a job that there is not."""
    alice = trio.daemons["alice"]
    wait_done(alice, [alice.send("bob", "whole")[1]["client_message_id"]])
    assert "found 0" in admin(trio, "check").out
    for name in ("message-sweep", "dedupe-sweep", "ephemeral-reaper", "orphan-check"):
        assert admin(trio, "job", "run", name).code == OK
    assert admin(trio, "job", "run", "coffee").code == USAGE
    wrong = admin(trio, "job", "run", "msg-sweep", "--json").json
    assert (wrong["near"][0], wrong["next"]) == ("message-sweep", "claudemesh broker job list")
    trio.broker.stop()
    database = sqlite3.connect(trio.broker.data / "broker.db")
    database.execute("DELETE FROM message_history")
    database.commit()
    database.close()
    trio.broker.start()
    trio.broker.ready()
    done = admin(trio, "check", "--json")
    assert (done.code, done.json["found"]) == (1, 1)
    assert done.json["findings"][0]["kind"] == "dedupe_without_history"


def certificate(folder: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> tuple[Path, Path]:
    """A certificate for localhost that only we trust."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", f"subjectAltName={names}"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-days", "2", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*made, *subject, *files], check=True, capture_output=True)
    return cert, key


def test_a_broker_speaks_tls_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Create, join and send over wss; a client that does not trust the certificate is refused."""
    with mesh(start=False) as made:
        made.broker.stop()
        cert, key = certificate(made.root)
        made.broker.arguments += ["--tls-cert", str(cert), "--tls-key", str(key)]
        made.broker.tls = str(cert)
        made.broker.url = f"wss://localhost:{made.broker.port}"
        made.broker.start()
        made.broker.ready()
        with pytest.raises(AssertionError, match="signed by no authority that this host trusts"):
            made.add("mallory")
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        alice, bob = made.add("alice"), made.add("bob")
        for daemon in (alice, bob):
            daemon.start()
        for daemon in (alice, bob):
            daemon.ready()
        wait_received(bob, [alice.send("bob", "over tls")[1]["client_message_id"]])
        made.stop()
        assert os.environ["SSL_CERT_FILE"] == str(cert)


def test_commands_on_the_host_of_a_tls_broker_dial_the_address_of_its_certificate() -> None:
    """It is made out to the public address, and signed by an authority that the host does not know."""
    with mesh(start=False) as made:
        made.broker.stop()
        signed = authority(made.root, "DNS:localhost")
        public = f"wss://localhost:{made.broker.port}"
        made.broker.arguments += ["--tls-cert", str(signed.cert), "--tls-key", str(signed.key)]
        made.broker.arguments += ["--public-url", public]
        made.broker.tls = str(signed.ca)
        made.broker.start()
        made.broker.ready()
        assert admin(made, "mesh", "list").code == OK
        status = admin(made, "status", "--json")
        assert (status.code, status.json["url"], status.json["ready"]) == (OK, public, True)
        named = admin(made, "mesh", "list", "--broker", public)
        assert (named.code, "signed by no authority that this host trusts" in named.err) == (78, True)
        assert f"try: claudemesh broker mesh list --broker {public} " in named.err
        assert named.err.endswith(" --ca-file FILE\n")


def test_commands_beside_a_broker_trust_its_certificate_by_themselves() -> None:
    """Without the authority that has signed it, and though no name server knows the public address."""
    with mesh(start=False) as made:
        made.broker.stop()
        signed = authority(made.root, "DNS:mesh.invalid")
        made.broker.arguments += ["--tls-cert", str(signed.cert), "--tls-key", str(signed.key)]
        made.broker.arguments += ["--public-url", "wss://mesh.invalid"]
        made.broker.tls = str(signed.ca)
        made.broker.start()
        until(lambda: (made.broker.data / "broker.json").exists(), "the broker serves")
        for command in ("mesh list", "check", "status"):
            done = admin(made, *command.split())
            assert (done.code, done.err) == (OK, ""), command
        state = admin(made, "status", "--json").json
        assert (state["ready"], state["url"]) == (True, "wss://mesh.invalid")
        settings = admin(made, "config", "show", "--json").json
        assert settings["running"]["tls_cert"] == str(signed.cert)
        assert "wss://mesh.invalid" in admin(made, "config", "show").err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--tls-cert", "cert.pem"], "--tls-key"),
        (["--tls-cert", "/nowhere/cert.pem", "--tls-key", "/nowhere/key.pem"], "/nowhere/cert.pem"),
    ],
)
def test_wrong_tls_files_are_named(tmp_path: Path, arguments: list[str], named: str) -> None:
    """Exit 78, and nothing listens."""
    done = run(tmp_path, "broker", "up", "--listen", "127.0.0.1:0", *arguments)
    assert (done.code, named in done.err) == (78, True)


def test_a_list_longer_than_a_page_is_listed_whole() -> None:
    """The command asks for page after page."""
    with mesh("alice") as made:
        made.broker.stop()
        mesh_id = json.loads((made.daemons["alice"].root / "membership.json").read_text())["mesh_id"]
        fill(made.broker.data / "broker.db", mesh_id, 1100, "m")
        made.broker.start()
        made.broker.ready()
        names = [item["name"] for item in admin(made, "member", "list", "demo", "--json").json["items"]]
        assert sorted(names) == sorted(["alice", *(f"m{number}" for number in range(1100))])


def test_a_broker_that_was_named_is_not_answered_with_one_to_start(trio: Mesh) -> None:
    """The answer names the file of its token, and the same command with that file."""
    there = ("mesh", "create", "ops", "--broker", trio.broker.url)
    refused = run(trio.root / "stranger", *there, "--json")
    assert (refused.code, refused.json["error"]) == (USAGE, "no_admin_token")
    assert "admin_token in the data directory" in refused.json["message"]
    assert refused.json["next"] == f"claudemesh {' '.join(there)} --json --admin-token-file FILE"
    elsewhere = run(trio.root / "stranger", *there[:-1], "wss://mesh.example.org", "--json")
    assert "admin_token in its data directory" in elsewhere.json["message"]
    assert elsewhere.json["next"].endswith(" --admin-token-file FILE")
    token = str(trio.broker.data / "admin_token")
    assert run(trio.root / "stranger", *there, "--admin-token-file", token).code == OK
