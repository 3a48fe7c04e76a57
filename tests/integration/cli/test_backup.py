"""`claudemesh daemon backup` and `restore` with real daemons."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.audit import wait_received
from tests.support.cli import Ran, run
from tests.support.processes import Daemon, Mesh, mesh

PASSPHRASE = "correct horse battery"


def passphrase(made: Mesh) -> str:
    """Return the path of the file with the passphrase."""
    path = made.root / "passphrase"
    path.write_text(f"{PASSPHRASE}\n")
    path.chmod(0o600)
    return str(path)


def backed_up(made: Mesh, daemon: Daemon, name: str = "a.backup") -> Path:
    """Back a daemon up, and return the file."""
    path = made.root / name
    ran = run(daemon.home, "daemon", "backup", "--out", str(path), "--passphrase-file", passphrase(made))
    assert ran.code == 0, ran.err
    assert path.stat().st_mode & 0o777 == 0o600
    return path


def restored(made: Mesh, home: Path, path: Path, *more: str) -> Ran:
    """Restore, and return the outcome."""
    given = ("--in", str(path), "--passphrase-file", passphrase(made), "--json", *more)
    return run(home, "daemon", "restore", *given)


def test_a_member_comes_back_on_another_host() -> None:
    """Keys, pins, settings and hooks are there; token and messages are not. The new host is accepted."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        (bob.root / "hooks").mkdir(mode=0o700, exist_ok=True)
        hook = bob.root / "hooks" / "note"
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o700)
        path = backed_up(made, bob)
        keys = json.loads((bob.root / "keypair.json").read_text())
        bob.stop()
        shutil.rmtree(bob.home)
        ran = restored(made, bob.home, path)
        assert (ran.code, ran.json["mesh"], ran.json["old_files"]) == (0, "demo", None), ran.err
        assert json.loads((bob.root / "keypair.json").read_text()) == keys
        assert (bob.root / "hooks" / "note").stat().st_mode & 0o777 == 0o700
        assert not (bob.root / "local_token").exists()
        assert not (bob.root / "inbox.db").exists()
        bob.start()
        bob.ready()
        assert alice.send("bob", "text", client_message_id="after")[0] in (200, 202)
        wait_received(bob, ["after"])


def test_a_backup_names_what_it_lacks_of_the_hooks() -> None:
    """A file whose name a backup may not have, and a folder. The others are in it."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        hooks = alice.root / "hooks"
        hooks.mkdir(mode=0o700, exist_ok=True)
        for name in ("note", "two words", ".env"):
            (hooks / name).write_text("#!/bin/sh\n")
        (hooks / "lib").mkdir()
        path = made.root / "a.backup"
        given = ("--out", str(path), "--passphrase-file", passphrase(made), "--json")
        ran = run(alice.home, "daemon", "backup", *given)
        assert ran.json["left_out"] == ["hooks/.env", "hooks/lib", "hooks/two words"]
        assert "hooks/note" in ran.json["files"]
        assert "The backup lacks hooks/.env, hooks/lib, hooks/two words" in ran.err
        alice.stop()
        assert restored(made, alice.home, path, "--replace").code == 0


def test_a_restore_is_refused_while_a_daemon_runs_and_over_a_member() -> None:
    """With --replace the files that stood there are moved aside, and nothing is lost."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        path = backed_up(made, alice)
        before = sorted(alice.home.iterdir())
        assert "already_running" in restored(made, alice.home, path, "--replace").out
        alice.stop()
        ran = restored(made, alice.home, path)
        assert (ran.code, "already" in ran.out) == (73, True)
        assert sorted(alice.home.iterdir()) == before
        ran = restored(made, alice.home, path, "--replace")
        assert ran.code == 0, ran.err
        assert (Path(ran.json["old_files"]) / "outbox.db").exists()
        alice.start()
        alice.ready()


def test_a_changed_backup_or_another_passphrase_writes_nothing() -> None:
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        path = backed_up(made, alice)
        raw = path.read_bytes()
        elsewhere = made.root / "elsewhere"
        for number, wrong in enumerate((raw[:-1], raw[:-1] + bytes([raw[-1] ^ 1]), b"", b"text")):
            spoilt = made.root / f"spoilt-{number}"
            spoilt.write_bytes(wrong)
            ran = restored(made, elsewhere, spoilt)
            assert (ran.code, "Nothing was written." in ran.out) == (78, True)
        (made.root / "passphrase").chmod(0o644)
        open_to_others = str(made.root / "passphrase")
        ran = run(elsewhere, "daemon", "restore", "--in", str(path), "--passphrase-file", open_to_others)
        assert "chmod 600" in ran.err
        assert not elsewhere.exists() or list(elsewhere.iterdir()) == []


def test_a_backup_from_before_a_rotation_is_told_so() -> None:
    """The broker knows the newer keys; the daemon names the way out."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        path = backed_up(made, alice)
        assert run(alice.home, "daemon", "rotate-keypair").code == 0
        alice.stop()
        assert restored(made, alice.home, path, "--replace").code == 0
        alice.start()
        assert alice.ended() == 77
        assert "daemon remint" in alice.log.read_text()
