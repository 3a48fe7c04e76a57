"""hooks.toml: the hooks that run, and their limits (docs/spec/daemon.md, Hooks)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_topic
from claudemesh.runtime.settings.document import Document, read_own_document
from claudemesh.runtime.settings.keys import setting, table_of
from claudemesh.runtime.settings.merge import (
    Fault,
    Given,
    Origin,
    Source,
    cut,
    merge,
    near,
    origin_in,
    refuse,
    section_layer,
    shown,
)
from claudemesh.runtime.settings.rules import ListOf, Number, OneOf, YesNo, holding

INVALID = "invalid_hooks"

TOPIC_PREFIX = "on-topic-"
PRE_SEND = "pre-send"
# Hooks of received messages, which have a sender to answer.
_OF_MESSAGES = ("on-message", "on-dm", "on-mention", "on-file-share")
_OF_THE_DAEMON = ("on-startup", "on-disconnect", "on-reconnect")
_OF_MEMBERS = (
    "on-member-renamed",
    "on-member-updated",
    "on-member-replaced",
    "on-member-keypair-rotated",
    "on-keypair-revoked",
)
NAMES = (*_OF_MESSAGES, *_OF_THE_DAEMON, *_OF_MEMBERS, PRE_SEND)

REPLY, DM_SENDER = "reply:event", "dm:send:sender"


def is_scope(scope: str) -> bool:
    """Whether a text is a capability scope."""
    if scope in (REPLY, DM_SENDER):
        return True
    head, _, rest = scope.partition(":")
    topic, _, verb = rest.partition(":")
    return (head, verb) == ("topic", "post") and _is_topic(topic)


def is_payload_path(path: str) -> bool:
    """Whether a text is a path into an event, such as `body.password`."""
    head, *rest = path.split(".")
    return head in ("body", "meta") and all(rest)


@dataclass(frozen=True, slots=True)
class Hook:
    """One entry of hooks.toml: the hook's name, and its settings, whose defaults give the hook no rights."""

    name: str
    enabled: bool = setting(YesNo(), "Run the hook.", default=True, reload=True)
    timeout_s: float = setting(
        Number(0.1, 3600, whole=False),
        "Time limit in seconds; then SIGTERM, and SIGKILL after 5 s.",
        default=30,
        default_text="`[hooks] default_timeout_s` of config.toml",
        reload=True,
    )
    output_size_limit: int = setting(
        Number(0, 16 << 20),
        "Bytes of standard output that are kept. The rest is discarded.",
        default=65_536,
        reload=True,
    )
    redact_payload: tuple[str, ...] = setting(
        ListOf(
            'a list of paths that begin with body or meta, as "body.password" or "meta.keys.*.secret"',
            holding(is_payload_path),
        ),
        "Values of the event that are replaced by `[redacted]`, also inside a body that is JSON.",
        default=(),
        reload=True,
    )
    allow_reply: bool = setting(
        YesNo(),
        'Send `{"reply": "…"}` on standard output as a reply, when the exit code is 0.',
        default=False,
        reload=True,
    )
    capability_token_scope: tuple[str, ...] = setting(
        ListOf(f'a list of any of "{REPLY}", "{DM_SENDER}", "topic:NAME:post"', holding(is_scope), once=True),
        "Sends that the hook may make over the local API.",
        default=(),
        reload=True,
    )
    network_policy: str = setting(
        OneOf(("deny", "require", "allow")),
        "`deny` takes the network away where the kernel allows; else the hook runs, is logged and counted. "
        "`require` does not run it then. `allow` leaves the network.",
        default="deny",
        reload=True,
    )
    sandbox: str = setting(
        OneOf(("none", "bubblewrap")),
        "`bubblewrap`: a read-only system, the hook's file, the socket and an empty `/tmp`, no home. "
        "Without `bwrap` the hook does not run.",
        default="none",
        reload=True,
    )
    killpg_on_timeout: bool = setting(
        YesNo(),
        "Send the SIGTERM to the whole process group. `false`: to the hook only.",
        default=True,
        reload=True,
    )
    audit: bool = setting(
        YesNo(), "Log a line `hook_run` for each run, at any log level.", default=True, reload=True
    )


