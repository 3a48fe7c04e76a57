"""A program of the conformance suite: calls as lines of JSON on stdin, answers on stdout, by the Python SDK.

`driver.py async` uses `AsyncDaemon`, `driver.py threads` uses `Daemon`, with a thread for each call.
"""

import asyncio
import json
import sys
import threading
from contextlib import aclosing
from dataclasses import asdict, is_dataclass
from typing import Any

import claudemesh_sdk as sdk

_lock = threading.Lock()
_seen: dict[str, sdk.Message] = {}


def tell(number: int, **answer: Any) -> None:
    """Print one answer."""
    with _lock:
        print(json.dumps({"id": number, **answer}), flush=True)


def tell_error(number: int, error: sdk.DaemonError) -> None:
    """Print the failure of a call."""
    told = {"class": type(error).__name__, "code": error.code, "status": error.status, "says": error.message}
    told |= {"retryable": error.retryable, "client_message_id": error.client_message_id}
    tell(number, error={**error.body, **told})


def plain(value: Any) -> Any:
    """Return a result as JSON."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def note(message: sdk.Message) -> dict[str, Any]:
    """Keep a message for a later reply, and return it as JSON."""
    _seen[str(message.body)] = message
    return {**asdict(message), "data": None}


def begin(daemon: Any, name: str, given: dict[str, Any]) -> Any:
    """Start a call: a coroutine or iterator of `AsyncDaemon`, or the result or iterator of `Daemon`."""
    if name in ("post", "subscribe", "unsubscribe"):
        queue = given.pop("queue", None)
        topic = daemon.topic(given.pop("topic")) if queue is None else daemon.queue(queue)
        return getattr(topic, name)(**given)
    if name == "reply":
        return daemon.reply(_seen[given["body"]], given["message"])
    if name == "ack":
        return daemon.ack(_seen[given["body"]])
    if name == "request":
        timeout_s = given.pop("timeout_ms") / 1000
        return daemon.request(given.pop("to"), given.pop("message"), timeout_s=timeout_s, **given)
    if name == "messages":
        return daemon.messages(
            given.get("since"),
            topic=given.get("topic"),
            sender=given.get("from"),
            ack=given.get("ack", False),
        )
    if name == "outbox":
        return daemon.outbox(given.pop("id"), **given)
    if name == "get_file":
        return daemon.get_file(given["id"], given["out"])
    if name == "delete_file":
        return daemon.delete_file(given["id"])
    if name == "history":
        return daemon.history(member=given.get("with"), limit=given.get("limit", 50))
    if name == "whole":
        return daemon.whole(_seen[given["body"]])
    return getattr(daemon, name)(**given)


def shown(name: str, result: Any) -> Any:
    """Return a call's result as JSON."""
    if name == "get_file":
        return {"path": str(result)}
    if name in ("request", "whole"):
        return note(result)
    return plain(result) if result is not None else {}


async def serve_async(daemon: sdk.AsyncDaemon, number: int, name: str, given: dict[str, Any]) -> None:
    """Make one call on the event loop."""
    try:
        if name == "send_many":
            for count in range(given["count"]):
                await daemon.send(given["to"], f"{given['text']} {count}")
                tell(number, progress=count + 1)
            tell(number, result={"sent": given["count"]})
        elif name == "files":
            async with aclosing(daemon.files(**given)) as items:
                tell(number, result=plain([item async for item in items]))
        elif name in ("messages", "events", "inbox"):
            found = []
            async with aclosing(begin(daemon, name, given)) as items:
                async for item in items:
                    if name != "events":
                        found.append(note(item))
                        tell(number, item=found[-1])
            tell(number, result={"end": True, "items": found})
        else:
            tell(number, result=shown(name, await begin(daemon, name, given)))
    except sdk.DaemonError as error:
        tell_error(number, error)
    except asyncio.CancelledError:
        tell(number, result={"cancelled": True})


def serve(daemon: sdk.Daemon, number: int, name: str, given: dict[str, Any]) -> None:
    """Make one call in a thread."""
    try:
        if name == "send_many":
            for count in range(given["count"]):
                daemon.send(given["to"], f"{given['text']} {count}")
                tell(number, progress=count + 1)
            tell(number, result={"sent": given["count"]})
        elif name == "files":
            tell(number, result=plain(list(daemon.files(**given))))
        elif name in ("messages", "events", "inbox"):
            found = []
            for item in begin(daemon, name, given):
                if name != "events":
                    found.append(note(item))
                    tell(number, item=found[-1])
            tell(number, result={"end": True, "items": found})
        else:
            tell(number, result=shown(name, begin(daemon, name, given)))
    except sdk.DaemonError as error:
        tell_error(number, error)


async def run_async() -> None:
    """Serve the calls of stdin until its end."""
    daemon, tasks = sdk.AsyncDaemon(), {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        number, name, given = asked["id"], asked["call"], asked["with"]
        if name == "cancel":
            tasks[given["of"]].cancel()
        elif name == "close":
            daemon.close()
            tell(number, result={})
        else:
            tasks[number] = asyncio.create_task(serve_async(daemon, number, name, given))
    if "--finish" in sys.argv:
        await asyncio.gather(*tasks.values())


def run() -> None:
    """Serve the calls of stdin until its end."""
    daemon = sdk.Daemon()
    threads = []
    for line in sys.stdin:
        asked = json.loads(line)
        number, name, given = asked["id"], asked["call"], asked["with"]
        if name == "close":
            daemon.close()
            tell(number, result={})
        else:
            arguments = (daemon, number, name, given)
            threads.append(threading.Thread(target=serve, args=arguments, daemon=True))
            threads[-1].start()
    for thread in threads if "--finish" in sys.argv else ():
        thread.join()


if __name__ == "__main__":
    if sys.argv[1] == "async":
        asyncio.run(run_async())
    else:
        run()
