"""The machines that the archive runs on: a CPython version on a platform, and the wheels that fit each."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
# By the names of `sys.platform` and `uname -m`; each with the wheel tags that it takes, best first.
_GLIBC = (
    "manylinux_2_28",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_12",
    "manylinux2010",
    "manylinux1",
)
PLATFORMS = {
    ("linux", "x86_64"): tuple(f"{tag}_x86_64" for tag in (*_GLIBC, "manylinux_2_5")),
    ("linux", "aarch64"): tuple(f"{tag}_aarch64" for tag in _GLIBC[:3]),
    ("darwin", "x86_64"): ("macosx_13_0_x86_64",),
    ("darwin", "arm64"): ("macosx_14_0_arm64",),
}
_SYSTEMS = {"linux": "Linux", "darwin": "macOS"}


@dataclass(frozen=True, slots=True)
class Target:
    """One CPython version on one platform."""

    version: tuple[int, int]
    system: str
    machine: str

    @property
    def name(self) -> str:
        """The name in the archive, as the launcher spells it: `cp311-linux-x86_64`."""
        return f"cp{self.version[0]}{self.version[1]}-{self.system}-{self.machine}"

    def __str__(self) -> str:
        return f"CPython {self.version[0]}.{self.version[1]} on {_SYSTEMS[self.system]} {self.machine}"

    def installer_options(self) -> list[str]:
        """Return the options by which pip takes the wheels of this target, on any machine."""
        platforms = PLATFORMS[self.system, self.machine]
        version = f"{self.version[0]}.{self.version[1]}"
        return [
            *("--python-version", version, "--implementation", "cp"),
            *(word for tag in platforms for word in ("--platform", tag)),
        ]


ALL = tuple(Target(version, *platform) for platform in PLATFORMS for version in VERSIONS)


def this() -> Target:
    """Return the target of the Python that runs. `SystemExit`: there is none for it."""
    here = Target((sys.version_info[0], sys.version_info[1]), sys.platform, os.uname().machine)
    if sys.implementation.name != "cpython" or sys.abiflags or here not in ALL:
        raise SystemExit(
            f"build/pyz: error: this Python is no target of the archive. The targets are {covered(ALL)}. "
            "Name a Python of one of them in CLAUDEMESH_PYTHON."
        )
    return here


def named(text: str) -> tuple[Target, ...]:
    """Return the targets of an option: `this`, `all`, or names and beginnings of names between commas."""
    if text == "this":
        return (this(),)
    wanted = ["cp"] if text == "all" else text.split(",")
    for word in wanted:
        if not word or not any(_fits(target, word) for target in ALL):
            names = ", ".join(target.name for target in ALL)
            raise SystemExit(f"build/pyz: error: {word!r} is no target. Give this, all, or some of {names}.")
    return tuple(target for target in ALL if any(_fits(target, word) for word in wanted))


def covered(targets: tuple[Target, ...]) -> str:
    """Return what an archive of these targets runs on, in words."""
    platforms: dict[str, list[str]] = {}
    for target in targets:
        version = f"{target.version[0]}.{target.version[1]}"
        platforms.setdefault(f"{_SYSTEMS[target.system]} {target.machine}", []).append(version)
    spans: dict[str, list[str]] = {}
    for platform, versions in platforms.items():
        spans.setdefault(_span(versions), []).append(platform)
    return "; ".join(f"CPython {versions} on {_listed(names)}" for versions, names in spans.items())


def _fits(target: Target, word: str) -> bool:
    version, _, platform = target.name.partition("-")
    return target.name.startswith(word) or platform.startswith(word) or version == word


def _span(versions: list[str]) -> str:
    every = [f"{version[0]}.{version[1]}" for version in VERSIONS]
    first, last = every.index(versions[0]), every.index(versions[-1])
    whole = len(versions) > 2 and versions == every[first : last + 1]
    return f"{versions[0]} to {versions[-1]}" if whole else _listed(versions)


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
