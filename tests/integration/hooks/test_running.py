"""Runs of hooks: their input, their limits, and their isolation from other processes (docs/spec/daemon.md,
Hooks)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hooks.hooked import Host, processes
from tests.support.processes import until


def send(alice: Host, body: str, **fields: Any) -> Any:
    """Alice sends bob a message; returns her daemon's answer."""
    status, answer = alice.daemon.send("bob", body, **fields)
    assert status in (200, 202), answer
    return answer


def test_a_message_runs_the_hooks_that_it_raises_and_no_other(alice: Host, bob: Host) -> None:
    """on-message and on-dm for a dm, on-topic-NAME for a topic, on-mention for a mentioned member."""
    for name in ("on-message", "on-dm.sh", "on-mention", "on-topic-news.sh", "on-topic-other"):
        bob.script(name, 'cat >"$OUT/$CLAUDEMESH_HOOK_NAME.$CLAUDEMESH_EVENT_ID"')
    bob.manifest(on_message={}, on_dm={}, on_mention={}, **{"on-topic-news": {}, "on-topic-other": {}})
    bob.reload()
    alice.daemon.request("POST", "/v1/topic/create", {"topic": "news"})
    bob.daemon.request("POST", "/v1/topic/subscribe", {"topic": "news"})
    send(alice, "to you")
    assert alice.daemon.post("news", "to all", mentions=["bob"])[0] == 202
    bob.ran("on-message", 2)
    bob.ran("on-mention")
    bob.ran("on-topic-news")
    bob.ran("on-dm")
    until(bob.idle, "no hook is left to run")
    assert bob.runs("on-topic-other") == []
    by_body = {item["body"]: item["id"] for item in bob.daemon.inbox()}
    ran = {path.name for path in bob.out.iterdir()}
    first, second = by_body["to you"], by_body["to all"]
    assert ran == {
        *(f"on-message.{event}" for event in (first, second)),
        f"on-dm.{first}",
        f"on-mention.{second}",
        f"on-topic-news.{second}",
    }
    event = json.loads(bob.told(f"on-mention.{second}"))
    assert (event["event"], event["hook"], event["event_id"]) == ("message", "on-mention", second)
    assert (event["kind"], event["topic"], event["sender_name"]) == ("topic", "news", "alice")


def test_the_environment_is_a_short_list_and_the_text_is_only_on_stdin(alice: Host, bob: Host) -> None:
    """Nothing of the daemon's environment, no open file, no message text in argv or environment."""
    bob.script(
        "on-dm", 'env >"$OUT/env"; echo "$#" >"$OUT/argc"; ls /proc/self/fd >"$OUT/fds"; cat >"$OUT/in"'
    )
    bob.manifest(on_dm={})
    bob.reload()
    send(alice, "canary-7f3a")
    bob.ran("on-dm")
    [item] = [item for item in bob.daemon.inbox() if item["body"] == "canary-7f3a"]
    given = dict(line.split("=", 1) for line in bob.told("env").splitlines())
    assert {key: value for key, value in given.items() if key not in ("PWD", "_", "SHLVL", "OLDPWD")} == {
        "PATH": "/usr/bin:/bin",
        "CLAUDEMESH_MESH": "demo",
        "CLAUDEMESH_HOOK_NAME": "on-dm",
        "CLAUDEMESH_EVENT_ID": item["id"],
        "CLAUDEMESH_DAEMON_SOCK": str(bob.daemon.sock),
    }
    assert bob.told("argc").strip() == "0"
    # 3 is the folder that ls itself reads.
    assert bob.told("fds").split() == ["0", "1", "2", "3"]
    assert "canary-7f3a" in bob.told("in")
    assert "canary-7f3a" not in bob.daemon.log.read_text()


