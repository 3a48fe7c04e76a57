"""Looking at a daemon, finding out what is wrong, and talking in scripts: with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit import wait_done, wait_received
from tests.support.cli import Ran, run
from tests.support.processes import REPOSITORY, Daemon, Mesh, mesh, until

LIMIT_S = 120
OK, USAGE, UNAVAILABLE, TEMPORARY, CONFIGURATION = 0, 64, 69, 75, 78


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    """A broker, alice and bob, running."""
    with mesh("alice", "bob") as made:
        yield made


def homes(pair: Mesh) -> tuple[Path, Path]:
    """Where alice and bob live."""
    return pair.daemons["alice"].home, pair.daemons["bob"].home


@contextmanager
def begin(home: Path, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
    """A command that goes on by itself, ended at the end."""
    environment = {**os.environ, "CLAUDEMESH_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "claudemesh", *arguments]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        # A command that should have printed something and does not must not keep the tests for ever.
        limit = threading.Timer(LIMIT_S, process.kill)
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            process.kill()


def findings(done: Ran) -> dict[str, Any]:
    """The doctor's findings by what was looked at."""
    return {item["check"]: item for item in done.json["items"]}


def test_ps_lists_daemons_that_run_and_that_do_not(pair: Mesh) -> None:
    """By asking them, not by their pid files."""
    alice, _ = homes(pair)
    shutil.copytree(alice / "daemon/demo", alice / "daemon/other", ignore=shutil.ignore_patterns("sock"))
    try:
        items = {item["mesh"]: item for item in run(alice, "daemon", "ps", "--json").json["items"]}
    finally:
        shutil.rmtree(alice / "daemon/other")
    assert (items["demo"]["state"], items["demo"]["link"]) == ("up", "up")
    assert (items["other"]["state"], items["other"]["pid"]) == ("down", None)


def test_metrics_are_printed_as_they_are_or_as_json(pair: Mesh) -> None:
    """Prometheus' text, or a number for each sample."""
    alice, _ = homes(pair)
    assert "# TYPE cm_daemon_connected gauge" in run(alice, "daemon", "metrics").out
    assert run(alice, "daemon", "metrics", "--json").json["cm_daemon_connected"] == 1


def test_logs_show_the_end_and_follow_over_a_rotation() -> None:
    """For people: a line for each event. Nothing is lost when the file is moved away."""
    with mesh("alice") as made:
        daemon = made.daemons["alice"]
        assert daemon.stop() == OK
        assert run(daemon.home, "logs").code == CONFIGURATION
        assert run(daemon.home, "daemon", "up", "-d").code == OK
        try:
            assert "daemon_started  mesh=demo" in run(daemon.home, "logs").out
            assert json.loads(run(daemon.home, "logs", "-n", "1", "--json").out)["event"]
            assert run(daemon.home, "logs", "-n", "0").out == ""
            log = daemon.root / "daemon.log"
            with begin(daemon.home, "logs", "-f", "-n", "0") as following:
                with log.open("ab") as file:
                    until(lambda: write(file, {"event": "first"}) and readable(following), "it follows")
                log.rename(log.with_suffix(".log.1"))
                log.write_bytes(json.dumps({"event": "second"}).encode() + b"\n")
                assert following.stdout is not None
                assert any(b"second" in line for line in following.stdout)
        finally:
            assert run(daemon.home, "daemon", "down").code == OK


def write(file: Any, event: dict[str, str]) -> bool:
    """Append a log line."""
    file.write(json.dumps(event).encode() + b"\n")
    file.flush()
    return True


def readable(process: subprocess.Popen[bytes]) -> bool:
    """Whether its output has something to read."""
    import select

    return bool(select.select([process.stdout], [], [], 0.2)[0])


def test_paths_name_every_file(pair: Mesh) -> None:
    """Those that are not there too."""
    alice, _ = homes(pair)
    found = run(alice, "paths", "--json").json
    assert Path(found["sock"]).is_socket()
    assert "(not there)" in run(alice, "paths").out


