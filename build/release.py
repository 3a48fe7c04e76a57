"""Make what is released: audit the libraries, build twice and compare, write the checksums and sign them.

Everything lands in dist/: the archive, its bill of materials, its licences, the audit, the Python packages,
the container's context, the manual pages, the changes, and SHA256SUMS.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from build_pyz import ROOT, checked_out, own_version, say
from distributions import changes, container_context, manual_pages, packages

DIST = ROOT / "dist"
ARCHIVE = "claudemesh.pyz"
BILL, LICENCES, AUDIT = "claudemesh.sbom.json", "claudemesh.licenses.txt", "claudemesh.audit.json"
SUMS = "SHA256SUMS"
SIGNATURE = f"{SUMS}.minisig"
_INPUTS = (
    *("claudemesh", "build", "shiv.toml", "LICENSE", "pyproject.toml"),
    *("README.md", "CHANGELOG.md", "Dockerfile", ".dockerignore"),
)
_TOOLS = ROOT / "build" / "requirements-audit.txt"
_AUDITED = ROOT / "build" / "requirements.txt"
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Audit:
    """The result of an audit. It is none unless every library was looked up."""

    audited: bool
    # Why a library, or all of them, could not be looked up.
    reason: str | None
    vulnerabilities: list[str]
    libraries: list[str]


def main() -> int:
    """Audit, make, sign. Exit 1: a library is vulnerable, could not be audited, or two builds differ."""
    parser = argparse.ArgumentParser(prog="./build/release", description=__doc__)
    parser.add_argument(
        "version", nargs="?", help="the version, of a clean checkout with its tag; without it, a rehearsal"
    )
    parser.add_argument("--key", type=Path, help="the secret key of minisign that signs SHA256SUMS")
    parser.add_argument(
        "--allow-unaudited",
        action="store_true",
        help="go on when the database of vulnerabilities cannot be reached; the audit's file says so",
    )
    parser.add_argument("--targets", default="all", help="as for ./build/pyz; all by default")
    options = parser.parse_args()
    refusal = not_releasable(options.version, options.key) if options.version else None
    if refusal is not None:
        return _fail(refusal)
    for path in (AUDIT, SUMS, SIGNATURE):
        (DIST / path).unlink(missing_ok=True)
    audit = look_up()
    _keep(audit)
    if audit.vulnerabilities:
        return _fail("vulnerable: " + "; ".join(audit.vulnerabilities))
    if audit.audited:
        say(f"audited: no known vulnerability in {len(audit.libraries)} libraries")
    else:
        say(f"NOT AUDITED: {audit.reason}")
        if not options.allow_unaudited:
            return _fail("run this where the database answers, or give --allow-unaudited")
    commit = checked_out()
    names = make(ROOT, options.targets, commit)
    differing = made_elsewhere(names, options.targets, commit)
    if differing:
        return _fail(f"two builds differ in {', '.join(differing)}")
    say(f"{', '.join(names)}: made twice, in two folders, the same bytes")
    # A build removes what was said about the archive before.
    _keep(audit)
    listed = (*names, AUDIT)
    (DIST / SUMS).write_text("".join(f"{_sha256(DIST / name)}  {name}\n" for name in listed))
    say(f"dist/{SUMS} has the checksums")
    if options.key is None:
        say(f"NOT SIGNED: --key FILE makes dist/{SIGNATURE}")
        return 0
    return sign(options.key, options.version or f"rehearsal of {own_version()}")


def not_releasable(version: str, key: Path | None) -> str | None:
    """Return why this checkout is not the one of the version; None when it is."""
    if version != own_version():
        return f"claudemesh/__init__.py has {own_version()}, not {version}"
    if _run("git", "-C", str(ROOT), "status", "--porcelain").stdout.strip():
        return "files differ from the commit; a release is made from a clean checkout"
    tagged = _run("git", "-C", str(ROOT), "tag", "--points-at", "HEAD").stdout.split()
    if f"v{version}" not in tagged:
        return f"the commit has no tag v{version}"
    if key is None:
        return "a release is signed; give the key with --key"
    return None


def make(tree: Path, targets: str, commit: str | None) -> tuple[str, ...]:
    """Make all files of a release in the folder dist of a checkout; return their names."""
    config = tomllib.loads((ROOT / "shiv.toml").read_text())["pyz"]
    dist, version, epoch = tree / "dist", own_version(), config["source_date_epoch"]
    _build(tree, targets, commit)
    notes = f"claudemesh-{version}.changes.md"
    (dist / notes).write_text(changes((tree / "CHANGELOG.md").read_text(), version))
    packed = packages(tree, dist, epoch)
    context = container_context(tree, dist, version, epoch)
    return (ARCHIVE, BILL, LICENCES, *packed, context, manual_pages(tree, dist, version, epoch), notes)


def made_elsewhere(names: tuple[str, ...], targets: str, commit: str | None) -> list[str]:
    """Make the release of a copy of the checkout; return the names of files that came out otherwise."""
    with tempfile.TemporaryDirectory(prefix="claudemesh-release-") as folder:
        copy = Path(folder) / "checkout"
        copy.mkdir()
        for name in _INPUTS:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        make(copy, targets, commit)
        return [name for name in names if _sha256(copy / "dist" / name) != _sha256(DIST / name)]


def sign(key: Path, comment: str) -> int:
    """Sign the list of checksums with minisign, which asks for the key's password on a terminal."""
    command = ["minisign", "-S", "-s", str(key), "-m", str(DIST / SUMS), "-t", f"claudemesh {comment}"]
    try:
        done = subprocess.run(command, check=False)
    except FileNotFoundError:
        return _fail("minisign is not installed")
    if done.returncode:
        return _fail("the checksums were not signed")
    say(f"dist/{SIGNATURE} has the signature")
    return 0


