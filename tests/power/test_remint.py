"""Power loss at any step of `daemon remint` (docs/spec/lifecycle.md, Clones)."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.powerloss import Disk, Named, Said, Synced, files_under, read_steps, recorder
from tests.support.processes import REPOSITORY, mesh

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("strace") is None, reason="strace records the system calls"
)

SEED = random.SystemRandom().randrange(1 << 32)


def test_at_every_step_one_member_is_whole_and_no_key_is_lost() -> None:
    """The old member until the new one is decided. From then on the new keys are on the disk, with the old
    ones beside them, and the answer is given when the exchange is."""
    with mesh("alice", "bob", start=False) as made:
        bob = made.daemons["bob"]
        invite = json.loads(made.cli(made.daemons["alice"], "invite", "create", "--json"))["invite"]
        trace, before = made.root / "remint.trace", files_under(bob.root)
        command = [*recorder(trace), sys.executable, "-m", "claudemesh", "daemon", "remint"]
        environment = {
            "CLAUDEMESH_HOME": str(bob.home),
            "PYTHONPATH": str(REPOSITORY),
            "PATH": "/usr/bin:/bin",
        }
        done = subprocess.run(
            [*command, "--invite", invite], cwd=REPOSITORY, env=environment, capture_output=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        steps, after = read_steps(trace), files_under(bob.root)
    old, new = key_of(before, bob.root), key_of(after, bob.root)
    assert old != new
    disk, choose, is_told = Disk(bob.root, before), random.Random(SEED), False
    for step in steps:
        disk.apply(step)
        is_told |= isinstance(step, Said) and b"this host is" in step.data
        if isinstance(step, (Said, Synced, Named)):
            for image in (disk.image(), disk.image(choose), disk.image(keep=True)):
                check(image, bob.root, old, new, is_told=is_told)
    assert is_told


def key_of(image: dict[str, bytes], folder: Path) -> str | None:
    """The public key in keypair.json of a folder."""
    data = image.get(str(folder / "keypair.json"))
    return None if data is None else str(json.loads(data)["ed25519_pubkey"])


def check(image: dict[str, bytes], root: Path, old: str | None, new: str | None, *, is_told: bool) -> None:
    """Check that a start after a power loss finds one whole member, or a decision that it can carry out."""
    here, waiting = key_of(image, root), key_of(image, root / "remint")
    is_decided = str(root / "remint/membership.json") in image
    names = [json.loads(image[str(root / "membership.json")])["name"]]
    aside = [
        key_of(image, Path(path).parent) for path in image if "before-remint-" in path and "keypair" in path
    ]
    assert old in (here, *aside), f"seed {SEED}"
    if is_told:
        assert (here, names) == (new, ["bob-" + str(new)[:4]]), f"seed {SEED}"
    elif is_decided:
        assert new in (here, waiting), f"seed {SEED}"
    else:
        assert (here, names) in ((old, ["bob"]), (new, ["bob-" + str(new)[:4]])), f"seed {SEED}"