def test_wait_for_the_link_a_peer_and_a_message(pair: Mesh) -> None:
    """Exit 0 when it is so, 75 when the time is up, 64 for nonsense."""
    alice, bob = homes(pair)
    assert run(alice, "wait", "--for", "online").code == OK
    assert run(alice, "wait", "--for", "peer=@Bob").code == OK
    assert run(alice, "wait", "--for", "peer=nobody", "--timeout", "1s").code == TEMPORARY
    run(alice, "send", "bob", "wait for me", "--id", "waited")
    assert run(alice, "wait", "--for", "message=waited").code == OK
    assert run(bob, "wait", "--for", "message=waited").code == OK
    assert run(alice, "wait", "--for", "rain").code == USAGE
    assert run(alice, "wait", "--for", "peer=").code == USAGE


def test_wait_for_a_daemon_that_is_only_starting() -> None:
    """A script may start it and wait at once."""
    with mesh("alice", start=False) as made:
        daemon = made.daemons["alice"]
        with begin(daemon.home, "wait", "--for", "online", "--timeout", "30s") as waiting:
            daemon.start()
            assert waiting.wait(30) == OK


def test_the_inbox_shows_the_newest_and_says_that_there_are_earlier_ones() -> None:
    """The last one last; the number in front is what `reply` takes."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        sent = [alice.send("bob", f"text {number}")[1]["client_message_id"] for number in range(5)]
        wait_received(bob, sent)
        shown = run(bob.home, "inbox", "-n", "2")
        assert [line.split()[-1] for line in shown.out.splitlines()] == ["3", "4"]
        assert "earlier ones than these 2" in shown.err
        assert run(bob.home, "inbox", "-n", "5").err == ""
        seq = shown.out.split()[0]
        answer = run(bob.home, "reply", seq, "got it", "--json").json["client_message_id"]
        wait_received(alice, [answer])
        (received,) = alice.inbox()
        assert received["reply_to_id"] == bob.inbox()[int(seq) - 1]["broker_message_id"]


def test_following_the_inbox_misses_nothing_and_repeats_nothing() -> None:
    """Messages pour in while it starts; filters hold for what follows, too."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.cli(bob, "topic", "create", "deploys")
        made.cli(bob, "topic", "subscribe", "deploys")
        count = 200

        def pour() -> None:
            for number in range(count):
                alice.send("bob", "not this") if number % 3 else alice.post("deploys", f"{number}")

        with (
            begin(bob.home, "inbox", "-f", "--json", "--topic", "#deploys", "--from", "@Alice") as following,
            ThreadPoolExecutor() as pool,
        ):
            done = pool.submit(pour)
            assert following.stdout is not None
            wanted = [str(number) for number in range(0, count, 3)]
            assert [json.loads(following.stdout.readline())["body"] for _ in wanted] == wanted
            done.result()


def test_listen_prints_each_message_once_over_a_restart() -> None:
    """A JSON line each; the daemon may go and come."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        with begin(bob.home, "listen", "--since", "0") as listening:
            assert listening.stdout is not None
            alice.send("bob", "one")
            assert json.loads(listening.stdout.readline())["body"] == "one"
            bob.kill()
            alice.send("bob", "two")
            bob.start()
            bob.ready()
            alice.send("bob", "three")
            assert [json.loads(listening.stdout.readline())["body"] for _ in range(2)] == ["two", "three"]


def is_followed(daemon: Daemon) -> bool:
    """Whether somebody follows the event stream, and so has been told its position."""
    with closing(daemon.connection()) as connection:
        connection.request("GET", "/v1/metrics")
        return "\ncm_daemon_event_streams 1" in connection.getresponse().read().decode()


def is_connected(pid: int) -> bool:
    """Whether a process has a connected unix socket."""
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    connected = {f"socket:[{words[6]}]" for words in lines if words[5] == "03"}
    return any(os.readlink(descriptor) in connected for descriptor in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.parametrize("command", [["listen"], ["inbox", "-f", "--json"], ["events", "--json"]])
def test_a_follower_whose_daemon_restarts_before_its_first_line_misses_nothing(command: list[str]) -> None:
    """It has a position from the first moment on."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        with begin(bob.home, *command) as follower:
            until(lambda: is_followed(bob), "the stream is open")
            bob.kill()
            alice.send("bob", "while it was away")
            bob.start()
            bob.ready()
            wait_received(bob, [item["client_message_id"] for item in alice.outbox().values()])
            alice.send("bob", "and after")
            assert follower.stdout is not None
            lines = (json.loads(line) for line in follower.stdout)
            items = (line.get("data", line) for line in lines if line.get("event", "message") == "message")
            assert [next(items)["body"] for _ in range(2)] == ["while it was away", "and after"]


