"""hooks.toml: the hooks that run, and their limits (docs/spec/daemon.md, Hooks)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claudemesh.daemon.settings import Number, OneOf, Rule, YesNo
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_topic
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import UnsafeFile, read_own

TOPIC_PREFIX = "on-topic-"
PRE_SEND = "pre-send"
# Hooks of a message, which has a sender that can be answered.
_OF_MESSAGES = ("on-message", "on-dm", "on-mention", "on-file-share")
_OF_THE_DAEMON = ("on-startup", "on-disconnect", "on-reconnect")
NAMES = (*_OF_MESSAGES, *_OF_THE_DAEMON, PRE_SEND)

REPLY, DM_SENDER = "reply:event", "dm:send:sender"


@dataclass(frozen=True, slots=True)
class Hook:
    """One entry of hooks.toml; the defaults are what a careful user would choose."""

    name: str
    enabled: bool = True
    timeout_s: float = 30
    output_size_limit: int = 65_536
    redact_payload: tuple[str, ...] = ()
    allow_reply: bool = False
    capability_token_scope: tuple[str, ...] = ()
    network_policy: str = "deny"
    sandbox: str = "none"
    killpg_on_timeout: bool = True
    audit: bool = True


class _Scopes:
    """Capability scopes."""

    def check(self, value: object) -> Any:
        if not isinstance(value, list) or not all(map(_is_scope, value)):
            raise ValueError
        return tuple(dict.fromkeys(value))

    def allowed(self) -> str:
        return f'a list of any of "{REPLY}", "{DM_SENDER}", "topic:NAME:post"'


class _Paths:
    """Paths into the event, as `body.password`."""

    def check(self, value: object) -> Any:
        if not isinstance(value, list) or not all(isinstance(path, str) and _is_path(path) for path in value):
            raise ValueError
        return tuple(value)

    def allowed(self) -> str:
        return 'a list of paths that begin with body or meta, as "body.password" or "meta.keys.*.secret"'


_RULES: Mapping[str, Rule] = {
    "enabled": YesNo(),
    "timeout_s": Number(0.1, 3600, whole=False),
    "output_size_limit": Number(0, 16 << 20),
    "redact_payload": _Paths(),
    "allow_reply": YesNo(),
    "capability_token_scope": _Scopes(),
    "network_policy": OneOf(("deny", "require", "allow")),
    "sandbox": OneOf(("none", "bubblewrap")),
    "killpg_on_timeout": YesNo(),
    "audit": YesNo(),
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The entries of hooks.toml by their names."""

    hooks: Mapping[str, Hook]

    def enabled(self, name: str) -> Hook | None:
        """Return a hook that is to run, or None."""
        hook = self.hooks.get(name)
        return hook if hook is not None and hook.enabled else None

    def for_message(self, kind: str, topic: str | None, *, mentioned: bool) -> tuple[str, ...]:
        """Name the hooks that a received message raises."""
        names = ["on-message"]
        if kind == "dm":
            names.append("on-dm")
        else:
            names.append(f"{TOPIC_PREFIX}{topic}")
        if mentioned:
            names.append("on-mention")
        return tuple(name for name in names if self.enabled(name) is not None)


NO_HOOKS = Manifest({})


def load_manifest(path: Path, default_timeout_s: float) -> Manifest:
    """Read hooks.toml; without one there are no hooks. `ExitWith` 78 names the key and what is allowed."""
    try:
        data = tomllib.loads(read_own(path).decode())
    except (FileNotFoundError, NotADirectoryError):
        return NO_HOOKS
    except UnsafeFile as error:
        raise ExitWith(CONFIGURATION, "unsafe_file", f"{error}.") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, a number of 5,000 digits
        raise ExitWith(CONFIGURATION, "invalid_hooks", f"{path} is not TOML: {error}.") from error
    return Manifest({name: _parse(path, name, entry, default_timeout_s) for name, entry in data.items()})


def _parse(path: Path, name: str, entry: object, default_timeout_s: float) -> Hook:
    if not _is_name(name):
        raise _wrong(path, name, f"no such hook; there are {', '.join(NAMES)} and {TOPIC_PREFIX}NAME")
    if not isinstance(entry, dict):
        raise _wrong(path, f"{name} = {entry!r}", f"write it as a section, [{name}]")
    chosen: dict[str, Any] = {"timeout_s": default_timeout_s}
    for key, value in entry.items():
        rule = _RULES.get(key)
        if rule is None:
            raise _wrong(path, f"[{name}] {key}", f"no such key; there are {', '.join(_RULES)}")
        try:
            chosen[key] = rule.check(value)
        except ValueError:
            raise _wrong(path, f"[{name}] {key} = {value!r}", f"allowed is {rule.allowed()}") from None
    hook = Hook(name, **chosen)
    if name in (PRE_SEND, *_OF_THE_DAEMON) and (hook.allow_reply or hook.capability_token_scope):
        raise _wrong(
            path,
            f"[{name}]",
            "there is no message to answer: leave out allow_reply and capability_token_scope",
        )
    return hook


def _is_name(name: str) -> bool:
    if name in NAMES:
        return True
    try:
        return name.startswith(TOPIC_PREFIX) and bool(check_topic(name.removeprefix(TOPIC_PREFIX)))
    except ProtocolError:
        return False


def _is_scope(scope: object) -> bool:
    if scope in (REPLY, DM_SENDER):
        return True
    if not isinstance(scope, str) or scope.count(":") != 2:
        return False
    head, topic, verb = scope.split(":")
    try:
        return (head, verb) == ("topic", "post") and bool(check_topic(topic))
    except ProtocolError:
        return False


def _is_path(path: str) -> bool:
    head, *rest = path.split(".")
    return head in ("body", "meta") and all(rest)


def _wrong(path: Path, what: str, text: str) -> ExitWith:
    return ExitWith(CONFIGURATION, "invalid_hooks", f"{path}: {what}: {text}.")
