// Messages: received and sent in one list, with filters, the whole text of one, and a form to write.

import { html, useEffect, useMemo, useRef, useState } from "/console/preact.js";
import { call } from "/console/api.js";
import { PREFIXES, destinationOf, isFull, loadOlder, refresh, replaced, useStore } from "/console/state.js";
import { line, plain, size } from "/console/format.js";
import { Empty, LongList, Tag, Time } from "/console/parts.js";

const NO_FILTER = { text: "", place: "", session: "", isUnread: false };

export function Messages() {
  const state = useStore();
  const [filter, setFilter] = useState(NO_FILTER);
  const [selected, select] = useState(null);
  const [isWriting, write] = useState(false);
  const { messages, sends, peers } = state;
  const entries = useMemo(() => merged(messages, sends, peers), [messages, sends, peers]);
  const shown = useMemo(() => entries.filter((one) => matches(one, filter)), [entries, filter]);
  const found = shown.find((one) => one.key === selected) ?? entries.find((one) => one.key === selected);
  const set = (name) => (event) =>
    setFilter({ ...filter, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  const sessions = [...new Set(messages.map((one) => one.for_session).filter(Boolean))];
  const isOpen = Boolean(found || isWriting);
  const wasOpen = useRef(false);
  useEffect(() => {
    if (isOpen === wasOpen.current) return;
    wasOpen.current = isOpen;
    // In a narrow window one of both is shown, and the keyboard is with it. In a wide one there is no way back.
    document.querySelector(isOpen ? ".mail .back button" : ".mail .long")?.focus();
  }, [isOpen]);
  return html`
    <div class="mail ${isOpen ? "open" : ""}">
      <section class="list" aria-label="List of messages">
        <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
          <input type="search" aria-label="Search" placeholder="Search" value=${filter.text} onInput=${set("text")} />
          <select aria-label="Member or topic" value=${filter.place} onChange=${set("place")}>
            <option value="">Everything</option>
            ${places(entries).map((place) => html`<option key=${place} value=${place}>${place}</option>`)}
          </select>
          ${sessions.length > 0 &&
          html`
            <select aria-label="Session" value=${filter.session} onChange=${set("session")}>
              <option value="">All sessions</option>
              ${sessions.map((one) => html`<option key=${one} value=${one}>${plain(one)}</option>`)}
            </select>
          `}
          <label><input type="checkbox" checked=${filter.isUnread} onChange=${set("isUnread")} /> Unread</label>
          <button type="button" class="main" onClick=${() => (select(null), write(true))}>Write</button>
        </form>
        ${shown.length === 0
          ? html`
              <${Empty}>
                ${entries.length ? html`<${NoMatch} count=${messages.length} hasMore=${state.older && !isFull(messages)} />` : html`No message yet. Another member sends one with <code>claudemesh send ${state.health.name} hello</code>.`}
              </${Empty}>
            `
          : html`
              <${LongList}
                label="Messages, newest first"
                items=${shown}
                keyOf=${(one) => one.key}
                row=${Row}
                selected=${selected}
                select=${(key) => (write(false), select(key))}
                onEnd=${loadOlder}
              />
            `}
      </section>
      <section class="detail" aria-label="Message">
        ${isWriting
          ? html`<${Writing} close=${() => write(false)} />`
          : found
            ? html`<${Detail} key=${found.key} entry=${found} close=${() => select(null)} />`
            : html`<${Empty}>Choose a message to read it.</${Empty}>`}
      </section>
    </div>
  `;
}

const entryOf = new WeakMap(); // of each message: thousands stay as they are while one arrives

function received(one) {
  let entry = entryOf.get(one);
  if (!entry) {
    const place = one.topic ? (PREFIXES[one.kind] ?? "#") + one.topic : one.sender_name;
    entry = { key: `in-${one.id}`, at: one.received_at, place: plain(place), message: one };
    entryOf.set(one, entry);
  }
  return entry;
}

/** Merge received messages and sends, which are both newest first. */
function merged(messages, sends, peers) {
  const sent = sends
    .filter((one) => one.destination_ref)
    .map((one) => ({ key: `out-${one.id}`, at: one.enqueued_at, place: plain(destinationOf(one, peers)), send: one }));
  const entries = [];
  let next = 0;
  for (const message of messages) {
    const entry = received(message);
    while (next < sent.length && sent[next].at > entry.at) entries.push(sent[next++]);
    entries.push(entry);
  }
  return entries.concat(sent.slice(next));
}

const MOST_PLACES = 500;
const places = (entries) => [...new Set(entries.map((one) => one.place))].slice(0, MOST_PLACES).sort();

function matches({ place, message, send }, filter) {
  if (filter.place && place !== filter.place) return false;
  if (filter.isUnread && (!message || message.acked_at)) return false;
  if (filter.session && message?.for_session !== filter.session) return false;
  if (!filter.text) return true;
  const text = `${place} ${message ? `${message.sender_name} ${message.body ?? ""}` : send.client_message_id}`;
  return text.toLowerCase().includes(filter.text.toLowerCase());
}

function NoMatch({ count, hasMore }) {
  return html`
    None of the ${count} newest messages matches.
    ${hasMore
      ? html` <button type="button" onClick=${loadOlder}>Look at older ones</button>`
      : html` <code>claudemesh inbox list</code> searches all of them.`}
  `;
}

function Row({ at, place, message, send }) {
  if (send) {
    return html`
      <p class="head"><span class="name">to ${plain(place)}</span><${Tag} kind=${send.status === "dead" ? "bad" : ""}>${send.status}</${Tag}><${Time} at=${at} /></p>
      <p class="text">sent from this host</p>
    `;
  }
  return html`
    <p class="head ${message.acked_at ? "" : "unread"}">
      <span class="name">${plain(message.sender_name)}${message.from_session ? `/${plain(message.from_session)}` : ""}</span>
      ${message.topic && html`<${Tag}>${plain(place)}</${Tag}>`}
      ${message.mentioned && html`<${Tag} kind="good">mentioned</${Tag}>`}
      <${Time} at=${at} />
    </p>
    <p class="text">${message.body === null ? html`<span class="none">${message.unreadable ?? "waits for its key"}</span>` : line(message.body)}</p>
  `;
}

function Detail({ entry, close }) {
  return html`
    <p class="back"><button type="button" onClick=${close}>Back to the list</button></p>
    ${entry.message ? html`<${Received} message=${entry.message} />` : html`<${Sent} send=${entry.send} place=${entry.place} />`}
  `;
}

function Received({ message }) {
  const [whole, setWhole] = useState(null);
  const [error, fail] = useState("");
  const guarded = (act) => act().catch((refusal) => fail(refusal.message));
  const shown = whole ?? message;
  const fetchWhole = async () => setWhole(await call("GET", `/v1/inbox/${encodeURIComponent(message.id)}`));
  const ack = async () => {
    await call("POST", "/v1/inbox/ack", { ids: [message.id] });
    replaced({ ...message, acked_at: new Date().toISOString() });
    refresh("health");
  };
  return html`
    <h2>${plain(message.sender_name)}${message.from_session ? `/${plain(message.from_session)}` : ""}</h2>
    <dl>
      ${message.topic && html`<dt>Topic</dt><dd>${plain(message.topic)}</dd>`}
      <dt>Sent</dt><dd><${Time} at=${message.sent_at} /></dd>
      <dt>Received</dt><dd><${Time} at=${message.received_at} /></dd>
      ${message.notified_at && html`<dt>Notified</dt><dd><${Time} at=${message.notified_at} /> ${message.seen_by}</dd>`}
      ${message.shown_at && html`<dt>Shown</dt><dd><${Time} at=${message.shown_at} /> ${message.seen_by}</dd>`}
      ${message.acked_at && html`<dt>Acknowledged</dt><dd><${Time} at=${message.acked_at} /></dd>`}
    </dl>
    ${shown.body === null
      ? html`<p class="none">${shown.unreadable ?? "This message waits for the key of its topic."}</p>`
      : html`<pre class="body" tabindex="0" aria-label="Text">${plain(shown.body)}</pre>`}
    ${shown.body_truncated &&
    html`<p><button type="button" onClick=${() => guarded(fetchWhole)}>Show all of it (${size(shown.body_bytes)})</button></p>`}
    ${message.attachments.map(
      (one) => html`<p key=${one.file_id}>File <b>${plain(one.name)}</b>, ${size(one.size)}: <code>claudemesh file get ${one.file_id}</code></p>`,
    )}
    ${message.meta && Object.keys(message.meta).length > 0 && html`<pre class="body" tabindex="0" aria-label="Meta">${plain(JSON.stringify(message.meta, null, 2))}</pre>`}
    ${error && html`<p class="error" role="alert">${error}</p>`}
    <p class="buttons">
      ${!message.acked_at && html`<button type="button" onClick=${() => guarded(ack)}>Acknowledge</button>`}
    </p>
    <${Form}
      label="Reply"
      send=${(text, id) =>
        call("POST", message.kind === "topic" ? "/v1/topic/post" : "/v1/send", {
          ...(message.kind === "topic" ? { topic: message.topic } : { to: answering(message) }),
          message: text,
          reply_to_id: message.broker_message_id ?? undefined,
          client_message_id: id,
          receipt: "shown",
        })}
    />
  `;
}

const answering = (message) => message.sender_pubkey + (message.from_session ? `/${message.from_session}` : "");

// The states that a recipient tells: name, time, and the session that brought the message into it.
const REACHED = [
  ["delivered", "delivered_at"],
  ["notified", "notified_at", "notified_by"],
  ["shown", "shown_at", "shown_by"],
  ["acked", "acked_at", "acked_by"],
];

function Sent({ send, place }) {
  const [row, setRow] = useState(null);
  const [text, setText] = useState(null);
  useEffect(() => {
    call("GET", `/v1/outbox/${encodeURIComponent(send.id)}`).then(setRow, () => setRow(null));
  }, [send]);
  useEffect(() => {
    sentText(send).then(setText, () => setText(null));
  }, [send.id, send.status]);
  return html`
    <h2>To ${plain(place)}</h2>
    <p><${Tag} kind=${send.status === "dead" ? "bad" : ""}>${row?.state ?? send.status}</${Tag}> ${plain(row?.detail ?? send.last_error ?? "")}</p>
    <dl>
      <dt>Sent</dt><dd><${Time} at=${send.enqueued_at} /></dd>
      <dt>Accepted</dt><dd><${Time} at=${send.delivered_at} /></dd>
      ${(row?.recipients ?? []).map(
        (one) => html`
          <dt key=${one.member_id}>${plain(one.name)}</dt>
          <dd key="${one.member_id}-states">
            ${REACHED.every(([, at]) => !one[at]) && one.state}
            ${REACHED.filter(([, at]) => one[at]).map(
              ([state, at, by]) => html`<div key=${state}>${state} <${Time} at=${one[at]} /> ${plain(one[by] ?? "")}</div>`,
            )}
          </dd>
        `,
      )}
      <dt>Id</dt><dd><code>${plain(send.client_message_id)}</code></dd>
    </dl>
    ${text === null
      ? html`<p class="none">Sends are encrypted on this host. The broker's history has no text of this one that this host can read.</p>`
      : html`<pre class="body" tabindex="0" aria-label="Text">${plain(text)}</pre>`}
  `;
}

/** Return the text of a send from the broker's history, null when it is not there or cannot be read. */
async function sentText(send) {
  if (send.status !== "done" || send.destination_kind === "queue") return null;
  const place = `${send.destination_kind === "dm" ? "with" : "topic"}=${encodeURIComponent(send.destination_ref)}`;
  const { items } = await call("GET", `/v1/history?${place}&after=${send.history_id - 1}&limit=1`);
  return items.find((one) => one.client_message_id === send.client_message_id)?.body ?? null;
}

function Writing({ close }) {
  const { peers, topics } = useStore();
  const [to, setTo] = useState("");
  return html`
    <p class="back"><button type="button" onClick=${close}>Back to the list</button></p>
    <h2>Write a message</h2>
    <label class="field">To
      <input list="destinations" required value=${to} onInput=${(event) => setTo(event.target.value)} placeholder="alice, #topic or queue:jobs" />
    </label>
    <datalist id="destinations">
      ${peers.slice(0, 500).map((one) => html`<option key=${one.member_id} value=${one.name}></option>`)}
      ${topics.map((one) => html`<option key=${one.topic} value=${one.mode === "queue" ? `queue:${one.topic}` : `#${one.topic}`}></option>`)}
    </datalist>
    <${Form}
      label="Message"
      to=${to}
      send=${(text, id) => call("POST", "/v1/send", { to, message: text, client_message_id: id, receipt: "shown" })}
    />
  `;
}

/** A text and a button. A click after a lost answer is the same send, unless the text or `to` was changed. */
function Form({ label, to, send }) {
  const [text, setText] = useState("");
  const [told, tell] = useState({ kind: "", text: "" });
  const tried = useRef(null);
  const submit = async (event) => {
    event.preventDefault();
    if (!text.trim()) return tell({ kind: "error", text: "Write a text first." });
    if (tried.current?.text !== text || tried.current.to !== to) {
      tried.current = { text, to, id: `console-${crypto.randomUUID()}` };
    }
    try {
      await send(text, tried.current.id);
      setText((now) => (now === text ? "" : now));
      tried.current = null;
      tell({ kind: "done", text: "Stored on this host; it leaves by itself." });
      refresh("sends", "health");
    } catch (refusal) {
      tell({ kind: "error", text: refusal.message });
    }
  };
  const typed = (event) => setText(event.target.value);
  const hurry = (event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && submit(event);
  return html`
    <form class="write" onSubmit=${submit}>
      <label class="field">${label}
        <textarea rows="4" value=${text} onInput=${typed} onKeyDown=${hurry}></textarea>
      </label>
      <p class="buttons"><button class="main">Send</button> <span class="none">Ctrl+Enter</span></p>
      <p class=${told.kind} role="status">${told.text}</p>
    </form>
  `;
}
