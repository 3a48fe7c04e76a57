"""Detection of the environment, which decides defaults (docs/spec/lifecycle.md, Identity modes)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_CI = ("GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "JENKINS_URL")
_KUBERNETES, _RUNPOD = "KUBERNETES_SERVICE_HOST", "RUNPOD_POD_ID"
# All variables that detection reads.
VARIABLES = ("CI", *_CI, _KUBERNETES, _RUNPOD)
_CGROUP_WORDS = ("docker", "containerd", "kubepods", "libpod", "lxc")


def detect_environment(environ: Mapping[str, str], root: Path = Path("/")) -> str:
    """Return `ci`, `kubernetes`, `runpod`, `container` or `machine`: the most particular one that fits."""
    if environ.get("CI", "").lower() in ("true", "1") or any(environ.get(name) for name in _CI):
        return "ci"
    if environ.get(_KUBERNETES):
        return "kubernetes"
    if environ.get(_RUNPOD):
        return "runpod"
    return "container" if _in_container(root) else "machine"


def _in_container(root: Path) -> bool:
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        return True
    try:
        groups = (root / "proc/1/cgroup").read_text()
    except OSError:
        return False
    return any(word in groups for word in _CGROUP_WORDS)
