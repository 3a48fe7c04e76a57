"""Sends of hooks: replies, capability tokens, and the end of every loop (docs/spec/daemon.md, Hooks)."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.hooks.hooked import Host
from tests.support.processes import until

# A program that asks on the daemon's socket as a hook does; prints status and JSON.
ASK = """#!/usr/bin/env python3
import http.client, json, os, socket, sys
event = json.load(sys.stdin)
class Link(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["CLAUDEMESH_DAEMON_SOCK"])
def ask(method, path, body=None, token=os.environ.get("CLAUDEMESH_CAPABILITY_TOKEN")):
    link = Link("localhost")
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = "Bearer " + token
    link.request(method, path, json.dumps(body) if body else None, headers)
    answer = link.getresponse()
    return answer.status, json.loads(answer.read()).get("error")
out = open(%r, "w")
def note(*words):
    print(*words, file=out, flush=True)
"""


def asking(host: Host, name: str, program: str) -> None:
    """A hook in Python that may call ask(method, path, body, token) and note(…)."""
    path = host.folder / name
    path.write_text(ASK % str(host.out / name) + program)
    path.chmod(0o700)


def send(sender: Host, to: str, body: str, **fields: Any) -> None:
    """One message, accepted."""
    status, answer = sender.daemon.send(to, body, **fields)
    assert status in (200, 202), answer


def bodies(host: Host) -> list[str]:
    return [item["body"] for item in host.daemon.inbox()]


def test_a_reply_goes_where_the_message_came_from(alice: Host, bob: Host) -> None:
    """To the sender of a dm, to the topic of a post, tied to the message it answers."""
    bob.script("on-message", """echo '{"reply": "pong"}'""")
    bob.manifest(on_message={"allow_reply": True})
    bob.reload()
    alice.daemon.request("POST", "/v1/topic/create", {"topic": "games"})
    for host in (alice, bob):
        host.daemon.request("POST", "/v1/topic/subscribe", {"topic": "games"})
    send(alice, "bob", "ping", client_message_id="question")
    assert alice.daemon.post("games", "ping all", client_message_id="to-all")[0] == 202
    until(lambda: bodies(alice).count("pong") == 2, "both answers are here")
    asked = {alice.daemon.outbox()[name]["broker_message_id"]: name for name in ("question", "to-all")}
    answers = {asked[item["reply_to_id"]]: item for item in alice.daemon.inbox() if item["body"] == "pong"}
    assert (answers["question"]["kind"], answers["to-all"]["kind"]) == ("dm", "topic")
    assert all(line["replied"] for line in (bob.ran("on-message"), bob.ran("on-message", 2)))


def test_a_reply_needs_leave_success_and_its_form(alice: Host, bob: Host) -> None:
    """Without allow_reply, from a hook that failed, or in another form, nothing is sent."""
    bob.script("on-dm", """echo '{"reply": "not allowed"}'""")
    bob.script("on-message", """echo '{"reply": "failed"}'; exit 1""")
    bob.script("on-mention", "echo hello")
    bob.manifest(on_dm={}, on_message={"allow_reply": True}, on_mention={"allow_reply": True})
    bob.reload()
    before = set(bob.daemon.outbox())
    send(alice, "bob", "x", mentions=["bob"])
    for name in ("on-dm", "on-message", "on-mention"):
        assert bob.ran(name)["replied"] is False
    assert bob.log("hook_reply_refused")[0]["error"] == "allow_reply is false"
    until(bob.idle, "no hook is left to run")
    assert set(bob.daemon.outbox()) == before


def test_two_hosts_that_answer_each_other_come_to_an_end(alice: Host, bob: Host) -> None:
    """Each answer counts the answers that led to it: the fifth is not sent."""
    for host in (alice, bob):
        host.script("on-dm", """echo '{"reply": "again"}'""")
        host.manifest(on_dm={"allow_reply": True})
        host.reload()
    before = len(bodies(alice)) + len(bodies(bob))
    send(alice, "bob", "begin")
    until(lambda: alice.log("hook_reply_refused") + bob.log("hook_reply_refused"), "the loop has ended")
    until(lambda: alice.idle() and bob.idle(), "no send and no hook is left to run")
    [refused] = alice.log("hook_reply_refused") + bob.log("hook_reply_refused")
    assert refused["error"] == "hook_loop"
    assert len(bodies(alice)) + len(bodies(bob)) - before == 5


def test_a_token_allows_its_scopes_for_its_event_and_nothing_else(alice: Host, bob: Host) -> None:
    """Other members, other topics, other routes, no token: 403 each; nothing can be read."""
    asking(
        bob,
        "on-dm",
        """
