"""The mesh of a command: --mesh, CLAUDEMESH_MESH, `mesh use`, the only one."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from claudemesh.sdk import find_socket
from tests.support.cli import run
from tests.support.processes import Daemon, mesh

OK, CONFIGURATION = 0, 78
SLUGS = ("demo", "other")


@pytest.fixture(scope="module")
def home() -> Generator[Path]:
    """A host in two meshes, as `alice` in both; daemons run."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        token = str(made.broker.data / "admin_token")
        create = ["mesh", "create", "other", "--broker", made.broker.url, "--name", "alice"]
        made.cli(alice, *create, "--admin-token-file", token)
        second = Daemon(made.root, "alice", "other")
        second.log = made.root / "other.log"
        alice.stop()
        for daemon, slug in zip((alice, second), SLUGS, strict=True):
            daemon.arguments = ["daemon", "up", "--mesh", slug]
            daemon.start()
            daemon.ready()
        yield alice.home
        second.kill()


@pytest.fixture(autouse=True)
def without_choice(home: Path) -> Generator[None]:
    yield
    (home / "current_mesh").unlink(missing_ok=True)


def mesh_of(home: Path, *options: str, **environment: str) -> str | None:
    """The mesh that a command has used, None when it did not know which."""
    done = run(home, "whoami", "--json", *options, **environment)
    return done.json["mesh"] if done.code == OK else None


def test_without_a_choice_a_command_asks_for_one(home: Path) -> None:
    """The error names the ways to choose."""
    done = run(home, "whoami", "--json")
    assert (done.code, done.json["error"]) == (CONFIGURATION, "which_mesh")
    assert done.json["next"] == "claudemesh mesh use demo"
    assert [item["current"] for item in run(home, "mesh", "ls", "--json").json["items"]] == [False, False]


def test_the_option_precedes_the_environment_and_that_the_choice(home: Path) -> None:
    """Each names another mesh than the one after it."""
    assert run(home, "mesh", "use", "other").code == OK
    assert mesh_of(home) == "other"
    assert mesh_of(home, CLAUDEMESH_MESH="demo") == "demo"
    assert mesh_of(home, "--mesh", "other", CLAUDEMESH_MESH="demo") == "other"
    overruled = run(home, "mesh", "use", "other", CLAUDEMESH_MESH="demo")
    assert "CLAUDEMESH_MESH is demo here" in overruled.err


def test_mesh_list_shows_which_mesh_is_current_and_whether_its_daemon_runs(home: Path) -> None:
    """Name and broker of each mesh, too."""
    run(home, "mesh", "use", "demo")
    items = run(home, "mesh", "list", "--json").json["items"]
    shown = [(item["mesh"], item["current"], item["name"], item["daemon"]) for item in items]
    assert shown == [("demo", True, "alice", "up"), ("other", False, "alice", "up")]
    assert all(item["broker_url"].startswith("ws://127.0.0.1:") for item in items)


def test_an_unknown_mesh_is_refused_and_is_no_choice(home: Path) -> None:
    """The names that there are come with the error."""
    done = run(home, "mesh", "use", "othr", "--json")
    assert (done.code, done.json["near"]) == (CONFIGURATION, ["other"])
    assert not (home / "current_mesh").exists()
    assert "CLAUDEMESH_MESH" in run(home, "whoami", CLAUDEMESH_MESH="othr").err


def test_a_choice_of_a_mesh_that_was_left_does_not_count(home: Path) -> None:
    """The command asks again."""
    (home / "current_mesh").write_text("left\n")
    assert mesh_of(home) is None


@pytest.mark.parametrize("full", [False, True], ids=["fast", "full"])
def test_send_uses_the_same_mesh_on_both_paths(home: Path, full: bool) -> None:
    """The fast path and the full command line agree."""
    run(home, "mesh", "use", "other")

    def sent_in(**environment: str) -> list[str]:
        done = run(home, "send", "alice", "hello", "--json", full=full, **environment)
        sent = done.json["client_message_id"]
        inspect = ("daemon", "outbox", "inspect", sent, "--mesh")
        return [slug for slug in SLUGS if run(home, *inspect, slug).code == OK]

    assert sent_in() == ["other"]
    assert sent_in(CLAUDEMESH_MESH="demo") == ["demo"]


def test_the_sdk_uses_the_same_mesh(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program finds the daemon that a command finds."""
    monkeypatch.setenv("CLAUDEMESH_HOME", str(home))
    monkeypatch.delenv("CLAUDEMESH_MESH", raising=False)
    run(home, "mesh", "use", "other")
    assert find_socket() == home / "daemon" / "other" / "sock"
    monkeypatch.setenv("CLAUDEMESH_MESH", "demo")
    assert find_socket() == home / "daemon" / "demo" / "sock"