def test_listen_acknowledges_what_it_has_written(pair: Mesh) -> None:
    """Started again, it goes on with the first message that it has not written."""
    _, bob = homes(pair)
    run(bob, "listen", "--ack", "--timeout", "1s")
    for text in ("one", "two", "three"):
        sent = run(homes(pair)[0], "send", "bob", text, "--json").json["client_message_id"]
        wait_received(pair.daemons["bob"], [sent])
    assert run(bob, "listen", "--ack", "--one").json["body"] == "one"
    assert run(bob, "listen", "--since", "unread", "--one").json["body"] == "two"
    lines = run(bob, "listen", "--ack", "--timeout", "2s").out.splitlines()
    assert [json.loads(line)["body"] for line in lines] == ["two", "three"]
    assert run(bob, "inbox", "--unread").out == ""


def test_listen_for_one_message_ends_with_75_when_none_comes(pair: Mesh) -> None:
    """The error says so; a duration that is none is refused."""
    _, bob = homes(pair)
    done = run(bob, "listen", "--one", "--timeout", "1s")
    assert (done.code, done.out) == (TEMPORARY, "")
    assert "within 1 s" in done.err
    assert run(bob, "listen", "--one", "--timeout", "soon").code == USAGE
    assert run(bob, "listen", "--since", "soon").code == USAGE


@pytest.mark.parametrize(
    "command",
    [
        ["listen"],
        ["inbox", "-f"],
        ["events"],
        ["request", "bob", "are you there?"],
        ["send", "bob", "are you there?", "--wait", "30000"],
        ["wait", "--for", "peer=bob"],
    ],
    ids=lambda command: command[0],
)
def test_an_interrupted_command_ends_silently_with_130(command: list[str]) -> None:
    """As the shell says it of Ctrl-C: no traceback, and nothing that asks for another try."""
    with mesh("alice", "bob", start=False) as made:
        alice = made.daemons["alice"]
        alice.start()
        alice.ready()
        made.broker.kill()
        until(lambda: not alice.request("GET", "/v1/health")[1]["connected"], "the link is down")
        with begin(alice.home, *command) as process:
            until(lambda: is_connected(process.pid), "the command asks its daemon")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize(
    "command", [["listen", "--since", "0"], ["inbox", "-f"], ["events", "--since", "0"]], ids=lambda c: c[0]
)
def test_a_follower_ends_when_its_reader_has_gone(pair: Mesh, command: list[str]) -> None:
    """As in `| head -1`: at once, although nothing more is written, with exit 0 and without a word."""
    alice, bob = homes(pair)
    sent = run(alice, "send", "bob", "one line", "--json").json["client_message_id"]
    wait_received(pair.daemons["bob"], [sent])
    with begin(bob, *command) as follower:
        assert follower.stdout is not None and follower.stderr is not None
        assert follower.stdout.readline()
        follower.stdout.close()
        assert (follower.wait(30), follower.stderr.read()) == (OK, b"")


def test_a_listing_ends_well_when_its_reader_has_gone(pair: Mesh) -> None:
    """Exit 0 and no word, whenever the pipe breaks."""
    alice, bob = homes(pair)
    for number in range(3):
        sent = run(alice, "send", "bob", f"{number} " + "x" * 100_000, "--json").json["client_message_id"]
        wait_received(pair.daemons["bob"], [sent])
    for command in (["inbox"], ["inbox", "--json"], ["daemon", "metrics"], ["--help"]):
        with begin(bob, *command) as listing:
            assert listing.stdout is not None and listing.stderr is not None
            listing.stdout.close()
            assert (listing.wait(30), listing.stderr.read()) == (OK, b""), command


