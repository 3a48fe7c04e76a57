"""The way to a broker on another machine: the proxy of the environment, and an authority of one's own."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest

from claudemesh.runtime.exits import CONFIGURATION, OK, UNAVAILABLE
from tests.support.certificates import Authority, authority
from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.tunnel import tunnelling

# No name server knows it: only the proxy does.
HOST = "mesh.invalid"
URL = f"wss://{HOST}"
PASSWORD = "pass word"


@pytest.fixture
def served() -> Generator[tuple[Mesh, Authority]]:
    """A broker with a certificate of its own authority, and no member yet."""
    with mesh(start=False) as made:
        made.broker.stop()
        signed = authority(made.root, f"DNS:{HOST}", "DNS:localhost")
        made.broker.arguments += ["--tls-cert", str(signed.cert), "--tls-key", str(signed.key)]
        made.broker.arguments += ["--public-url", URL]
        made.broker.tls = str(signed.ca)
        made.broker.url = f"wss://localhost:{made.broker.port}"
        made.broker.start()
        made.broker.ready()
        yield made, signed


def member(made: Mesh, name: str) -> Daemon:
    """A host that is no member yet."""
    daemon = Daemon(made.root, name, made.slug)
    made.daemons[name] = daemon
    return daemon


def create(made: Mesh, daemon: Daemon, url: str, *more: str, **environment: str) -> None:
    """Create the mesh from a host."""
    token = str(made.broker.data / "admin_token")
    arguments = ["mesh", "create", made.slug, "--broker", url, "--name", daemon.name]
    done = run(daemon.home, *arguments, "--admin-token-file", token, *more, **environment)
    assert done.code == OK, done.err


def told_of_broker(daemon: Daemon, **environment: str) -> dict[str, str]:
    """Return the finding of `doctor` about the broker."""
    items = run(daemon.home, "doctor", "--json", **environment).json["items"]
    found: dict[str, str] = next(item for item in items if item["check"] == "broker")
    return found


def exchange(alice: Daemon, bob: Daemon) -> None:
    """Send one message, and wait until it has arrived."""
    for daemon in (alice, bob):
        daemon.start()
    for daemon in (alice, bob):
        daemon.ready()
    assert alice.send("bob", "hello")[0] == 202
    until(lambda: [item["body"] for item in bob.inbox()] == ["hello"], "the message has arrived")


def test_every_connection_to_a_broker_goes_by_the_proxy_of_the_environment(
    served: tuple[Mesh, Authority],
) -> None:
    """Create, invite, join, link and doctor, with the user and password of the proxy's URL."""
    made, signed = served
    with tunnelling(made.broker.port, f"me:{PASSWORD}") as proxy:
        outside = {"HTTPS_PROXY": f"http://me:pass%20word@127.0.0.1:{proxy.port}", "NO_PROXY": ""}
        alice, bob = member(made, "alice"), member(made, "bob")
        create(made, alice, URL, "--ca-file", str(signed.ca), **outside)
        made_invite = run(alice.home, "invite", "create", "--json", **outside)
        assert (made_invite.code, made_invite.err) == (OK, "")
        link = made_invite.json["invite"]
        joined = run(bob.home, "join", link, "--name", "bob", "--ca-file", str(signed.ca), **outside)
        assert joined.code == OK, joined.err
        for daemon in (alice, bob):
            daemon.environment.update(outside)
        exchange(alice, bob)
        assert told_of_broker(bob, **outside)["state"] == "ok"
        assert set(proxy.asked) == {f"{HOST}:443"}
        assert not proxy.refused
        around = told_of_broker(bob, **{**outside, "NO_PROXY": HOST})
        assert (around["state"], "by the proxy" in around["detail"]) == ("failed", False)