def test_a_payload_is_redacted_then_cut(alice: Host, bob: Host) -> None:
    """Paths into a JSON body and into meta; what is too long is cut and says so."""
    bob.script("on-dm", 'cat >"$OUT/in.$CLAUDEMESH_EVENT_ID"')
    bob.manifest(on_dm={"redact_payload": ["body.password", "meta.api_key"]})
    bob.reload()
    body = json.dumps({"user": "x", "password": "hunter2"})
    send(alice, body, meta={"api_key": "s3cret", "kept": 1})
    send(alice, "long " * 52_360)
    bob.ran("on-dm", 2)
    short, long = sorted((path.read_text() for path in bob.out.iterdir()), key=len)
    event = json.loads(short)
    assert json.loads(event["body"]) == {"user": "x", "password": "[redacted]"}
    assert event["meta"] == {"api_key": "[redacted]", "kept": 1}
    assert len(long.encode()) <= 256 << 10
    cut = json.loads(long)
    assert cut["_truncated"] is True
    assert cut["body"].startswith("long long") and len(cut["body"]) > 250_000


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        pytest.param("sleep 971", "timeout", id="hangs"),
        pytest.param('trap "" TERM; while :; do sleep 971; done', "timeout", id="ignores TERM"),
        pytest.param("(setsid sleep 971 &); (setsid sh -c 'sleep 971' &) ; exit 0", "0", id="double fork"),
        pytest.param("kill -SEGV $$", "signal", id="dies"),
        pytest.param("exec >&- 2>&- <&-; exit 3", "3", id="closes everything"),
    ],
)
def test_nothing_of_a_hook_outlives_it(alice: Host, bob: Host, script: str, outcome: str) -> None:
    """At the timeout SIGTERM, 5 s, SIGKILL; what it forked goes with it, and the next hook runs."""
    bob.script("on-dm", f'grep -q "run it" && {{ {script}\n}}; exit 0')
    bob.manifest(on_dm={"timeout_s": 0.5})
    bob.reload()
    send(alice, "run it")
    line = bob.ran("on-dm")
    assert processes("sleep 971") == []
    expected = {"timeout": line["timed_out"], "signal": line["signal"] == 11 and not line["timed_out"]}
    assert expected.get(outcome, str(line["exit"]) == outcome), line
    send(alice, "the next one")
    assert bob.ran("on-dm", 2)["exit"] == 0
    assert f'exit="{outcome}"' in bob.metric("cm_daemon_hook_invocations_total")


def test_a_fork_bomb_ends_with_its_hook(alice: Host, bob: Host) -> None:
    """Every process of it is dead when the run is over, however fast they came."""
    bob.script(
        "on-dm",
        """b() { sleep 973 & setsid sh -c 'sleep 973' & }
i=0; while [ $i -lt 100 ]; do b; i=$((i+1)); done; wait""",
    )
    bob.manifest(on_dm={"timeout_s": 1})
    bob.reload()
    send(alice, "boom")
    line = bob.ran("on-dm")
    assert line["timed_out"]
    assert processes("sleep 973") == []


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_a_flood_of_output_is_read_and_forgotten(alice: Host, bob: Host, stream: str) -> None:
    """200 MB on stdout or stderr: no deadlock, no memory, the beginning is kept."""
    before = _rss_kib(bob.daemon.pid)
    bob.script("on-dm", f"head -c 200000000 /dev/zero {stream}; exit 4")
    bob.manifest(on_dm={"output_size_limit": 1000})
    bob.reload()
    send(alice, "flood")
    line = bob.ran("on-dm")
    assert line["exit"] == 4
    assert line["stderr_bytes" if stream else "stdout_bytes"] == 200_000_000
    assert line["output_truncated"] is not bool(stream)
    assert _rss_kib(bob.daemon.pid) - before < 20_000


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError


def test_hooks_that_hang_hold_up_neither_messages_nor_the_api(alice: Host, bob: Host) -> None:
    """Eight at a time, the rest wait; the inbox fills meanwhile."""
    bob.script(
        "on-dm",
        """cd $OUT; me=$(mktemp run.XXXXXX); ls run.* | wc -l >>seen
while [ ! -e go ]; do sleep 0.05; done; rm $me""",
    )
    bob.manifest(on_dm={})
    bob.reload()
    for number in range(20):
        send(alice, f"hold {number}")
    until(lambda: sum(item["body"].startswith("hold") for item in bob.daemon.inbox()) == 20, "all arrived")
    until(lambda: len(list(bob.out.glob("run.*"))) == 8, "eight run")
    assert bob.health()["connected"]
    (bob.out / "go").touch()
    bob.ran("on-dm", 20)
    # Each noted how many there were, itself included.
    seen = [int(line) for line in bob.told("seen").split()]
    assert (len(seen), max(seen)) == (20, 8)


def test_stderr_is_kept_for_the_user_and_not_in_the_log(alice: Host, bob: Host) -> None:
    """It may hold message text: the last run's stands in a private file."""
    bob.script("on-dm", "echo canary-stderr >&2; exit 1")
    bob.manifest(on_dm={})
    bob.reload()
    send(alice, "x")
    assert bob.ran("on-dm")["exit"] == 1
    path = bob.folder / "stderr" / "on-dm"
    assert path.read_text() == "canary-stderr\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "canary-stderr" not in bob.daemon.log.read_text()


