"""Every SDK keeps the promises of `cases.json`, through a program of its language and a real daemon."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.conformance import CASES, Run, streams
from tests.sdk.languages import LANGUAGES
from tests.sdk.places import PLACES, answers_of_hook, started
from tests.support.processes import Mesh, mesh, until

_numbers = itertools.count()


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    """A broker, alice and bob; bob's daemon listens on the loopback too, and runs hooks."""
    with mesh("alice", "bob", start=False) as made:
        with (made.daemons["bob"].root / "config.toml").open("a") as config:
            config.write("[ipc]\ntcp_enabled = true\n")
        made.heal()
        yield made


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The command of each language's driver, made once."""
    return {}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["promise"])
def test_the_sdk_keeps_its_promise(
    case: dict[str, Any],
    language: str,
    pair: Mesh,
    commands: dict[str, list[str]],
    tmp_path_factory: pytest.TempPathFactory,
    short_path: Path,
) -> None:
    """Step by step; `docs/sdks.md` says what the steps are."""
    if case.get("needs") == "cancel" and not LANGUAGES[language].cancels:
        return
    if language not in commands:
        commands[language] = LANGUAGES[language].prepare(tmp_path_factory.mktemp("driver"))
    command, bob, tag = commands[language], pair.daemons["bob"], f"case{next(_numbers):04}"
    (short_path / "in.bin").write_bytes(bytes(range(256)) * 300)
    pair.heal()
    until(lambda: streams(bob) == 0, "the streams of the case before have ended")
    with ExitStack() as stack:
        place = case.get("place")
        if place == "hook":
            run = Run(pair, _hook(command, pair, case, tag, short_path, stack), tag, short_path, stack)
        else:
            start = PLACES.get(str(place))
            driver = (
                started(command, bob, short_path) if start is None else start(command, bob, short_path, stack)
            )
            stack.callback(driver.close)
            run = Run(pair, driver, tag, short_path, stack)
        for step in case["steps"]:
            run.do(step)


def _hook(
    command: list[str], pair: Mesh, case: dict[str, Any], tag: str, folder: Path, stack: ExitStack
) -> Any:
    calls = [
        {
            "id": number,
            "call": step["call"],
            "with": {k: v.replace("{tag}", tag) for k, v in step["with"].items()},
        }
        for number, step in enumerate((step for step in case["steps"] if "call" in step), 1)
    ]
    return answers_of_hook(command, pair, folder, stack, calls)
