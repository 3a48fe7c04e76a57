"""hooks.toml: what it takes, what it refuses, and which hooks a message raises."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.daemon.hooks.manifest import NAMES, Hook, Manifest, load_manifest, read_manifest
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.settings.document import parse_document


def load(tmp_path: Path, text: str, mode: int = 0o600) -> Manifest:
    path = tmp_path / "hooks.toml"
    path.write_text(text)
    path.chmod(mode)
    return load_manifest(path, 12)


def test_without_a_file_there_are_no_hooks(tmp_path: Path) -> None:
    """Also when the folder itself is not there."""
    assert load_manifest(tmp_path / "hooks" / "hooks.toml", 30).hooks == {}


def test_an_empty_entry_has_the_careful_defaults(tmp_path: Path) -> None:
    """No reply, no token, no network; the timeout is the daemon's."""
    assert load(tmp_path, "[on-dm]\n").hooks == {"on-dm": Hook("on-dm", timeout_s=12)}
    hook = Hook("on-dm")
    assert (hook.allow_reply, hook.capability_token_scope, hook.network_policy) == (False, (), "deny")
    assert hook.enabled and hook.audit and hook.killpg_on_timeout


def test_the_example_of_the_specification_is_taken(tmp_path: Path) -> None:
    """Every key of docs/hooks.md, hooks.toml."""
    text = """[on-mention]
enabled = true
timeout_s = 30
output_size_limit = 65536
redact_payload = ["body.password", "meta.api_key"]
allow_reply = true
capability_token_scope = ["reply:event", "dm:send:sender", "topic:alerts:post"]
network_policy = "deny"
sandbox = "none"
killpg_on_timeout = true
audit = true
"""
    hook = load(tmp_path, text).enabled("on-mention")
    assert hook is not None
    assert hook.capability_token_scope == ("reply:event", "dm:send:sender", "topic:alerts:post")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[on-nothing]", "There is no hook on-nothing. Did you mean on-mention?"),
        ("[x]", "There is no hook x. Hooks are on-message"),
        ('["on-topic-../x"]', "There is no hook on-topic-../x"),
        ("[on-topic-UPPER]", "There is no hook on-topic-UPPER"),
        ("on-dm = true", "on-dm must be a section, [on-dm], not true."),
        ("[on-dn]", "There is no hook on-dn. Did you mean on-dm?"),
        ("[on-dm]\ntimeout = 3", "There is no key [on-dm] timeout. Did you mean timeout_s?"),
        ("[on-dm]\ntimeout_s = 0", ":2: [on-dm] timeout_s must be a number from 0.1 to 3600, not 0."),
        ('[on-dm]\nenabled = "yes"', '[on-dm] enabled must be true or false, not "yes".'),
        ('[on-dm]\nredact_payload = ["sender"]', "must be a list of paths that begin with body or meta"),
        ('[on-dm]\nredact_payload = ["body..x"]', "must be a list of paths that begin with body or meta"),
        (
            '[on-dm]\ncapability_token_scope = ["inbox:read"]',
            "capability_token_scope must be a list of any of",
        ),
        (
            '[on-dm]\ncapability_token_scope = ["topic:A B:post"]',
            "capability_token_scope must be a list of any of",
        ),
        (
            '[on-dm]\nnetwork_policy = "maybe"',
            'network_policy must be one of deny, require, allow, not "maybe".',
        ),
        ("[pre-send]\nallow_reply = true", "there is no message to answer"),
        ('[on-startup]\ncapability_token_scope = ["reply:event"]', "there is no message to answer"),
        ("[on-dm", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(tmp_path: Path, text: str, named: str) -> None:
    """One sentence: the file, the key, the value, what is allowed."""
    with pytest.raises(ExitWith) as caught:
        load(tmp_path, text)
    assert caught.value.code == CONFIGURATION
    assert str(tmp_path / "hooks.toml") in caught.value.message and named in caught.value.message


def test_a_manifest_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """It decides what runs."""
    with pytest.raises(ExitWith, match="chmod"):
        load(tmp_path, "[on-dm]", 0o666)


def test_all_faults_are_found_and_hooks_without_one_are_kept() -> None:
    text = b"[on-dm]\ntimeout_s = 0\nx = 1\n[on-mention]\n[on-nothing]\n"
    manifest, faults = read_manifest(parse_document(text, "hooks.toml", "invalid_hooks"), 30)
    assert [str(fault.origin) for fault in faults] == ["hooks.toml:3", "hooks.toml:2", "hooks.toml:5"]
    assert manifest.hooks.keys() == {"on-mention"}


ALL = Manifest({name: Hook(name) for name in (*NAMES, "on-topic-news")})


@pytest.mark.parametrize(
    ("kind", "topic", "mentioned", "names"),
    [
        ("dm", None, False, ("on-message", "on-dm")),
        ("dm", None, True, ("on-message", "on-dm", "on-mention")),
        ("topic", "news", False, ("on-message", "on-topic-news")),
        ("topic", "other", True, ("on-message", "on-mention")),
        ("queue", "work", False, ("on-message",)),
        ("queue", "news", False, ("on-message", "on-topic-news")),
    ],
)
def test_which_hooks_a_message_raises(
    kind: str, topic: str | None, mentioned: bool, names: tuple[str, ...]
) -> None:
    """Exhaustive over kinds; only entries that are enabled."""
    assert ALL.for_message(kind, topic, mentioned=mentioned) == names
    off = Manifest({name: Hook(name, enabled=False) for name in ALL.hooks})
    assert off.for_message(kind, topic, mentioned=mentioned) == ()


def test_a_message_that_announces_a_file_raises_a_hook_of_its_own() -> None:
    """Beside those of its kind."""
    names = ("on-message", "on-dm", "on-file-share")
    assert ALL.for_message("dm", None, mentioned=False, has_files=True) == names
