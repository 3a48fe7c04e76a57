"""The SDKs beside plain HTTP of their languages, and beside `curl -N` for streams."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.lab import HERE, Lab, load, received
from benchmarks.size import size
from claudemesh.sdks import SDKS
from tests.support.processes import REPOSITORY, until

_SENDS = size(400, 3)
_MESSAGES = size(10_000, 200)
_PROGRAMS = HERE / "programs"
_CALLERS = 64
_TASKS = 32
_TASKS_SENDS = size(3200, 128)


def missing(language: str, *others: str) -> str | None:
    """Return the reason for which a language cannot be measured here."""
    programs = {"python": sys.executable, "javascript": shutil.which("node"), "go": _go()}
    needed = {language: programs[language], **{other: shutil.which(other) for other in others}}
    absent = [name for name, program in needed.items() if program is None]
    return f"{absent[0]} is not installed" if absent else None


def send(language: str, lab: Lab) -> tuple[float, float]:
    """A send by the SDK over a kept connection; the ceiling is the same by HTTP. Milliseconds."""
    found = _run(lab, language, "send", str(lab.erin.sock), "frank", str(_SENDS))
    mine, plain = map(float, found.split())
    return mine, plain


def callers(raw: int, lab: Lab) -> tuple[float, float]:
    """Sends/s of 32 tasks with one `AsyncDaemon`; the ceiling is plain HTTP of that many callers."""
    found = _run(lab, "python", "callers", str(lab.erin.sock), "frank", str(_TASKS_SENDS), str(_TASKS))
    return float(found), load(lab.erin, "frank", raw, _TASKS_SENDS)


def stream(language: str, lab: Lab) -> tuple[float, float]:
    """10,000 messages of the inbox by the SDK; the ceiling is `curl -N`. Messages/s."""
    before = received(lab.bob)
    if before < _MESSAGES:
        each = -(-(_MESSAGES - before) // _CALLERS)
        load(lab.alice, "bob", _CALLERS, each * _CALLERS)
        until(lambda: received(lab.bob) >= _MESSAGES, "all of it has arrived")
    seconds = float(_run(lab, language, "stream", str(lab.bob.sock), str(_MESSAGES)))
    return _MESSAGES / seconds, _MESSAGES / _curl_s(lab)


def _curl_s(lab: Lab) -> float:
    url = "http://localhost/v1/events?since=0"
    command = ["curl", "-sN", "--unix-socket", str(lab.bob.sock), url]
    started, seen = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reading:
        assert reading.stdout is not None
        for line in reading.stdout:
            seen += line.startswith(b"event: message")
            if seen == _MESSAGES:
                break
        seconds = time.perf_counter() - started
        reading.kill()
    return seconds


def _run(lab: Lab, language: str, *arguments: str) -> str:
    if language not in lab.programs:
        lab.programs[language] = _made(language, Path(tempfile.mkdtemp(prefix="cm-", dir=lab.live.root)))
    command = [*lab.programs[language], *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _made(language: str, folder: Path) -> list[str]:
    """Put a program and its SDK into a folder; return its command."""
    sdk = SDKS[language]
    (folder / sdk.copy).write_bytes(sdk.source())
    if language == "python":
        return [sys.executable, str(shutil.copy(_PROGRAMS / "program.py", folder / "program.py"))]
    if language == "javascript":
        return ["node", str(shutil.copy(_PROGRAMS / "program.mjs", folder / "program.mjs"))]
    (folder / "claudemesh").mkdir()
    (folder / sdk.copy).rename(folder / "claudemesh" / sdk.copy)
    shutil.copy(_PROGRAMS / "program.go", folder)
    (folder / "go.mod").write_text("module program\n\ngo 1.22\n")
    kept = {
        "GOCACHE": str(REPOSITORY / ".go"),
        "GOPATH": str(REPOSITORY / ".go/path"),
        "GOTOOLCHAIN": "local",
    }
    subprocess.run(
        [str(_go()), "build", "-o", "program", "."], cwd=folder, env={**os.environ, **kept}, check=True
    )
    return [str(folder / "program")]


def _go() -> str | None:
    own = Path(sys.executable).parent / "go"
    return str(own) if own.exists() else shutil.which("go")