def look_up() -> Audit:
    """Ask the database of known vulnerabilities about every pinned library."""
    try:
        with tempfile.TemporaryDirectory(prefix="claudemesh-audit-") as folder:
            python = _audit_environment(Path(folder) / "venv")
            done = _run(
                *(python, "-I", "-m", "pip_audit", "--disable-pip", "--require-hashes"),
                *("--progress-spinner", "off", "--format", "json", "--requirement", str(_AUDITED)),
            )
    except (OSError, subprocess.SubprocessError) as error:
        return Audit(False, f"the audit could not run ({error})", [], [])
    return judge(done.stdout, done.stderr)


def judge(report: str, errors: str) -> Audit:
    """Return what a report of pip-audit says. A library that was skipped was not audited."""
    try:
        dependencies: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (errors.strip().splitlines() or ["no report"])[-1]
        return Audit(False, f"the database of vulnerabilities did not answer ({last})", [], [])
    skipped = [str(found["name"]) for found in dependencies if "skip_reason" in found]
    known = [found for found in dependencies if "skip_reason" not in found]
    vulnerabilities = [
        f"{found['name']} {found['version']}: {one['id']}"
        + (f" (mended in {', '.join(one['fix_versions'])})" if one.get("fix_versions") else "")
        for found in known
        for one in found["vulns"]
    ]
    reason = None
    if skipped or not known:
        names = ", ".join(skipped) or "any library"
        reason = f"the database of vulnerabilities knows nothing of {names}"
    libraries = [f"{found['name']} {found['version']}" for found in known]
    return Audit(reason is None, reason, vulnerabilities, libraries)


def _audit_environment(folder: Path) -> str:
    """Make an environment with the pinned auditor and return its Python."""
    say("setting up the auditor")
    venv.create(folder)
    python = str(folder / "bin" / "python")
    # The pip of this environment installs into that one: a pip of its own takes most of the time.
    done = _run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"),
        *(
            "--disable-pip-version-check",
            "--no-input",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--requirement",
            str(_TOOLS),
        ),
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise OSError(f"its tool cannot be installed: {last}")
    return python


def _keep(audit: Audit) -> None:
    DIST.mkdir(exist_ok=True)
    (DIST / AUDIT).write_text(json.dumps(asdict(audit), indent=1) + "\n")


def _build(tree: Path, targets: str, commit: str | None) -> None:
    script = str(tree / "build" / "build_pyz.py")
    named = ("--commit", commit) if commit else ()
    done = _run(sys.executable, script, "--force", "--targets", targets, *named)
    if done.returncode:
        raise SystemExit(f"{done.stderr}\nbuild/release: error: the build failed")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(command, env=kept, capture_output=True, text=True, timeout=_TIMEOUT_S)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fail(text: str) -> int:
    print(f"build/release: error: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
