"""Fuzzing, bounded: every target takes so many inputs, guided by coverage, and no promise breaks."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fuzz as fuzzer
from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.frames import decode_frame
from claudemesh.protocol.invites import parse_link
from claudemesh.protocol.sealing import decode_content
from fuzzing.targets import READERS, ROUTES, TARGETS, Target
from tests.fuzz import planted
from tests.support.processes import REPOSITORY

SEED = "20261127"
RUNS = "5000"
FUZZ = REPOSITORY / "build" / "fuzz"

ACCEPT: dict[str, Callable[[bytes], object]] = {
    "frames": decode_frame,
    "invites": lambda seed: seed.startswith(b"{") or parse_link(seed.decode()),
    "envelopes": Envelope.decode,
    "contents": decode_content,
    "bodies": lambda seed: ROUTES[seed[0]](seed[1:]),
    "replies": lambda seed: READERS[seed[0]](parse_json(seed[1:])),
}

has_wheels = (
    sys.platform == "linux" and platform.machine() == "x86_64" and (3, 11) <= sys.version_info < (3, 14)
)
guided = pytest.mark.skipif(not has_wheels, reason="the fuzzer has wheels for Python 3.11 to 3.13 on Linux")


def fuzz(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FUZZ, *arguments],
        env={**os.environ, "CLAUDEMESH_PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", TARGETS)
def test_what_real_spellers_make_keeps_every_promise(name: str) -> None:
    """Each seed is accepted, so that fuzzing begins behind the first checks."""
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)
        ACCEPT[name](seed)


@guided
@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_promise(name: str, tmp_path: Path) -> None:
    """A finding is printed with the command that reproduces it."""
    print("seed", SEED)
    done = fuzz(name, "--runs", RUNS, "--seed", SEED, "--folder", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.search(rf"{name}: ([\d,]+) inputs, ([\d,]+) edges, ([\d,]+) inputs kept", done.stdout)
    assert told is not None, done.stdout
    inputs, edges, kept = (int(number.replace(",", "")) for number in told.groups())
    assert inputs >= int(RUNS)
    # Inputs that reach something new are kept: it is coverage that guides.
    assert kept > len(TARGETS[name].seeds())
    assert edges > 100


@guided
@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "seeds", "says"),
    [
        (planted.deep, [b'{"to": 1}', b'["low"]'], "ValueError: found"),
        (planted.slow, [b"[[]"], "TooSlow"),
    ],
)
def test_an_input_that_breaks_a_promise_is_found_and_kept(
    run: Callable[[bytes], None],
    seeds: list[bytes],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Behind several checks that chance alone does not pass, and by its processor time."""
    assert fuzz("--help").returncode == 0
    paths = (REPOSITORY / ".fuzz" / "lib", REPOSITORY, REPOSITORY / "build")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    target = Target(run, lambda: seeds)
    assert not fuzzer.fuzz("planted", target, ["-runs=1000000", f"-seed={SEED}"], tmp_path)
    said = capsys.readouterr().out
    assert says in said
    kept = re.search(r"reproduce: ./build/fuzz planted --replay (\S+)", said)
    assert kept is not None, said
    if run is planted.deep:
        with pytest.raises(ValueError, match="found"):
            run(Path(kept[1]).read_bytes())
    else:
        assert Path(kept[1]).read_bytes().count(b"[") > 2