me = {"to": event["sender_pubkey"], "message": "allowed"}
note(*ask("POST", "/v1/send", {**me, "reply_to_id": event["broker_message_id"]}))
note(*ask("POST", "/v1/send", me))
note(*ask("POST", "/v1/send", {**me, "reply_to_id": "01HQXW5Z3Y8C6T0V9R4N2M7K1P"}))
note(*ask("POST", "/v1/send", {"to": "bob", "message": "to another"}))
note(*ask("POST", "/v1/topic/post", {"topic": "all", "message": "to a topic"}))
note(*ask("GET", "/v1/inbox"))
note(*ask("GET", "/v1/health"))
note(*ask("GET", "/v1/inbox", token=None))
note(*ask("POST", "/v1/send", me, token=None))
note(*ask("POST", "/v1/send", me, token="cap_" + "x" * 43))
""",
    )
    bob.manifest(on_dm={"capability_token_scope": ["reply:event"]})
    bob.reload()
    send(alice, "bob", "go")
    line = bob.ran("on-dm")
    assert bob.told("on-dm").splitlines() == [
        "202 None",
        *["403 capability_scope"] * 6,
        *["403 capability_required"] * 2,
        "403 capability_ended",
    ]
    assert line["capability_calls"] == ["reply:event", *["denied"] * 4]
    assert 'scope="reply:event"} 1.0' in bob.metric("cm_daemon_hook_capability_calls_total")
    until(lambda: "allowed" in bodies(alice), "the one that was allowed has arrived")
    assert bodies(alice).count("allowed") == 1


def test_a_token_is_dead_when_its_hook_has_ended(alice: Host, bob: Host) -> None:
    """A program that kept it gets 403."""
    bob.script("on-dm", 'echo "$CLAUDEMESH_CAPABILITY_TOKEN" >$OUT/token')
    bob.manifest(on_dm={"capability_token_scope": ["dm:send:sender"]})
    bob.reload()
    send(alice, "bob", "go")
    bob.ran("on-dm")
    bearer = {"Authorization": f"Bearer {bob.told('token').strip()}"}
    body = {"to": "alice", "message": "late"}
    status, answer = bob.daemon.request("POST", "/v1/send", body, bearer)
    assert (status, answer["error"]) == (403, "capability_ended")
    assert bob.told("token").strip() not in bob.daemon.log.read_text()


def test_a_topic_scope_is_for_the_events_own_topic(alice: Host, bob: Host) -> None:
    """topic:NAME:post works in a hook of that topic, and in no other."""
    for topic in ("builds", "other"):
        alice.daemon.request("POST", "/v1/topic/create", {"topic": topic})
        bob.daemon.request("POST", "/v1/topic/subscribe", {"topic": topic})
    program = """
for topic in ("builds", "other"):
    note(*ask("POST", "/v1/topic/post", {"topic": topic, "message": "from a hook"}))
"""
    for name in ("on-topic-builds", "on-topic-other"):
        asking(bob, name, program)
    scope = {"capability_token_scope": ["topic:builds:post"]}
    bob.manifest(**{"on-topic-builds": scope, "on-topic-other": scope})
    bob.reload()
    alice.daemon.post("builds", "one")
    alice.daemon.post("other", "two")
    bob.ran("on-topic-builds")
    bob.ran("on-topic-other")
    assert bob.told("on-topic-builds").splitlines() == ["202 None", "403 capability_scope"]
    assert bob.told("on-topic-other").splitlines() == ["403 capability_scope", "403 capability_scope"]


def test_the_command_line_and_the_sdk_work_inside_a_hook(alice: Host, bob: Host) -> None:
    """Both find the daemon and bear the token by themselves."""
    import sys

    from tests.support.processes import REPOSITORY

    python = f"PYTHONPATH={REPOSITORY} {sys.executable}"
    bob.script(
        "on-dm",
        f"""{python} -m claudemesh send alice 'by the command line' >$OUT/cli 2>&1
{python} -m claudemesh inbox >>$OUT/cli 2>&1
{python} -c "from claudemesh import Daemon; Daemon().send('alice', 'by the sdk')" >$OUT/sdk 2>&1""",
    )
    bob.manifest(on_dm={"capability_token_scope": ["dm:send:sender"]})
    bob.reload()
    send(alice, "bob", "go")
    bob.ran("on-dm")
    assert bob.told("cli").startswith("queued ") and "sends and posts only" in bob.told("cli")
    assert bob.told("sdk") == ""
    until(lambda: {"by the command line", "by the sdk"} <= set(bodies(alice)), "both have arrived")


def test_pre_send_may_change_or_refuse_and_fails_closed(alice: Host, bob: Host) -> None:
    """Exit 10 refuses, JSON changes, anything else sends nothing; no row, and the id is free."""
    alice.script(
        "pre-send",
        """input=$(cat)