def test_a_hook_that_is_not_safe_to_run_does_not_run(alice: Host, bob: Host) -> None:
    """A link, a file that others can write, no file, two files, no execute bit, a foreign owner."""
    target = bob.script("elsewhere", "touch $OUT/ran")
    spoilt = {
        "on-dm": lambda: (bob.folder / "on-dm").symlink_to(target),
        "on-message": lambda: bob.script("on-message", "touch $OUT/ran", mode=0o777),
        "on-mention": lambda: None,
        "on-topic-a": lambda: (
            bob.script("on-topic-a.sh", "touch $OUT/ran"),
            bob.script("on-topic-a.py", ""),
        ),
        "on-topic-b": lambda: bob.script("on-topic-b", "touch $OUT/ran", mode=0o600),
    }
    reasons = {
        "on-dm": "symbolic link",
        "on-message": "others can change",
        "on-mention": "there is no file",
        "on-topic-a": "keep one",
        "on-topic-b": "not executable",
    }
    if os.geteuid() == 0:
        spoilt["on-topic-c"] = lambda: os.chown(bob.script("on-topic-c", "touch $OUT/ran"), 65_534, 65_534)
        reasons["on-topic-c"] = "another user"
    for spoil in spoilt.values():
        spoil()
    bob.manifest(**{name: {} for name in spoilt})
    bob.reload()
    for topic in ("a", "b", "c"):
        alice.daemon.request("POST", "/v1/topic/create", {"topic": topic})
        bob.daemon.request("POST", "/v1/topic/subscribe", {"topic": topic})
        alice.daemon.post(topic, "x", mentions=["bob"])
    send(alice, "x")
    for name, reason in reasons.items():
        line = bob.ran(name)
        assert line["exit"] is None and reason in line["error"], line
    until(bob.idle, "no hook is left to run")
    assert not (bob.out / "ran").exists()


def test_a_file_without_an_entry_does_not_run(alice: Host, bob: Host) -> None:
    """Nothing runs without hooks.toml, or with enabled = false."""
    bob.script("on-message", "touch $OUT/ran")
    bob.script("on-dm", "touch $OUT/dm")
    bob.manifest(on_message={"enabled": False}, on_dm={})
    bob.reload()
    send(alice, "x")
    bob.ran("on-dm")
    until(bob.idle, "no hook is left to run")
    assert not (bob.out / "ran").exists()


def test_deny_takes_the_network_away_and_allow_leaves_it(alice: Host, bob: Host) -> None:
    """A network namespace of its own has no interface but a loopback that is down."""
    bob.script("on-dm", "ls /sys/class/net >/dev/null; cat /proc/self/net/dev | wc -l >$OUT/deny")
    bob.script("on-message", "cat /proc/self/net/dev | wc -l >$OUT/allow")
    bob.manifest(on_dm={"network_policy": "deny"}, on_message={"network_policy": "allow"})
    bob.reload()
    send(alice, "x")
    bob.ran("on-dm")
    bob.ran("on-message")
    started = {line["network"]: line for line in bob.log("hook_fork_server_started")}
    here = len(Path("/proc/self/net/dev").read_text().splitlines())
    assert int(bob.told("allow")) == here
    if started.get("deny", {"network_namespace": True})["network_namespace"]:
        assert int(bob.told("deny")) == 3
    else:
        assert bob.metric("cm_daemon_hook_unenforceable_total").endswith("1.0")


def test_hooks_of_the_daemon_itself_run(alice: Host, bob: Host) -> None:
    """on-startup, on-disconnect and on-reconnect."""
    for name in ("on-startup", "on-disconnect", "on-reconnect"):
        bob.script(name, 'cat >"$OUT/$CLAUDEMESH_HOOK_NAME"')
    bob.manifest(**{"on-startup": {}, "on-disconnect": {}, "on-reconnect": {}})
    bob.daemon.stop()
    bob.daemon.start()
    bob.daemon.ready()
    bob.ran("on-startup")
    bob.ran("on-reconnect")
    assert json.loads(bob.told("on-startup"))["event"] == "on-startup"


def test_a_wrong_manifest_refuses_the_reload_and_changes_nothing(alice: Host, bob: Host) -> None:
    """The line names the key, the value and what is allowed; the hooks before it go on."""
    bob.script("on-dm", "touch $OUT/ran")
    bob.manifest(on_dm={})
    bob.reload()
    bob.manifest(on_dm={"timeout_s": -1})
    bob.reload()
    assert "[on-dm] timeout_s must be a number from 0.1 to 3600, not -1." in bob.health()["config"]["error"]
    send(alice, "x")
    bob.ran("on-dm")
    bob.manifest(on_dm={})
    bob.reload()
    assert bob.health()["config"]["error"] is None


def test_hook_executed_is_an_event_and_the_daemon_lists_the_last_ones(alice: Host, bob: Host) -> None:
    """The event names the hook, the event it ran on, and its outcome. The list has the newest run first."""
    import http.client

    from tests.support.processes import _SocketConnection

    bob.script("on-dm", "exit 7")
    bob.manifest(on_dm={})
    bob.reload()
    connection: http.client.HTTPConnection = _SocketConnection(bob.daemon.sock)
    connection.request("GET", "/v1/events")
    stream = connection.getresponse()
    send(alice, "x")
    lines: list[str] = []

    def is_told() -> bool:
        lines.append(stream.readline().decode().strip())
        return "event: hook_executed" in lines[-2:-1]

    until(is_told, "the event")
    connection.close()
    data = json.loads(lines[-1].removeprefix("data: "))
    assert (data["hook"], data["exit"], data["replied"]) == ("on-dm", 7, False)
    assert bob.daemon.request("GET", "/v1/hook_runs")[1]["items"][0] == data
