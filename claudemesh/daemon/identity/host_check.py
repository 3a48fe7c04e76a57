"""Check of the host at the start of a daemon (docs/spec/lifecycle.md, Clones).

The files of a member belong to the host that has started its daemon first. On another host they may be a
copy, whose original still runs.
"""

from __future__ import annotations

from collections.abc import Callable

from claudemesh.daemon.settings import DaemonSettings
from claudemesh.home.host_file import keep_host, load_host
from claudemesh.home.host_id import Verdict, compare, random_host_id, read_host_id
from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import cannot

log = get_logger("daemon")

CONDITION = "host_changed"
REFUSE, WARN, ALLOW = POLICIES = ("refuse", "warn", "allow")


def check_host(
    paths: DaemonPaths, settings: DaemonSettings, conditions: Conditions, count: Callable[[], None]
) -> str:
    """Compare this host with the kept one, and keep it at the first start.

    Returns the fingerprint to tell the broker, "" when this host has none. `count` counts a suspected copy.
    `ExitWith` 78 on another host under the policy `refuse`.
    """
    kept, here = load_host(paths.host_fingerprint), read_host_id(settings.clone_id_override)
    verdict = compare(kept, here)
    if here is None:
        log.warning(
            "fingerprint_unavailable",
            detail="This host has neither a machine id nor a permanent MAC address. A copy of this directory "
            "is not noticed. Set [clone] id_override to a text of this host's own.",
        )
    if verdict is Verdict.KEEP:
        try:
            keep_host(paths.host_fingerprint, here or random_host_id())
        except OSError as error:
            raise cannot("write", error, paths.host_fingerprint) from error
    if verdict is Verdict.OTHER:
        _report(paths.slug, settings.clone_policy, conditions, count)
    return "" if here is None else here.fingerprint


def _report(slug: str, policy: str, conditions: Conditions, count: Callable[[], None]) -> None:
    text = (
        f"The files of mesh {slug} belong to another host, so this directory may be a copy whose original "
        "still runs. If this host replaces the other one, run `claudemesh daemon accept-host --mesh "
        f"{slug}`. If both go on, run `claudemesh daemon remint --mesh {slug}` here: this host becomes a "
        "member of its own."
    )
    if policy == REFUSE:
        raise ExitWith(CONFIGURATION, CONDITION, text)
    if policy == ALLOW:
        log.info(CONDITION, mesh=slug, policy=policy)
        return
    count()
    conditions.begin(CONDITION, text)