def test_a_proxy_that_fails_is_named_without_its_password(served: tuple[Mesh, Authority]) -> None:
    """By a command and by the daemon, for a wrong password, a proxy that is away, and another kind of it."""
    made, signed = served
    with tunnelling(made.broker.port, "me:right") as proxy:
        place = f"127.0.0.1:{proxy.port}"
        alice = member(made, "alice")
        inside = {"HTTPS_PROXY": f"me:right@{place}"}
        create(made, alice, URL, "--ca-file", str(signed.ca), **inside)
        wrong = {"HTTPS_PROXY": f"http://me:s3cret@{place}"}
        found = told_of_broker(alice, **wrong)
        assert (f"by the proxy {place}" in found["detail"], "407" in found["detail"]) == (True, True)
        alice.environment.update(wrong)
        alice.start()
        alice.ready(connected=False)
        error = until(lambda: alice.request("GET", "/v1/health")[1]["last_error"], "it was tried")
        assert (f"by the proxy {place}" in error, "407" in error) == (True, True)
        alice.stop()
    for url, reason in ((f"http://me:s3cret@{place}", "refused"), (f"socks5://me:s3cret@{place}", "socks5")):
        found = told_of_broker(alice, HTTPS_PROXY=url)
        assert (found["state"], reason in found["detail"]) == ("failed", True)
        assert "s3cret" not in json.dumps(found)
    assert "s3cret" not in alice.log.read_text() + error


def test_the_loopback_and_unencrypted_links_take_no_proxy() -> None:
    """A proxy that is away changes nothing for a mesh on this machine."""
    with mesh("alice", "bob", start=False) as made:
        for daemon in made.daemons.values():
            daemon.environment.update(HTTPS_PROXY="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1")
        exchange(made.daemons["alice"], made.daemons["bob"])


def test_an_authority_of_ones_own_is_trusted_after_it_was_given_once(
    served: tuple[Mesh, Authority],
) -> None:
    """By `--ca-file` when the mesh is created or joined; it is kept beside the membership, for the daemon."""
    made, signed = served
    alice, bob = member(made, "alice"), member(made, "bob")
    create(made, alice, made.broker.url, "--ca-file", str(signed.ca))
    link = run(alice.home, "invite", "create", "--json").json["invite"]
    refused = run(bob.home, "join", link, "--name", "bob", "--json")
    assert (refused.code, refused.json["error"]) == (CONFIGURATION, "untrusted_certificate")
    assert "--ca-file" in refused.json["message"]
    assert refused.json["next"] == "claudemesh join LINK --name bob --json --ca-file FILE"
    other = run(bob.home, "run", "--invite", link, "--", "true")
    assert (other.code, other.err.splitlines()[-1]) == (
        CONFIGURATION,
        "try: claudemesh run --invite LINK --ca-file FILE -- true",
    )
    wrong = run(bob.home, "join", link, "--ca-file", str(signed.key), "--json")
    assert (wrong.code, wrong.json["error"]) == (CONFIGURATION, "invalid_ca_file")
    assert run(bob.home, "join", link, "--name", "bob", "--ca-file", str(signed.ca)).code == OK
    signed.ca.rename(signed.ca.with_suffix(".away"))
    exchange(alice, bob)
    assert told_of_broker(bob)["state"] == "ok"


def test_a_broker_whose_certificate_is_not_trusted_is_not_used_and_can_be_trusted_later(
    served: tuple[Mesh, Authority],
) -> None:
    """The daemon and doctor say so; `set-broker --ca-file` mends it; another name in it is another error."""
    made, signed = served
    alice = member(made, "alice")
    create(made, alice, made.broker.url, SSL_CERT_FILE=str(signed.ca))
    alice.start()
    alice.ready(connected=False)
    error = until(lambda: alice.request("GET", "/v1/health")[1]["last_error"], "it was tried")
    assert "signed by no authority that this host trusts" in error
    found = told_of_broker(alice)
    assert (found["state"], "--ca-file" in found["remedy"]) == ("failed", True)
    alice.stop()
    mended = run(alice.home, "daemon", "set-broker", made.broker.url, "--ca-file", str(signed.ca))
    assert mended.code == OK, mended.err
    alice.start()
    alice.ready()
    by_number = made.broker.url.replace("localhost", "127.0.0.1")
    other = run(alice.home, "daemon", "set-broker", by_number, "--json")
    assert (other.json["error"], "another name" in other.json["message"]) == ("untrusted_certificate", True)
    away = run(alice.home, "daemon", "set-broker", "wss://localhost:1", "--json")
    assert (away.code, away.json["error"]) == (UNAVAILABLE, "broker_unreachable")
