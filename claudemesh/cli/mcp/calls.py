"""The tools of the server, over the local API of the daemon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from claudemesh.cli.mcp import tools
from claudemesh.cli.mcp.chain import Chain
from claudemesh.cli.mcp.framing import one_line, page_of
from claudemesh.cli.mcp.marks import Marks
from claudemesh.cli.mcp.news import allowance, as_context, is_attended, news_for
from claudemesh.cli.mcp.pushes import Pushes
from claudemesh.cli.mcp.session import McpSession
from claudemesh.client.errors import ApiError, ClientError, WrongUse
from claudemesh.client.long_text import post_text

if TYPE_CHECKING:
    from claudemesh.client.local import LocalClient

_PAGE: Final = 100
_NEWEST: Final = 500
_SENT_WAIT_MS: Final = 2000
_POLL_S: Final = 0.25
# A hook holds up a turn of its client: what it cannot tell within this time, the next one tells.
_HOOK_S: Final = 0.005
_EMPTY: Final = "No new messages."
_HELD: Final = (
    "It wakes no session: both sessions have had six automatic turns within ten minutes. It is seen at the "
    "next turn there. Ask your user before you go on."
)


class Done(NamedTuple):
    """The text of a result, and the messages that it showed, or the seq of the newest one that it told of.
    They are marked when the result is with the client."""

    text: str
    ids: Sequence[str] = ()
    through: int = 0
    is_error: bool = False

    @property
    def marks(self) -> bool:
        """Whether there is something to mark."""
        return bool(self.ids or self.through)


class Tools:
    """The tools of one session."""

    def __init__(self, session: McpSession, pushes: Pushes, marks: Marks) -> None:
        self._session = session
        self._pushes = pushes
        self._marks = marks
        self._chain = Chain(time.monotonic)
        # Held from the reading of messages until they are marked: no other call is offered them.
        self._reading = threading.Lock()
        self._tools: Mapping[str, Callable[[Mapping[str, Any]], Done]] = {
            tools.SEND: self._send,
            tools.INBOX: self._inbox,
            tools.ACK: self._ack,
            tools.PEERS: self._peers,
            tools.WAIT: self._wait,
            tools.STATUS: self._status,
            tools.HOOK: self._hook,
        }

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Done:
        """Run a tool. Failures are results: the model reads them."""
        try:
            return self._checked(tool, arguments)
        except ClientError as error:
            if tool == tools.HOOK:
                return Done("")
            following = f" Next: {error.next}" if error.next else ""
            return Done(f"{error.code}: {error.message}{following}", is_error=True)

    def mark(self, done: Done) -> None:
        """Mark messages whose result the client has. It follows each `call`."""
        if not done.marks:
            return
        try:
            self._marks.owe(done.ids, "shown", done.through)
            self._marks.settle()
        except ClientError:
            # The daemon takes it before it is asked for messages again.
            return
        finally:
            self._reading.release()

    def _exclusively(self, read: Callable[[], Done], wait_s: float = -1) -> Done:
        """Read messages. The lock is kept for `mark` when there are some.

        `wait_s` is the longest wait for a call whose messages are not marked yet. Nothing is read then.
        """
        if not self._reading.acquire(timeout=wait_s):
            return Done("")
        done = None
        try:
            done = read() if self._marks.settle(wait_s) else Done("")
        finally:
            if done is None or not done.marks:
                self._reading.release()
        return done

    def _checked(self, tool: str, arguments: Mapping[str, Any]) -> Done:
        _check(tool, arguments)
        try:
            return self._tools[tool](arguments)
        except ApiError as error:
            if error.code != "session_not_found":
                raise
        # The session ended, with its lease for instance: it is registered again.
        self._session.forget()
        return self._tools[tool](arguments)

    def _send(self, given: Mapping[str, Any]) -> Done:
        client = self._session.client()
        body: dict[str, Any] = {"message": given["message"], "receipt": given.get("receipt", "shown")}
        body["from_session"] = self._session.name
        to, item = given.get("to"), None
        if "reply_to" in given:
            item = client.get(f"/v1/inbox/{_quoted(given['reply_to'])}")
            body["reply_to_id"] = item["broker_message_id"]
            to = to or _sender_of(item)
        if not to:
            raise WrongUse("missing_field", "Give to or reply_to. Nothing was sent.")
        body["to"] = to
        body["hops"] = self._chain.hops(item)
        meta = {name: given[name] for name in ("intent", "expects_reply") if name in given}
        if meta:
            body["meta"] = meta
        if "idempotency_key" in given:
            body["client_message_id"] = given["idempotency_key"]
        answer = post_text(client, f"/v1/send?wait_ms={_SENT_WAIT_MS}", body)
        sent = answer["client_message_id"]
        held = f" {_HELD}" if answer.get("in_loop") else ""
        # A local send has no place in the history, and is where it goes.
        is_local = answer["status"] == "done" and answer.get("history_id", 0) is None
        detail = "delivered on this host" if is_local else _detail(client, sent, "queued on this host")
        return Done(f"Sent, id {sent}: {detail}.{held}")

    def _inbox(self, given: Mapping[str, Any]) -> Done:
        return self._exclusively(lambda: self._listed(given))

    def _listed(self, given: Mapping[str, Any]) -> Done:
        name = self._session.name
        seen = {"unread": "true"} if given.get("include_seen") else {"unseen": "true"}
        page = self._session.client().get(
            "/v1/inbox", session=name, after=given.get("after"), limit=_PAGE, **seen
        )
        return self._shown(page["items"], more=page["next"] is not None)

    def _shown(self, items: Sequence[Mapping[str, Any]], *, more: bool) -> Done:
        text, shown = page_of(items)
        self._chain.shown(shown)
        return _page(text, items, shown, more=more)

    def _ack(self, given: Mapping[str, Any]) -> Done:
        client, session = self._session.client(), self._session.name
        ids = [client.get(f"/v1/inbox/{_quoted(one)}")["id"] for one in given["ids"]]
        marked = client.post("/v1/inbox/ack", {"ids": ids, "as": "acked", "session": session})["marked"]
        return Done(f"Acknowledged {marked}.")

    def _peers(self, given: Mapping[str, Any]) -> Done:
        client, own = self._session.client(), self._session.name
        lines = []
        for peer in client.items("/v1/peers"):
            state = "online" if peer["online"] else f"offline, last seen {peer['last_seen_at'] or 'never'}"
            about = one_line(" ".join(filter(None, (peer["status"], peer["summary"]))))
            said = f". It says: {about}" if about else ""
            lines.append(f"{peer['name']} ({peer['role']}): {state}{said}")
            lines += [_session_line(f"{peer['name']}/{one['name']}", one) for one in peer.get("sessions", ())]
        lines.append("Sessions of this host:")
        host = client.get("/v1/health")["name"]
        for one in client.items("/v1/sessions"):
            this = ", this session" if one["name"] == own else ""
            lines.append(_session_line(f"{host}/{one['name']}", one) + this)
        return Done("\n".join(lines))

    def _wait(self, given: Mapping[str, Any]) -> Done:
        deadline = time.monotonic() + given.get("timeout_s", tools.LONGEST_WAIT_S)
        while True:
            done = self._exclusively(lambda: self._shown(self._arrived(given.get("reply_to")), more=False))
            if done.ids:
                return done
            if time.monotonic() >= deadline:
                return Done("No message has come in time. It is not lost: mesh_inbox shows it when it comes.")
            time.sleep(_POLL_S)

    def _arrived(self, reply_to: str | None) -> Sequence[Mapping[str, Any]]:
        client, name = self._session.client(), self._session.name
        if reply_to is None:
            page = client.get("/v1/inbox", session=name, unseen="true", limit=_PAGE)
            return tuple(page["items"])
        # The newest ones: an answer may come behind many messages that wait.
        page = client.get("/v1/inbox", session=name, unseen="true", order="desc", limit=_NEWEST)
        items: Sequence[Mapping[str, Any]] = page["items"][::-1]
        if not items:
            return items
        sent = client.get(f"/v1/outbox/{_quoted(reply_to)}")["broker_message_id"]
        return [one for one in items if sent is not None and one["reply_to_id"] == sent]

    def _status(self, given: Mapping[str, Any]) -> Done:
        client = self._session.client()
        if "id" in given:
            return Done(f"{given['id']}: {_detail(client, given['id'])}.")
        health, name = client.get("/v1/health"), self._session.name
        link = "connected" if health["connected"] else "not connected; messages wait on this host"
        waiting = health["queue_depth"] + health["inflight"]
        return Done(
            f"This session is {health['name']}/{name} in mesh {health['mesh']}. The host is {link}. "
            f"{waiting} sends wait, {health['dead']} were given up."
        )

    def _hook(self, given: Mapping[str, Any]) -> Done:
        event = given["event"]
        self._session.describe(session_id=given.get("session_id"))
        self._session.reaches("turn")
        self._session.be("idle" if event == "Stop" else "working")
        if event == "PreToolUse":
            return Done(allowance(given.get("tool_name", "")))
        if event == "Stop" and (given.get("stop_hook_active") == "true" or not is_attended()):
            return Done("")
        if event == "UserPromptSubmit":
            self._prove(given.get("prompt", ""))
        return self._exclusively(lambda: self._news(event), _HOOK_S)

    def _prove(self, prompt: str) -> None:
        """Mark the messages of pushes whose text stands in a prompt: the client gives it to the model now."""
        for written in self._pushes.proven(prompt):
            self._marks.owe(written.ids, written.mark, written.through)
            if written.message is not None:
                self._chain.shown([written.message])
        self._marks.settle(_HOOK_S)

    def _news(self, event: str) -> Done:
        news = news_for(self._session.client(), self._session.id)
        return Done(as_context(event, news.text), through=news.through)


def _session_line(address: str, session: Mapping[str, Any]) -> str:
    return f"{address} ({one_line(session['client'])}): {session['state']}, reach {session['reach']}"


def _page(
    text: str, items: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]], *, more: bool
) -> Done:
    if not shown:
        return Done(_EMPTY)
    ids = [one["id"] for one in shown if one["body"] is not None]
    if more or len(shown) < len(items):
        rest = f"{len(items) - len(shown)}{' or more' if more else ''}"
        text += f"\n{rest} further messages wait: call {tools.INBOX} again, with after={shown[-1]['seq']}."
    return Done(text, ids)


def _detail(client: LocalClient, sent: str, unknown: str | None = None) -> str:
    """Return how far a send has come. `unknown` is returned for one that the daemon does not find."""
    try:
        found = client.get(f"/v1/outbox/{_quoted(sent)}")["detail"]
    except ApiError as error:
        if error.status != 404:
            raise
        # A long text has no row before its file is at the broker.
        found = error.body["detail"] if "file_state" in error.body else unknown
        if found is None:
            raise
    return str(found).rstrip(".")


def _quoted(part: str) -> str:
    # Imported here: the first answer needs no address.
    from urllib.parse import quote

    return quote(part, safe="")


def _sender_of(item: Mapping[str, Any]) -> str:
    if item["kind"] == "topic":
        return f"#{item['topic']}"
    session = item.get("from_session")
    return f"{item['sender_pubkey']}/{session}" if session else str(item["sender_pubkey"])


_TYPES: Final = {"string": str, "boolean": bool, "integer": int, "array": list}


def _check(tool: str, arguments: Mapping[str, Any]) -> None:
    """Raise `WrongUse` for arguments that the schema of the tool does not have."""
    [schema] = [one["inputSchema"] for one in tools.TOOLS if one["name"] == tool]
    for name in schema.get("required", ()):
        if name not in arguments:
            raise WrongUse("missing_field", f"{tool} needs {name}.")
    for name, value in arguments.items():
        rule = schema["properties"].get(name)
        if rule is None:
            raise WrongUse("unknown_field", f"{tool} has no argument {name[:64]}.")
        if type(value) is not _TYPES[rule["type"]]:
            raise WrongUse("invalid_field", f"{name} is of type {rule['type']}.")
        if isinstance(value, int) and not rule.get("minimum", 0) <= value <= rule.get("maximum", value):
            raise WrongUse("invalid_field", f"{name} is out of its range.")
        if isinstance(value, list) and not all(isinstance(one, str) and one for one in value):
            raise WrongUse("invalid_field", f"{name} is a list of ids.")
        if "enum" in rule and value not in rule["enum"]:
            raise WrongUse("invalid_field", f"{name} is one of {', '.join(rule['enum'])}.")
