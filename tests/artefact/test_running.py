"""The archive at work: the local mesh, and its file replaced below a running process."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tests.support.processes import until
from tests.support.pyz import BARE_PYTHON, REPOSITORY, bare_environment, mesh_script
from tests.support.waiting import WAIT_S


@pytest.mark.slow
def test_the_local_mesh_delivers_each_message_exactly_once() -> None:
    """./build/mesh --smoke: a broker and two daemons, with the archive alone."""
    done = subprocess.run(
        [str(REPOSITORY / "build" / "mesh"), "--smoke"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "each message arrived exactly once" in done.stdout


@pytest.mark.slow
def test_a_renamed_file_starts_daemons_in_the_background(pyz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts itself again by what it is, not by what it is called."""
    script = mesh_script()
    with tempfile.TemporaryDirectory(prefix="cm-", dir="/tmp") as folder:
        monkeypatch.setattr(script, "PYZ", Path(shutil.copy(pyz, Path(folder) / "claudemesh")))
        mesh = script.LocalMesh(Path(folder))
        try:
            script.start(mesh)
            assert [mesh.is_connected(name) for name in script.PEERS] == [True, True]
        finally:
            mesh.stop()


def test_a_replaced_file_does_not_disturb_what_runs(pyz: Path, home: Path) -> None:
    """Late imports come from the unpacked tree, not from the archive."""
    copy = Path(shutil.copy(pyz, home / "claudemesh.pyz"))
    data = home / "broker"
    broker = subprocess.Popen(
        [BARE_PYTHON, str(copy), "broker", "up", "--listen", "127.0.0.1:0", "--data-dir", str(data)],
        env=bare_environment(home),
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: (data / "broker.json").exists(), "the broker is up")
        copy.write_bytes(b"something else")
        url = json.loads((data / "broker.json").read_text())["url"].replace("ws://", "http://")
        for path in ("/healthz", "/readyz", "/metrics"):
            with urllib.request.urlopen(f"{url}{path}", timeout=WAIT_S) as answer:
                assert answer.status == 200
        broker.terminate()
        assert broker.wait(WAIT_S) == 0
    finally:
        broker.kill()
        broker.wait()
