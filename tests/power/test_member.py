"""Power loss in a rotation, a rename, a restore and `accept-host` (docs/spec/lifecycle.md, Keys)."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.powerloss import (
    Disk,
    Named,
    Said,
    Step,
    Synced,
    files_under,
    frames,
    read_steps,
    recorder,
)
from tests.support.processes import REPOSITORY, Daemon, mesh, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("strace") is None, reason="strace records the system calls"
)

SEED = random.SystemRandom().randrange(1 << 32)
SECRET = "correct horse battery"


@dataclass
class Recording:
    """The system calls of one act on one folder, and the files before and after it."""

    root: Path
    before: dict[str, bytes]
    after: dict[str, bytes]
    steps: list[Step]

    def images(self) -> Generator[tuple[int, dict[str, bytes]]]:
        """Yield the images that a power loss after each step may leave, with the step."""
        disk, choose = Disk(self.root, self.before), random.Random(SEED)
        for index, step in enumerate(self.steps):
            disk.apply(step)
            if isinstance(step, (Said, Synced, Named)):
                for image in (disk.image(), disk.image(choose), disk.image(keep=True)):
                    yield index, image

    def said(self, text: bytes) -> int:
        """Return the first step that says a text."""
        return next(
            index for index, step in enumerate(self.steps) if isinstance(step, Said) and text in step.data
        )


@dataclass
class Life:
    """A daemon that rotates its keys and takes another name; then its files move to another host."""

    daemon: Recording
    restored: Recording
    replaced: Recording
    accepted: Recording
    old_pubkey: str
    new_pubkey: str


@pytest.fixture(scope="module")
def life() -> Generator[Life]:
    """Each act under the recorder."""
    with mesh("alice", "bob") as made:
        alice = made.daemons["alice"]
        alice.stop()
        secret, backup = made.root / "passphrase", made.root / "alice.backup"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        given = ("--passphrase-file", str(secret))
        trace, before = made.root / "daemon.trace", files_under(alice.root)
        alice.prefix = recorder(trace)
        alice.start()
        alice.ready()
        # From then on no list is on its way that shows the older name.
        assert made.daemons["bob"].request("POST", "/v1/profile", {"summary": "up to date"})[0] == 200
        until(lambda: "up to date" in str(alice.request("GET", "/v1/peers")), "alice has the list of now")
        assert alice.request("POST", "/v1/rename", {"name": "anna"})[0] == 200
        status, rotated = alice.request("POST", "/v1/keys/rotate", {})
        assert (status, rotated["status"]) == (200, "rotated")
        assert alice.stop() == 0
        daemon = Recording(alice.root, before, files_under(alice.root), read_steps(trace))
        made.cli(alice, "daemon", "backup", "--out", str(backup), *given)

        def act(host: Daemon, *command: str) -> Recording:
            recorded, found = made.root / f"{host.name}-{command[1]}.trace", files_under(host.home)
            environment = {
                "CLAUDEMESH_HOME": str(host.home),
                "PYTHONPATH": str(REPOSITORY),
                "PATH": "/usr/bin:/bin",
            }
            done = subprocess.run(
                [*recorder(recorded), sys.executable, "-m", "claudemesh", *command],
                cwd=REPOSITORY,
                env=environment,
                capture_output=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
            return Recording(host.home, found, files_under(host.home), read_steps(recorded))

        fresh = Daemon(made.root, "fresh", made.slug)
        fresh.home.mkdir(mode=0o700)
        restored = act(fresh, "daemon", "restore", "--in", str(backup), *given)
        replaced = act(alice, "daemon", "restore", "--in", str(backup), "--replace", *given)
        (fresh.root / "config.toml").write_text('[clone]\nid_override = "another host"\n')
        accepted = act(fresh, "daemon", "accept-host")
        yield Life(daemon, restored, replaced, accepted, rotated["old_pubkey"], rotated["pubkey"])


def content(image: dict[str, bytes], path: Path) -> Any:
    """The JSON of a file of an image, None where it is missing. A torn file fails the test."""
    data = image.get(str(path))
    return None if data is None else json.loads(data)


def keys_of(image: dict[str, bytes], root: Path) -> tuple[set[str], set[str]]:
    """The ed25519 keys of an image that sign, and those of the archive."""
    pairs = [content(image, root / name) for name in ("keypair.json", "keypair.next.json")]
    archive = content(image, root / "keypair-archive.json") or {"keys": []}
    signing = {pair["ed25519_pubkey"] for pair in pairs if pair is not None}
    return signing, {key["ed25519_pubkey"] for key in archive["keys"]}


def test_no_key_of_a_rotation_is_lost_from_the_moment_the_broker_may_have_it(life: Life) -> None:
    """Before that the older pair is there. From then on both are, until the answer: then the older one is in
    the archive and the newer one in its place."""
    old, new, recording = life.old_pubkey, life.new_pubkey, life.daemon
    calls = [index for index, frame in frames(recording.steps) if frame.get("method") == "rotate_keys"]
    asked, told = calls[0], recording.said(b'"status":"rotated"')
    assert asked < told
    for index, image in recording.images():
        where = f"seed {SEED}, step {index} of {asked} and {told}"
        signing, archived = keys_of(image, recording.root)
        here = content(image, recording.root / "keypair.json")["ed25519_pubkey"]
        assert here in (old, new), where
        if index < asked:
            assert here == old, where
        else:
            assert new in signing, where
            assert old in archived, where
        if index >= told:
            assert here == new, where


def test_a_name_that_was_confirmed_is_on_the_disk(life: Life) -> None:
    """membership.json is whole at each step."""
    recording = life.daemon
    told = recording.said(b'"name":"anna","member_id"')
    for index, image in recording.images():
        name = content(image, recording.root / "membership.json")["name"]
        assert name in (("anna",) if index >= told else ("alice", "anna")), f"seed {SEED}, step {index}"


@pytest.mark.parametrize("kind", ["restored", "replaced"])
def test_a_restore_leaves_all_files_of_a_member_or_none(life: Life, kind: str) -> None:
    """With --replace those of before stay, in their place or aside."""
    recording: Recording = getattr(life, kind)
    root = recording.root / "daemon/demo"
    names = ("keypair.json", "keypair-archive.json", "membership.json", "host_fingerprint.json", "peers.json")
    told = recording.said(b"restored the member")

    def found(image: dict[str, bytes], folder: Path) -> dict[str, bytes]:
        return {name: image[path] for name in names if (path := str(folder / name)) in image}

    old, new = found(recording.before, root), found(recording.after, root)
    assert len(new) == len(names)
    assert bool(old) == (kind == "replaced")
    for index, image in recording.images():
        where, here = f"seed {SEED}, step {index} of {told}", found(image, root)
        assert here in (({}, old, new) if index < told else (new,)), where
        if old:
            asides = {Path(path).parent for path in image if "before-restore-" in path}
            assert old in (here, *(found(image, aside) for aside in asides)), where


def test_a_host_that_was_accepted_is_on_the_disk(life: Life) -> None:
    """host_fingerprint.json is the one of before or the new one, and whole."""
    recording = life.accepted
    path = recording.root / "daemon/demo/host_fingerprint.json"
    told = recording.said(b"belong to this host now")
    before, after = content(recording.before, path), content(recording.after, path)
    assert before != after
    for index, image in recording.images():
        assert content(image, path) in ((after,) if index >= told else (before, after)), f"seed {SEED}"


def test_these_tests_see_a_sync_that_is_missing(life: Life) -> None:
    """Without its syncs each recording loses what was told."""
    for recording in (life.daemon, life.restored, life.accepted):
        unsynced = [step for step in recording.steps if not isinstance(step, Synced)]
        disk = Disk(recording.root, recording.before)
        for step in unsynced:
            disk.apply(step)
        names = [path for path in recording.after if path.endswith(("keypair.json", "host_fingerprint.json"))]
        assert any(disk.image().get(path) != recording.after[path] for path in names)
