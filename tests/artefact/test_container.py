"""The image: no engine here, so its instructions are read, and what they run is run as its user would be."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.living import paths_in
from tests.support.processes import free_port, until
from tests.support.pyz import REPOSITORY, python_for_nobody
from tests.support.waiting import WAIT_S


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), comments dropped and lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def argument(name: str) -> str:
    """The arguments of the last instruction of that name."""
    return [rest for instruction, rest in instructions() if instruction == name][-1]


def test_image_runs_as_an_unprivileged_user_with_a_fixed_number() -> None:
    """So that a volume's owner is known; nothing runs as root after that."""
    names = [name for name, _ in instructions()]
    number = re.search(r"useradd --uid (\d+)", (REPOSITORY / "Dockerfile").read_text())
    assert number is not None
    assert int(number[1]) > 0
    assert argument("USER") == f"{number[1]}:{number[1]}"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert argument("VOLUME") == "/data"
    assert argument("EXPOSE") == "7900"


def test_image_holds_the_archive_and_nothing_else() -> None:
    """One COPY, and a build context that has nothing more to offer."""
    assert argument("COPY").split()[0] == "dist/claudemesh.pyz"
    assert [name for name, _ in instructions()].count("COPY") == 1
    ignored = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line]
    assert ignored[0] == "*"
    assert [line for line in ignored[1:] if line != "!dist/claudemesh.pyz"] == []


def test_image_has_a_python_that_the_archive_is_for() -> None:
    """The base's version is an argument, so that any build of the archive finds its Python."""
    default = next(rest for name, rest in instructions() if name == "ARG").partition("=")[2]
    assert tuple(map(int, default.split("."))) >= (3, 11)
    assert argument("FROM").startswith("python:${PYTHON}-slim")


@dataclass(frozen=True)
class Place:
    """A folder with the archive and a user who may write only to `data` and `home` in it."""

    folder: Path
    python: str
    user: int | None

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a command as that user, with nothing in its environment."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={"PATH": os.defpath, "HOME": str(self.folder / "home")},
            user=self.user,
            group=self.user,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture
def place(pyz: Path) -> Generator[Place]:
    """As root another user's place, else one's own."""
    with tempfile.TemporaryDirectory(prefix="cm-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(pyz, folder / "claudemesh.pyz")
        made = Place(folder, *python_for_nobody())
        for owned in ("data", "home"):
            (folder / owned).mkdir(mode=0o700)
            if made.user is not None:
                os.chown(folder / owned, made.user, made.user)
        yield made


def test_what_the_image_runs_starts_is_healthy_and_stops(place: Place) -> None:
    """The very commands of ENTRYPOINT, CMD and HEALTHCHECK, as a user without any rights."""
    port = str(free_port())
    data = place.folder / "data"
    moved = {"/data": str(data), "0.0.0.0:7900": f"127.0.0.1:{port}"}
    command = [moved.get(word, word) for word in json.loads(argument("CMD"))]
    [entry] = json.loads(argument("ENTRYPOINT"))
    python, *check = json.loads(argument("HEALTHCHECK").partition("CMD")[2])
    assert (entry, python) == ("claudemesh.pyz", "python3")
    check = [place.python, *(word.replace(":7900/", f":{port}/") for word in check)]

    def is_healthy() -> bool:
        return place.start(check).wait() == 0

    assert not is_healthy()
    broker = place.start([place.python, str(place.folder / entry), *command])
    try:
        until(is_healthy, "the broker is healthy")
        owners = {path.stat().st_uid for path in paths_in(data)}
        assert owners == {os.geteuid() if place.user is None else place.user}
        broker.send_signal(getattr(signal, argument("STOPSIGNAL")))
        assert broker.wait(WAIT_S) == 0
    finally:
        broker.kill()
        broker.wait()
