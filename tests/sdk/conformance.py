"""The runner of the conformance suite: steps of `cases.json`, a driver program, and the hosts around it.

The driver is a program on bob's host. Alice is its counterpart, through the plain local API. `{tag}` in a
case is a text of its own, so that the cases share a mesh.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tests.support.processes import Daemon, Mesh, until

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "cases.json").read_text())
_LONG = "0123456789abcdé" * (256 * 1024 // 16)


class Driver:
    """A running driver program, its calls and what it has answered."""

    def __init__(self, command: list[str], environment: Mapping[str, str], errors: Path) -> None:
        self._errors = errors
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
        with errors.open("wb") as stderr:
            self._popen = subprocess.Popen(
                command,
                env={**kept, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.answers: dict[int, list[dict[str, Any]]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            # A driver that is killed leaves a part of a line.
            if not line.endswith("\n"):
                return
            answer = json.loads(line)
            self.answers.setdefault(answer["id"], []).append(answer)

    def begin(self, number: int, call: str, given: Mapping[str, Any]) -> None:
        """Have it make a call."""
        assert self._popen.stdin is not None
        print(json.dumps({"id": number, "call": call, "with": given}), file=self._popen.stdin, flush=True)

    def look(self, number: int, key: str) -> list[Any]:
        """Return the answers to a call so far that have a key."""
        if self._popen.poll() is not None:
            raise AssertionError(f"the driver has ended: {self._errors.read_text()[-3000:]}")
        return [answer[key] for answer in list(self.answers.get(number, ())) if key in answer]

    def finish(self, number: int) -> dict[str, Any]:
        """Wait for the last answer to a call: `result` or `error`."""

        def last() -> dict[str, Any] | None:
            for key in ("result", "error"):
                for found in self.look(number, key):
                    return {key: found}
            return None

        answer: dict[str, Any] = until(last, f"call {number} is answered")
        return answer

    def close(self) -> None:
        """End it."""
        self._popen.kill()
        self._popen.wait()
        self._reader.join()
        for stream in (self._popen.stdin, self._popen.stdout):
            assert stream is not None
            stream.close()


class Answers:
    """The answers of a driver that has ended, as of a hook."""

    def __init__(self, text: str) -> None:
        self._answers = [json.loads(line) for line in text.splitlines()]

    def begin(self, number: int, call: str, given: Mapping[str, Any]) -> None:
        """The call was made before."""

    def finish(self, number: int) -> dict[str, Any]:
        """Return the last answer to a call."""
        [answer] = [answer for answer in self._answers if answer["id"] == number]
        return answer

    def look(self, number: int, key: str) -> list[Any]:
        """Return the answers to a call that have a key."""
        return [answer[key] for answer in self._answers if answer["id"] == number and key in answer]


def brief(*values: Any) -> str:
    """Return values as a short text for a failure."""
    return " ".join(
        text if len(text) < 1500 else f"{text[:1000]} … {text[-400:]}" for text in map(str, values)
    )


def matches(found: Any, wanted: Any) -> bool:
    """Whether a value has what is wanted: of objects the named fields, `any` for anything but null."""
    if wanted == {"any": True}:
        return found is not None
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(matches(found.get(key), each) for key, each in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(matches(one, each) for one, each in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


class Run:
    """One case: its tag, the values that its steps have named, and the steps."""

    def __init__(
        self, made: Mesh, driver: Driver | Answers, tag: str, folder: Path, stack: ExitStack
    ) -> None:
        self._mesh, self._driver, self._tag, self._folder = made, driver, tag, folder
        self._stack = stack
        self.alice, self.bob = made.daemons["alice"], made.daemons["bob"]
        self._named: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        self._sent: dict[str, str] = {}
        self.calls = 0

    def fill(self, value: Any) -> Any:
        """Put the case's own values into a step."""
        if isinstance(value, dict):
            return {key: self.fill(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.fill(each) for each in value]
        if not isinstance(value, str):
            return value
        if value.startswith("$"):
            name, _, key = value[1:].partition(".")
            return self._named[name][key]
        spelled = (
            value.replace("{tag}", self._tag)
            .replace("{256 KiB}", _LONG)
            .replace("{2 MiB}", _LONG * 8)
            .replace("{32 KiB}", _LONG[: 30 << 10])
        )
        return spelled.replace("{folder}", str(self._folder))

    def do(self, step: dict[str, Any]) -> None:
        """Take one step; fails with the step when its outcome is another one."""
        filled = self.fill(step)
        for key in filled:
            if key in STEPS:
                STEPS[key](self, filled[key], filled)
                return
        raise AssertionError(f"no such step: {step}")

    def _mine(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [item for item in items if (item.get("body") or "").startswith(self._tag)]

    def _begin(self, call: str, step: dict[str, Any]) -> int:
        self.calls += 1
        self._driver.begin(self.calls, call, step["with"])
        if "as" in step:
            self._numbers[step["as"]] = self.calls
        return self.calls

    def call(self, call: str, step: dict[str, Any]) -> None:
        """Make a call and compare its outcome. With `times` it is made until it fails."""
        for _ in range(step.get("times", 1)):
            number = self._begin(call, step)
            answer = self._driver.finish(number)
            if "error" in answer:
                break
        self._compare(answer, step)
        if "bodies" in step:
            found = [item["body"] for item in self._mine(answer["result"]["items"])]
            assert found == step["bodies"], brief(step, found)
        if "newest" in step:
            assert matches(answer["result"][0], step["newest"]), brief(step, answer["result"][0])
        if "names" in step:
            assert [peer["name"] for peer in answer["result"]] == step["names"]

    def _compare(self, answer: dict[str, Any], step: dict[str, Any]) -> None:
        assert ("error" in answer) is ("error" in step), brief(step, answer)
        if "error" in step:
            wanted = dict(step["error"])
            said = wanted.pop("says", "")
            assert matches(answer["error"], wanted), brief(step, answer)
            assert said in answer["error"]["says"], brief(step, answer)
            return
        assert matches(answer["result"], step.get("expect", {})) or not step.get("expect"), brief(
            step, answer
        )
        if "as" in step:
            self._named[step["as"]] = answer["result"]

    def start(self, call: str, step: dict[str, Any]) -> None:
        """Begin a call that goes on."""
        self._begin(call, step)

    def finish(self, name: str, step: dict[str, Any]) -> None:
        """Wait for the end of a call that was begun."""
        self._compare(self._driver.finish(self._numbers[name]), {**step, "as": name})

    def cancel(self, name: str, _: dict[str, Any]) -> None:
        """Cancel a call."""
        self.calls += 1
        self._driver.begin(self.calls, "cancel", {"of": self._numbers[name]})

    def progress(self, name: str, step: dict[str, Any]) -> None:
        """Wait until a long call has come so far."""
        number = self._numbers[name]
        until(lambda: len(self._driver.look(number, "progress")) >= step["at_least"], f"{name} goes on")

    def items(self, name: str, step: dict[str, Any]) -> None:
        """Wait for the messages of a stream: these, in this order, each once."""
        number = self._numbers[name]
        wanted = step.get("bodies", step.get("whole"))

        def found() -> list[dict[str, Any]]:
            return self._mine(self._driver.look(number, "item"))

        until(lambda: len(found()) >= len(wanted), f"the stream has {len(wanted)} messages")
        bodies = [item["body"] for item in found()]
        if "whole" in step:
            for index, item in enumerate(found()):
                if item["body_truncated"]:
                    self.calls += 1
                    self._driver.begin(self.calls, "whole", {"body": item["body"]})
                    bodies[index] = self._driver.finish(self.calls)["result"]["body"]
        if bodies != wanted:
            raise AssertionError(brief(bodies, "is not", wanted))

    def following(self, count: int, _: dict[str, Any]) -> None:
        """Wait until bob's daemon serves so many streams."""
        until(lambda: streams(self.bob) == count, f"{count} streams are open")

    def from_alice(self, what: dict[str, Any], _: dict[str, Any]) -> None:
        """Send from alice; when bob's daemon runs, wait until it has them."""
        for text in what["texts"]:
            status, answer = self.alice.send(what["to"], text)
            assert status in (200, 202), answer
            self._sent[text] = answer["client_message_id"]
        ids = {self._sent[text] for text in what["texts"]}
        if self.bob.running:
            until(
                lambda: ids <= {item["client_message_id"] for item in self.bob.inbox()},
                "bob's daemon has what alice has sent",
            )

    def _alice_has(self) -> list[dict[str, Any]]:
        return self._mine([whole(self.alice, item) for item in self.alice.inbox()])

    def arrived(self, bodies: list[str], step: dict[str, Any]) -> None:
        """Wait until alice has exactly these messages of the case, each once."""
        until(lambda: len(self._alice_has()) >= len(bodies), f"alice has {len(bodies)} messages")
        self._settle()
        found = self._alice_has()
        if [item["body"] for item in found] != bodies:
            raise AssertionError(brief([item["body"] for item in found], "is not", bodies))
        if "reply_to" in step:
            sent = self.alice.request("GET", f"/v1/outbox/{self._sent[step['reply_to']]}")[1]
            assert found[-1]["reply_to_id"] == sent["broker_message_id"]

    def arrived_count(self, count: int, _: dict[str, Any]) -> None:
        """Wait until alice has each of the numbered messages, each once."""
        until(lambda: len(self._alice_has()) >= count, f"alice has {count} messages")
        self._settle()
        wanted = [f"{self._tag} {number}" for number in range(count)]
        assert sorted(item["body"] for item in self._alice_has()) == sorted(wanted)

    def _settle(self) -> None:
        """Wait until no send of bob is on its way. A second copy would have arrived by then."""
        self.bob.send("alice", "the last one", client_message_id=f"{self._tag}-last")
        row = f"/v1/outbox/{self._tag}-last?wait_for=delivered&wait_ms=10000"
        until(lambda: self.bob.request("GET", row)[1].get("status") == "done", "bob's sends are done")
        until(
            lambda: any(item["client_message_id"] == f"{self._tag}-last" for item in self.alice.inbox()),
            "alice has the last one",
        )

    def alice_answers(self, question: str, step: dict[str, Any]) -> None:
        """Have alice reply to a message once she has it. Of a long one she has the beginning."""

        def is_it(item: dict[str, Any]) -> bool:
            return item["body"] == question or (
                item["body_truncated"] and question.startswith(item["body"][:1000])
            )

        def find() -> dict[str, Any] | None:
            return next((item for item in self._alice_has() if is_it(item)), None)

        found = until(find, "alice has the question")
        self.alice.send("bob", step["text"], reply_to_id=found["broker_message_id"])

    def alice_subscribes(self, topic: str, _: dict[str, Any]) -> None:
        """Subscribe alice to a topic that bob's program has made."""
        assert self.alice.request("POST", "/v1/topic/subscribe", {"topic": topic})[0] == 200

    def announced(self, file_id: str, _: dict[str, Any]) -> None:
        """Wait until bob's daemon knows of a file that was sent to it."""

        def known() -> bool:
            items = self.bob.request("GET", "/v1/file/list?direction=in")[1]["items"]
            return file_id in [item["file_id"] for item in items]

        until(known, "the file is announced")

    def shared(self, file_id: str, _: dict[str, Any]) -> None:
        """Wait until the broker has a file that bob shares, and its message has left."""

        def done() -> bool:
            items = self.bob.request("GET", "/v1/file/list?direction=out")[1]["items"]
            return (file_id, "shared") in [(item["file_id"], item["state"]) for item in items]

        until(done, "the file is shared")

    def same_files(self, paths: list[str], _: dict[str, Any]) -> None:
        """Compare two files."""
        first, second = (Path(path).read_bytes() for path in paths)
        assert first == second

    def fault(self, fault: str, _: dict[str, Any]) -> None:
        """Do something to bob's daemon, or to the broker."""
        if fault == "kill":
            self.bob.kill()
        elif fault == "stop":
            assert self.bob.stop() == 0
        elif fault == "start":
            self.bob.start()
            self.bob.ready()
        elif fault == "freeze":
            os.kill(self.bob.pid, signal.SIGSTOP)
            self._stack.callback(os.kill, self.bob.pid, signal.SIGCONT)
        elif fault == "thaw":
            os.kill(self.bob.pid, signal.SIGCONT)
        else:
            assert fault == "kill broker"
            self._mesh.broker.kill()
            until(lambda: not self.bob.request("GET", "/v1/health")[1]["connected"], "bob is cut off")

    def settings(self, text: str, _: dict[str, Any]) -> None:
        """Put settings into force at bob's daemon, for this case."""
        config = self.bob.root / "config.toml"
        before = config.read_text()

        def put(content: str) -> None:
            config.write_text(content)
            assert self.bob.request("POST", "/v1/reload")[1]["error"] is None

        self._stack.callback(put, before)
        put(before + text)

    def hold_streams(self, count: int, _: dict[str, Any]) -> None:
        """Keep event streams of bob's daemon open."""
        for _each in range(count):
            connection = self._stack.enter_context(closing(self.bob.connection()))
            connection.request("GET", "/v1/events")
            # The response owns the connection.
            response = self._stack.enter_context(connection.getresponse())
            assert response.status == 200


def whole(daemon: Daemon, item: dict[str, Any]) -> dict[str, Any]:
    """Return a message with its whole text."""
    if not item["body_truncated"]:
        return item
    found: dict[str, Any] = daemon.request("GET", f"/v1/inbox/{item['id']}")[1]
    return found


def streams(daemon: Daemon) -> int:
    """Return the number of open event streams of a daemon."""
    with closing(daemon.connection()) as connection:
        connection.request("GET", "/v1/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    [count] = [line.rpartition(" ")[2] for line in lines if line.startswith("cm_daemon_event_streams ")]
    return round(float(count))


STEPS: Mapping[str, Callable[[Run, Any, dict[str, Any]], None]] = {
    name: getattr(Run, name)
    for name in (
        "call",
        "start",
        "finish",
        "cancel",
        "progress",
        "items",
        "following",
        "from_alice",
        "arrived",
        "arrived_count",
        "alice_answers",
        "alice_subscribes",
        "announced",
        "shared",
        "same_files",
        "fault",
        "settings",
        "hold_streams",
    )
}