def test_request_waits_for_a_daemon_that_restarts() -> None:
    """It goes on from its position; that no answer came is said only when the time is up."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        with begin(alice.home, "request", "bob", "may I deploy?", "--timeout", "60s") as asking:
            question = until(lambda: next(iter(bob.inbox()), None), "the question has arrived")
            alice.kill()
            fields = {"reply_to_id": question["broker_message_id"]}
            assert bob.send("alice", "go ahead", **fields)[0] == 202
            wait_done(bob, [item["client_message_id"] for item in bob.outbox().values()])
            alice.start()
            out, _ = asking.communicate(timeout=60)
            assert (asking.returncode, out) == (OK, b"go ahead\n")


def test_only_the_one_that_was_asked_can_answer() -> None:
    """Another member that names the question's id does not speak for it."""
    with mesh("alice", "bob", "carol") as made:
        alice, bob, carol = made.daemons.values()
        with begin(alice.home, "request", "bob", "may I deploy?", "--timeout", "60s") as asking:
            question = until(lambda: next(iter(bob.inbox()), None), "the question has arrived")
            fields = {"reply_to_id": question["broker_message_id"]}
            sent = carol.send("alice", "yes, says carol", **fields)[1]["client_message_id"]
            wait_received(alice, [sent])
            bob.send("alice", "no", **fields)
            assert asking.communicate(timeout=60)[0] == b"no\n"


def test_request_prints_the_reply(pair: Mesh) -> None:
    """bob answers by the id of what came in; alice's command prints only that answer."""
    alice, bob = homes(pair)

    def question() -> Any:
        items = run(bob, "inbox", "--json").json["items"]
        return next((item for item in items if item["body"] == "may I deploy?"), None)

    with begin(alice, "request", "bob", "may I deploy?", "--timeout", "30s") as asking:
        found = until(question, "the question has arrived")
        run(bob, "send", "alice", "something else")
        assert run(bob, "reply", found["broker_message_id"], "go ahead\n").code == OK
        out, err = asking.communicate(timeout=30)
        assert (asking.returncode, out) == (OK, b"go ahead\n"), err
    assert run(bob, "reply", "no-such-id", "x").code == USAGE
    assert run(alice, "request", "bob", "anybody?", "--timeout", "1s").code == TEMPORARY


def test_a_reply_to_a_post_goes_to_its_topic(pair: Mesh) -> None:
    """Where the conversation is."""
    alice, bob = homes(pair)
    sent = run(alice, "send", "#all", "a post", "--json").json["client_message_id"]
    wait_received(pair.daemons["bob"], [sent])
    answer = run(bob, "reply", sent, "an answer", "--json").json["client_message_id"]
    wait_done(pair.daemons["bob"], [answer])
    wait_received(pair.daemons["alice"], [answer])
    last = run(alice, "inbox", "--topic", "all", "--json").json["items"][-1]
    assert (last["body"], bool(last["reply_to_id"])) == ("an answer", True)


def test_ping_tells_who_is_here(pair: Mesh) -> None:
    """Exit 69 for one that is not, 64 for one that does not exist."""
    alice, _ = homes(pair)
    assert "bob: here" in run(alice, "ping", "bob").out
    assert run(alice, "ping", "nobody").code == USAGE


def test_the_doctor_finds_nothing_in_a_healthy_peer(pair: Mesh) -> None:
    """Exit 0, and every check says what it looked at."""
    alice, _ = homes(pair)
    done = run(alice, "doctor", "--json")
    assert {item["state"] for item in done.json["items"]} == {"ok"}
    assert done.code == OK
    checked = {"home", "keys", "config.toml", "disk", "daemon", "link", "clock", "broker"}
    assert checked <= findings(done).keys()


