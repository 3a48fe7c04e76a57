"""A release is audited, built twice, and comes with checksums; what was not audited says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import claudemesh
from distributions import changes
from release import judge, not_releasable
from tests.support.pyz import copy_of_the_checkout

_CLEAN = {"name": "click", "version": "8.5.1", "vulns": []}
_SKIPPED = {"name": "orjson", "skip_reason": "Dependency not found on PyPI: orjson (3.13.0)"}
_BAD = {
    "name": "h11",
    "version": "0.15.0",
    "vulns": [{"id": "GHSA-vqfr-h8mv-ghfj", "fix_versions": ["0.16.0"], "aliases": [], "description": ""}],
}


def report(*dependencies: object) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_libraries_that_were_all_looked_up_are_audited() -> None:
    found = judge(report(_CLEAN), "")
    assert (found.audited, found.reason, found.libraries) == (True, None, ["click 8.5.1"])


def test_a_library_that_was_skipped_is_not_audited() -> None:
    """The auditor ends with 0 all the same."""
    found = judge(report(_CLEAN, _SKIPPED), "")
    assert (found.audited, found.vulnerabilities) == (False, [])
    assert "orjson" in str(found.reason)


def test_a_vulnerability_is_named_with_the_version_that_mends_it() -> None:
    found = judge(report(_SKIPPED, _BAD), "")
    assert found.vulnerabilities == ["h11 0.15.0: GHSA-vqfr-h8mv-ghfj (mended in 0.16.0)"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "not json", report()])
def test_no_report_is_no_audit(text: str) -> None:
    found = judge(text, "ConnectionError: Failed to resolve\n")
    assert (found.audited, bool(found.reason)) == (False, True)


@pytest.mark.slow
def test_a_release_has_checksums_only_when_it_was_audited_or_that_was_waived(tmp_path: Path) -> None:
    """In a copy of the checkout: other tests run the file of this one."""
    tree = copy_of_the_checkout(tmp_path / "checkout")
    dist = tree / "dist"

    def release(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tree / "build" / "release.py"), "--targets", "this", *options]
        environment = {**os.environ, **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    # Without an index there is no auditor.
    done = release(PIP_NO_INDEX="1")
    assert (done.returncode, "NOT AUDITED: " in done.stderr) == (1, True)
    assert not json.loads((dist / "claudemesh.audit.json").read_text())["audited"]
    assert not (dist / "SHA256SUMS").exists()
    done = release("--allow-unaudited")
    audit = json.loads((dist / "claudemesh.audit.json").read_text())
    assert (audit["vulnerabilities"], "NOT AUDITED: " in done.stderr) == ([], not audit["audited"])
    assert done.returncode == 0, done.stderr
    assert "made twice, in two folders, the same bytes" in done.stderr
    assert "NOT SIGNED" in done.stderr
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=dist, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout.count(": OK")) == (0, 9)
    check_packages(dist)


def check_packages(dist: Path) -> None:
    """The wheel installs and runs, the sdist makes the same wheel's files, the context has what is copied."""
    [wheel], [sdist] = dist.glob("claudemesh-*.whl"), dist.glob("claudemesh-[0-9].[0-9].[0-9].tar.gz")
    with zipfile.ZipFile(wheel) as packed, tarfile.open(sdist) as source:
        modules = {name for name in packed.namelist() if name.startswith("claudemesh/")}
        named = {name.partition("/")[2] for name in source.getnames()}
    assert {
        "claudemesh/sdk.py",
        "claudemesh/broker/store/sqlite/queries.sql",
        "claudemesh/py.typed",
    } <= modules
    assert modules <= named
    [context] = dist.glob("claudemesh-*-container.tar.gz")
    with tarfile.open(context) as packed:
        assert sorted(packed.getnames()) == [".dockerignore", "Dockerfile", "dist/claudemesh.pyz"]
        assert {(entry.uid, entry.uname) for entry in packed.getmembers()} == {(0, "")}
    [manual] = dist.glob("claudemesh-*-man.tar.gz")
    with tarfile.open(manual) as packed:
        assert {"man1/claudemesh.1", "man1/claudemesh-send.1"} <= set(packed.getnames())
    [notes] = dist.glob("claudemesh-*.changes.md")
    assert notes.read_text().startswith(f"## {claudemesh.__version__}")


@pytest.mark.parametrize("version", ["9.9.9", claudemesh.__version__])
def test_a_release_is_refused_unless_the_checkout_is_clean_and_tagged(version: str) -> None:
    """And names the first reason. It changes nothing."""
    refusal = not_releasable(version, None)
    assert refusal is not None
    assert ("not 9.9.9" in refusal) == (version == "9.9.9")


def test_the_changes_of_a_version_are_its_section() -> None:
    text = "# Changelog\n\n## 0.2.0 (2027-01-01)\n\n* new\n\n## 0.1.0\n\n* old\n"
    assert changes(text, "0.2.0") == "## 0.2.0 (2027-01-01)\n\n* new\n"
    assert changes(text, "0.1.0") == "## 0.1.0\n\n* old\n"
    with pytest.raises(SystemExit, match=r"no section 0\.1"):
        changes(text, "0.1")