case "$input" in
  *secret*) echo '{"reason": "it holds a secret"}'; exit 10;;
  *crash*) exit 3;;
  *nonsense*) echo '{"to": "somebody else"}';;
  *shout*) echo '{"message": "SHOUTED", "meta": {"by": "hook"}, "priority": "now"}';;
esac""",
    )
    alice.manifest(**{"pre-send": {}})
    alice.reload()
    status, answer = alice.daemon.send("bob", "a secret", client_message_id="one")
    assert (status, answer["error"]) == (403, "refused_by_hook")
    assert "it holds a secret" in answer["message"] and answer["client_message_id"] == "one"
    for text in ("crash", "nonsense"):
        status, answer = alice.daemon.send("bob", text, client_message_id="one")
        assert (status, answer["error"]) == (503, "hook_failed"), answer
    assert alice.daemon.send("bob", "shout", client_message_id="one")[0] == 202
    until(lambda: "SHOUTED" in bodies(bob), "the changed message has arrived")
    [item] = [item for item in bob.daemon.inbox() if item["body"] == "SHOUTED"]
    assert (item["meta"], item["priority"]) == ({"by": "hook"}, "now")
    assert alice.daemon.send("bob", "left alone", client_message_id="two")[0] == 202
    until(lambda: "left alone" in bodies(bob), "so has the other")


def test_a_retry_asks_pre_send_no_second_time(alice: Host, bob: Host) -> None:
    """The fingerprint covers what the caller asked for: the same send matches, another does not."""
    alice.script("pre-send", """echo x >>$OUT/asked; echo '{"message": "changed"}'""")
    alice.manifest(**{"pre-send": {}})
    alice.reload()
    for _ in range(3):
        assert alice.daemon.send("bob", "as asked", client_message_id="retried")[0] in (200, 202)
    status, answer = alice.daemon.send("bob", "changed", client_message_id="retried")
    assert status == 409 and answer["conflict"].endswith("fingerprint_mismatch")
    assert alice.told("asked") == "x\n"
    alice.script("pre-send", "exit 10")
    assert alice.daemon.send("bob", "as asked", client_message_id="retried")[0] in (200, 202)


def test_sends_that_would_be_refused_anyway_ask_nobody(alice: Host, bob: Host) -> None:
    """An unknown name: 404, and pre-send is not run."""
    alice.script("pre-send", "touch $OUT/asked")
    alice.manifest(**{"pre-send": {}})
    alice.reload()
    assert alice.daemon.send("nobody", "x")[0] == 404
    assert not (alice.out / "asked").exists()


def test_answers_of_hooks_pass_pre_send_too(alice: Host, bob: Host) -> None:
    """Every send that leaves the host passes it, also one of a hook."""
    bob.script("on-dm", """echo '{"reply": "a secret"}'""")
    bob.script("pre-send", "grep -q secret && exit 10; exit 0")
    bob.manifest(on_dm={"allow_reply": True}, **{"pre-send": {}})
    bob.reload()
    before = set(bob.daemon.outbox())
    send(alice, "bob", "x")
    assert bob.ran("on-dm")["replied"] is False
    assert bob.log("hook_reply_refused")[0]["error"] == "refused_by_hook"
    until(bob.idle, "no hook is left to run")
    assert set(bob.daemon.outbox()) == before


def test_the_hooks_command_lists_and_checks(alice: Host, bob: Host) -> None:
    """A table for people, JSON for programs, exit 78 when one cannot run."""
    from tests.support.cli import run

    bob.script("on-dm.sh", "exit 0")
    bob.manifest(on_dm={"allow_reply": True, "timeout_s": 5}, on_message={}, on_mention={"enabled": False})
    ran = run(bob.daemon.home, "daemon", "hooks", "--json")
    found = {item["hook"]: item for item in json.loads(ran.out)["items"]}
    assert ran.code == 78
    assert {name: item["state"] for name, item in found.items()} == {
        "on-dm": "ready",
        "on-message": "cannot run",
        "on-mention": "off",
    }
    assert found["on-dm"]["file"].endswith("hooks/on-dm.sh")
    assert "there is no file" in found["on-message"]["problem"]
    plain = run(bob.daemon.home, "daemon", "hooks")
    assert plain.out.splitlines()[1].split("\t")[:4] == ["on-dm", "ready", "5 s", "reply"]
    assert "on-message: there is no file" in plain.err