def test_the_doctor_names_what_is_wrong_and_what_to_do() -> None:
    """Modes, settings, a stale socket, a damaged database, a broker that is away."""
    with mesh("alice") as made:
        daemon = made.daemons["alice"]
        made.broker.kill()
        until(lambda: not daemon.request("GET", "/v1/health")[1]["connected"], "the link is down")
        running = findings(run(daemon.home, "doctor", "--json"))
        assert (running["link"]["state"], running["broker"]["state"]) == ("failed", "failed")
        daemon.kill()
        (daemon.root / "keypair.json").chmod(0o644)
        (daemon.root / "config.toml").write_text("[daemon]\nlog_level = 7\n")
        (daemon.root / "outbox.db-wal").unlink()
        (daemon.root / "outbox.db").write_bytes(b"no database" * 1000)
        done = run(daemon.home, "doctor", "--json")
        assert done.code == UNAVAILABLE
        found = findings(done)
        assert "chmod 600" in found["keys"]["remedy"]
        assert "log_level" in found["config.toml"]["detail"]
        assert "socket is left" in found["daemon"]["detail"]
        assert found["outbox.db"]["state"] == "failed"
        assert found["inbox.db"]["state"] == "ok"
        assert "FAILED   keys" in run(daemon.home, "doctor").out
    with mesh(start=False) as made:
        assert run(made.root / "nowhere", "doctor").code == UNAVAILABLE


def test_a_bug_report_holds_no_secret(pair: Mesh) -> None:
    """Keys, tokens and bodies stay here."""
    alice, _ = homes(pair)
    run(alice, "send", "bob", "canary-body")
    daemon = pair.daemons["alice"]
    shutil.copy(daemon.log, daemon.root / "daemon.log")
    text = run(alice, "bugreport").out
    assert json.loads(text)["health"]["mesh"] == "demo"
    assert "canary-body" not in text
    keys = json.loads((daemon.root / "keypair.json").read_text())
    secrets = [value for name, value in keys.items() if "priv" in name or "seed" in name]
    assert secrets
    assert not any(secret in text for secret in secrets)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(pair: Mesh, shell: str) -> None:
    """A script for each shell."""
    alice, _ = homes(pair)
    assert "_CLAUDEMESH_COMPLETE" in run(alice, "completion", shell).out


def test_completion_knows_commands_and_members(pair: Mesh) -> None:
    """What the shell asks for when TAB is pressed."""
    alice, _ = homes(pair)
    asked = {"_CLAUDEMESH_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    assert "plain,daemon" in run(alice, COMP_WORDS="claudemesh da", **asked).out
    assert "plain,bob" in run(alice, COMP_WORDS="claudemesh send b", **asked | {"COMP_CWORD": "2"}).out


def test_restart_comes_back_with_what_was_queued() -> None:
    """With its broker, when that was inside."""
    with mesh("alice") as made:
        daemon = made.daemons["alice"]
        daemon.stop()
        made.broker.kill()
        assert run(daemon.home, "daemon", "up", "-d").code == OK
        try:
            before = daemon.request("GET", "/v1/health")[1]["pid"]
            assert daemon.send("alice", "kept", client_message_id="kept")[0] == 202
            assert run(daemon.home, "daemon", "restart").code == OK
            assert daemon.request("GET", "/v1/health")[1]["pid"] != before
            assert daemon.outbox()["kept"]["status"] == "pending"
        finally:
            run(daemon.home, "daemon", "down")


def test_restart_after_a_crash_brings_the_broker_back_with_the_daemon() -> None:
    """The options of the last start are kept; a start without the option forgets it."""
    with mesh("alice", start=False) as made:
        daemon = made.daemons["alice"]
        home = daemon.home
        assert made.broker.stop() == OK
        shutil.move(made.broker.data, home / "broker")
        assert run(home, "daemon", "up", "-d", "--with-broker").code == OK
        try:
            health = daemon.request("GET", "/v1/health")[1]
            assert health["with_broker"]
            os.kill(health["pid"], signal.SIGKILL)
            until(lambda: run(home, "status").code == UNAVAILABLE, "it is gone")
            assert run(home, "daemon", "restart").code == OK
            assert daemon.request("GET", "/v1/health")[1]["with_broker"]
            assert run(home, "daemon", "down").code == OK
            assert run(home, "daemon", "up", "-d").code == OK
            assert run(home, "daemon", "restart").code == OK
            assert not daemon.request("GET", "/v1/health")[1]["with_broker"]
        finally:
            run(home, "daemon", "down")
