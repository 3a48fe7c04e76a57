"""A host whose own files are damaged, as the doctor sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.cli.diagnosis.examine import examine


@pytest.mark.parametrize("content", ["", "5", "[]", "[" * 5000, '{"broker_url": 5}', '{"broker_url": null}'])
def test_a_damaged_membership_does_not_end_the_examination(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other checks go on, and no broker is asked."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLAUDEMESH_HOME", str(tmp_path / "mesh"))
    membership = tmp_path / "mesh" / "daemon" / "team" / "membership.json"
    for folder in reversed(membership.parents[:3]):
        folder.mkdir(mode=0o700)
    membership.touch(mode=0o600)
    membership.write_text(content)
    found = examine(None)
    assert found.facts is not None and found.facts.broker is None
    assert {"disk", "daemon"} <= {finding.check for finding in found.findings}
