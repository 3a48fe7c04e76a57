"""The SDKs of TypeScript and Go as packages, from their folders."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import claudemesh.sdks
from claudemesh.sdks import SDKS
from tests.sdk.languages import go, go_environment

_FOLDER = Path(claudemesh.sdks.__file__).parent


def test_npm_installs_the_folder(tmp_path: Path) -> None:
    """A program imports it by its name."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not installed (Debian: apt-get install npm)")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    words = ("--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--install-links")
    install = [npm, "install", *words, str(_FOLDER / "typescript")]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "program.js").write_text('import { VERSION } from "claudemesh";\nconsole.log(VERSION);\n')
    done = subprocess.run([node, "program.js"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == claudemesh.__version__, done.stderr
    installed = tmp_path / "node_modules" / "claudemesh"
    # Its types.
    assert (installed / "claudemesh.ts").read_bytes() == SDKS["typescript"].source()


def test_a_module_of_go_requires_the_folder(tmp_path: Path) -> None:
    """By a replacement, as the folder is published nowhere."""
    (tmp_path / "go.mod").write_text("module program\n\ngo 1.22\n")
    (tmp_path / "main.go").write_text(
        'package main\n\nimport "claudemesh"\n\nfunc main() { println(claudemesh.VERSION) }\n'
    )
    edit = ["mod", "edit", "-replace", f"claudemesh={_FOLDER / 'go'}", "-require", "claudemesh@v0.0.0"]
    for words in (edit, ["list", "-f", "{{.Dir}}", "claudemesh"]):
        done = subprocess.run(
            [*go(), *words], cwd=tmp_path, env=go_environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(_FOLDER / "go")
