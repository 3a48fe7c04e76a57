"""The languages of the SDKs: how the driver program of each is made and started."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from claudemesh.sdks import SDKS
from tests.support.processes import REPOSITORY

DRIVERS = Path(__file__).parent / "drivers"


def python(driver: Path) -> list[str]:
    """Return the command that runs a driver in Python; every warning is an error."""
    return [sys.executable, "-W", "error", str(driver)]


def node(driver: Path) -> list[str]:
    """Return the command that runs a driver in JavaScript."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed (Debian: apt-get install nodejs)")
    return [program, str(driver)]


def go() -> list[str]:
    """Return the command `go` of the pinned toolchain, or of the system."""
    own = Path(sys.executable).parent / "go"
    program = str(own) if own.exists() else shutil.which("go")
    if program is None:
        pytest.skip("go is not installed; build/requirements-dev.txt has it")
    return [program]


def go_environment() -> dict[str, str]:
    """Return the environment of `go`: nothing is fetched, and compiled packages are kept between runs."""
    return {
        **os.environ,
        "GOCACHE": str(REPOSITORY / ".go"),
        "GOPATH": str(REPOSITORY / ".go/path"),
        "GOTOOLCHAIN": "local",
    }


def built(driver: Path) -> list[str]:
    """Check and build a driver in Go beside its SDK; return its command."""
    folder = driver.parent
    package = folder / "claudemesh"
    package.mkdir()
    (folder / "claudemesh.go").rename(package / "claudemesh.go")
    (folder / "go.mod").write_text("module driver\n\ngo 1.22\n")
    build_and_vet(folder, "driver")
    assert misformatted(driver, package / "claudemesh.go") == ""
    return [str(folder / "driver")]


def build_and_vet(folder: Path, program: str) -> None:
    """Build the module in a folder, and vet it.

    One at a time, so that the first compiles the standard library for all.
    """
    environment = go_environment()
    cache = Path(environment["GOCACHE"])
    cache.mkdir(exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # In this order: `vet` on its own would compile the standard library for itself.
        for words in (["build", "-o", program, "."], ["vet", "./..."]):
            done = subprocess.run(
                [*go(), *words], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr


def misformatted(*sources: Path) -> str:
    """Return the names of the sources that `gofmt` would write otherwise."""
    root = subprocess.run([*go(), "env", "GOROOT"], env=go_environment(), capture_output=True, text=True)
    gofmt = Path(root.stdout.strip()) / "bin" / "gofmt"
    done = subprocess.run([gofmt, "-l", *sources], capture_output=True, text=True)
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Language:
    """The driver program of a language. `cancels` is false where a single call cannot be cancelled."""

    sdk: str
    driver: str
    command: Callable[[Path], list[str]]
    arguments: tuple[str, ...] = ()
    cancels: bool = True

    def prepare(self, folder: Path) -> list[str]:
        """Put the SDK, as `claudemesh sdk` gives it, and the driver into a folder; return the command."""
        sdk = SDKS[self.sdk]
        (folder / sdk.copy).write_bytes(sdk.source())
        shutil.copy(DRIVERS / self.driver, folder)
        return [*self.command(folder / self.driver), *self.arguments]


LANGUAGES: Mapping[str, Language] = {
    "python": Language("python", "driver.py", python, ("async",)),
    "python with threads": Language("python", "driver.py", python, ("threads",), cancels=False),
    "javascript": Language("javascript", "driver.mjs", node),
    "go": Language("go", "driver.go", built),
}