TABLE = table_of("hooks.toml", Hook)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The entries of hooks.toml by their names."""

    hooks: Mapping[str, Hook]

    def enabled(self, name: str) -> Hook | None:
        """Return the entry of an enabled hook, or None."""
        hook = self.hooks.get(name)
        return hook if hook is not None and hook.enabled else None

    def for_message(
        self, kind: str, topic: str | None, *, mentioned: bool, has_files: bool = False
    ) -> tuple[str, ...]:
        """Return the names of the hooks that a received message starts."""
        names = ["on-message"]
        if kind == "dm":
            names.append("on-dm")
        else:
            names.append(f"{TOPIC_PREFIX}{topic}")
        if mentioned:
            names.append("on-mention")
        if has_files:
            names.append("on-file-share")
        return tuple(name for name in names if self.enabled(name) is not None)


NO_HOOKS = Manifest({})


def load_manifest(path: Path, default_timeout_s: float) -> Manifest:
    """Read hooks.toml; without it there are no hooks. Raise `ExitWith` 78, which names the key and the
    allowed values."""
    manifest, faults = read_manifest(read_own_document(path, INVALID), default_timeout_s)
    refuse(faults, INVALID)
    return manifest


def read_manifest(document: Document | None, default_timeout_s: float) -> tuple[Manifest, list[Fault]]:
    """Return the hooks of a hooks.toml, and all faults. A hook with a fault is left out."""
    hooks: dict[str, Hook] = {}
    faults: list[Fault] = []
    for name, entry in (document.data if document else {}).items():
        assert document is not None
        found = _faults_of_entry(document, name, entry)
        if not found:
            layer, unknown = section_layer(TABLE, document, entry, (name,))
            timeout = {"timeout_s": Given(default_timeout_s, Origin(Source.DEFAULT))}
            merged = merge(TABLE, layer, timeout, faults=unknown, section=name)
            hook = Hook(name, **merged.values)
            found = [*merged.faults, *_faults_of_rights(document, hook)]
            if not found:
                hooks[name] = hook
        faults += found
    return Manifest(hooks), faults


def _faults_of_entry(document: Document, name: str, entry: object) -> list[Fault]:
    """Return the faults of an entry itself: an unknown name, or a value that is not a section."""
    origin = origin_in(document, name)
    if not is_hook_name(name):
        like = near(name, NAMES)
        remedy = f"Did you mean {like}?" if like else f"Hooks are {', '.join(NAMES)} and {TOPIC_PREFIX}NAME."
        return [Fault(origin, name, f"There is no hook {cut(name)}. {remedy}")]
    if not isinstance(entry, dict):
        return [Fault(origin, name, f"{name} must be a section, [{name}], not {shown(entry)}.")]
    return []


def _faults_of_rights(document: Document, hook: Hook) -> list[Fault]:
    """Return the fault of a hook that has rights to answer a message, but runs on no message."""
    if hook.name not in (PRE_SEND, *_OF_THE_DAEMON):
        return []
    return [
        Fault(
            origin_in(document, hook.name, key),
            f"[{hook.name}] {key}",
            f"[{hook.name}] must not have {key}: there is no message to answer.",
        )
        for key in ("allow_reply", "capability_token_scope")
        if getattr(hook, key)
    ]


def is_hook_name(name: str) -> bool:
    """Whether a hook can have this name."""
    return name in NAMES or (name.startswith(TOPIC_PREFIX) and _is_topic(name.removeprefix(TOPIC_PREFIX)))


def _is_topic(name: str) -> bool:
    try:
        return bool(check_topic(name))
    except ProtocolError:
        return False
