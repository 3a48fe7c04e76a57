"""Identity mode: persistent or ephemeral, by the environment and the options (docs/spec/lifecycle.md,
Identity modes). No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Environments whose file system does not outlive a job or a pod.
_SHORT_LIVED: Final = ("ci", "kubernetes")
PERSISTENT_IN_CI: Final = "persistent_keypair_in_ci_environment"
RUNPOD_ASSUMED: Final = "runpod_persistent_default_assumed"


@dataclass(frozen=True, slots=True)
class IdentityMode:
    """The mode of a member. `warning` is the event to log, None when there is none."""

    ephemeral: bool
    warning: str | None = None


def identity_mode(environment: str, *, asked: bool | None, is_member: bool) -> IdentityMode:
    """Decide the mode of a member in an environment of `detect_environment`.

    `asked` is True for --ephemeral, False for --persistent, None without an option. A membership on the disk
    (`is_member`) keeps its identity unless --ephemeral is given.
    """
    is_short = environment in _SHORT_LIVED
    if asked or (asked is None and is_short and not is_member):
        return IdentityMode(ephemeral=True)
    if is_short:
        return IdentityMode(ephemeral=False, warning=PERSISTENT_IN_CI)
    if environment == "runpod" and asked is None:
        return IdentityMode(ephemeral=False, warning=RUNPOD_ASSUMED)
    return IdentityMode(ephemeral=False)
