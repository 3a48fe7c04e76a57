"""`claudemesh version`."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import click

import claudemesh
from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option
from claudemesh.protocol.wire import PROTOCOL_VERSIONS

_SHOWN_COMMIT = 12


@click.command()
@click.option(
    "--verify",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Verify a downloaded file of a release. SHA256SUMS and SHA256SUMS.minisig are beside it.",
)
@click.option("--key", help="The public key of the releases, or a file with it, instead of the built-in one.")
@json_option
@answers.others("With --verify: file, sha256 and comment instead.")
@answers.one(
    version="string*",
    commit="string?*",
    platform="string*",
    python="string*",
    installed="string*",
    protocol="array*",
)
def version(verify: Path | None, key: str | None, as_json: bool) -> None:
    """Show the version, its commit, the platform, the Python, and how it is installed.

    \b
    Examples:
      claudemesh version --json | jq -r .commit
      claudemesh version --verify ./claudemesh.pyz
    """
    if verify is None:
        say_version(as_json=as_json)
        return
    # Imported here: only a verification needs it.
    from claudemesh.client.signed_release import verify_file

    if key is not None and Path(key).is_file():
        key = Path(key).read_text()
    verified = verify_file(verify, key)
    if as_json:
        output.print_json({"file": str(verify), "sha256": verified.sha256, "comment": verified.comment})
    else:
        output.say(f"{verify} is a file of the release ({verified.comment}), sha256 {verified.sha256}")


def say_version(*, as_json: bool = False) -> None:
    """Print the version, for `version` and `--version`."""
    found = _facts()
    if as_json:
        output.print_json(found)
        return
    commit = found["commit"]
    of = "" if commit is None else f"commit {commit[:_SHOWN_COMMIT]}{'+' if '+' in commit else ''}, "
    output.say(
        f"claudemesh {found['version']} ({of}Python {found['python']}, {found['platform']}, "
        f"{found['installed']})"
    )


def _facts() -> dict[str, Any]:
    # Imported here: `send` loads this module's group, and needs none of it.
    from claudemesh.home.installation import commit, installed_as

    return {
        "version": claudemesh.__version__,
        "commit": commit(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "installed": installed_as(),
        "protocol": list(PROTOCOL_VERSIONS),
    }
