"""Joining takes over nothing that its inviter did not sign, and nothing that a broker makes up."""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import run
from tests.support.processes import mesh

PREFIX = "claudemesh://join/"


@contextmanager
def lying_broker(answer: dict[str, Any]) -> Generator[tuple[str, list[str]]]:
    """An HTTP server with a fixed answer to a join; yields its URL and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"challenge_key": "09" + "00" * 31})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._answer(answer)

        def _answer(self, value: dict[str, Any]) -> None:
            asked.append(self.path.partition("?")[0])
            raw = json.dumps(value).encode()
            self.send_response(201)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fields(link: str) -> dict[str, Any]:
    payload = link.strip().removeprefix(PREFIX)
    value: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return value


def relinked(link: str, **changes: Any) -> str:
    raw = json.dumps(fields(link) | changes).encode()
    return PREFIX + urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("field", ["broker_url", "slug", "role", "uses", "expires_at_ms", "mesh_id"])
def test_an_invite_that_was_changed_is_refused_before_anybody_is_asked(tmp_path: Path, field: str) -> None:
    """The joiner's name and keys are not sent, and nothing is written."""
    with mesh("alice") as made, lying_broker({}) as (url, asked):
        link = made.cli(made.daemons["alice"], "invite", "create").strip()
        changed = {
            "broker_url": url,
            "slug": "other",
            "role": "admin",
            "uses": 1000,
            "expires_at_ms": fields(link)["expires_at_ms"] + 1,
            "mesh_id": "0" * 8 + fields(link)["mesh_id"][8:],
        }[field]
        done = run(tmp_path / "home", "join", relinked(link, **{field: changed}), "--name", "bob", "--json")
        assert done.json["error"] == "bad_signature"
        assert asked == []
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    "lie",
    [
        {"mesh_id": "00000000-0000-4000-8000-000000000000"},
        {"role": "owner"},
        {"name": "somebody-else"},
        {"slug": "../../elsewhere"},
        {"member_id": "../../../etc"},
        {"member_id": None},
        {"member_id": {}},
    ],
    ids=str,
)
def test_a_broker_that_answers_a_join_wrongly_leaves_no_membership(
    tmp_path: Path, lie: dict[str, Any]
) -> None:
    """Its ids are ids, and what was asked for comes back as it was asked for."""
    # Imported here: the test makes an invite as an inviter does.
    from claudemesh.client.join import new_ulid
    from claudemesh.protocol.invites import sign_invite
    from tests.support.wspeer import make_identity

    truth = {
        "mesh_id": "11111111-1111-4111-8111-111111111111",
        "slug": "team",
        "member_id": "22222222-2222-4222-8222-222222222222",
        "name": "bob",
        "role": "member",
        "created": True,
    }
    with lying_broker(truth | lie) as (url, asked):
        link = sign_invite(
            make_identity(),
            broker_url=url,
            mesh_id=truth["mesh_id"],
            slug="team",
            invite_id=new_ulid(),
            role="member",
            expires_at_ms=2**47,
            uses=1,
        ).to_link()
        done = run(tmp_path / "home", "join", link, "--name", "bob", "--json")
        assert done.json["error"] == "bad_answer"
        assert asked == ["/v1/join/challenge", "/v1/join"]
    assert [path.name for path in tmp_path.rglob("*.json")] == ["keypair.json"]
