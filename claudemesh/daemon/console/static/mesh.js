// Members and topics.

import { html, useEffect, useState } from "/console/preact.js";
import { call } from "/console/api.js";
import { refresh, useStore } from "/console/state.js";
import { plain, short } from "/console/format.js";
import { Empty, Table, Tag, Time } from "/console/parts.js";

export function Members() {
  const { peers, health } = useStore();
  const isAlone = peers.every((one) => one.member_id === health.member_id);
  return html`
    <${Profile} />
    <h2>Members</h2>
    <${Table}
      label="Members"
      rows=${peers}
      keyOf=${(one) => one.member_id}
      columns=${[
        ["Name", (one) => html`<b>${plain(one.name)}</b>${one.member_id === health.member_id ? " (this host)" : ""}`],
        ["State", (one) => html`<${Tag} kind=${one.online ? "good" : ""}>${one.online ? "online" : "offline"}</${Tag}>`],
        ["Sessions", (one) => one.sessions.map((session) => `${plain(session.name)} (${session.state})`).join(", ") || "–", "wide"],
        ["Status", (one) => plain(one.status ?? "–")],
        ["Summary", (one) => plain(one.summary ?? "–"), "wide"],
        ["Last seen", (one) => (one.online ? "–" : html`<${Time} at=${one.last_seen_at} />`)],
        ["Role", (one) => one.role],
        ["Key", (one) => html`<code title=${one.pubkey}>${short(one.pubkey)}</code>${one.verified ? " verified" : ""}`],
      ]}
    />
    ${isAlone && html`<${Empty}>No other member. <code>claudemesh invite create</code> makes a link for one.</${Empty}>`}
  `;
}

/** The profile of this member, which other members see. */
function Profile() {
  const [fields, setFields] = useState(null);
  const [told, tell] = useState({ kind: "", text: "" });
  useEffect(() => {
    call("GET", "/v1/profile").then(setFields, (refusal) => tell({ kind: "error", text: refusal.message }));
  }, []);
  const set = (name) => (event) => setFields({ ...fields, [name]: event.target.value });
  const submit = async (event) => {
    event.preventDefault();
    const { status, summary } = fields;
    try {
      await call("POST", "/v1/profile", { status: status ?? "", summary: summary ?? "" });
      tell({ kind: "done", text: "The profile is changed." });
      refresh("peers");
    } catch (refusal) {
      tell({ kind: "error", text: refusal.message });
    }
  };
  return html`
    <h2>Profile of this host</h2>
    <form class="profile" onSubmit=${submit}>
      <label class="field">Status <input maxlength="64" value=${fields?.status ?? ""} disabled=${!fields} onInput=${set("status")} /></label>
      <label class="field">Summary <input maxlength="512" value=${fields?.summary ?? ""} disabled=${!fields} onInput=${set("summary")} /></label>
      <button disabled=${!fields}>Change</button>
    </form>
    <p class=${told.kind} role="status">${told.text}</p>
  `;
}

export function Topics() {
  const { topics } = useStore();
  useEffect(() => refresh("topics"), []);
  if (topics.length === 0) return html`<${Empty}>No topic. <code>claudemesh topic create builds</code> makes one.</${Empty}>`;
  return html`
    <h2>Topics and queues</h2>
    <${Table}
      label="Topics and queues"
      rows=${topics}
      keyOf=${(one) => one.topic}
      columns=${[
        ["Name", (one) => html`<b>${plain(one.topic)}</b>`],
        ["Kind", (one) => one.mode],
        ["Subscribed", (one) => (one.subscribed ? "yes" : "no")],
        ["Subscribers", (one) => one.subscribers ?? "–", "number"],
        ["Key", (one) => (one.key_epoch === null ? "none before the first post" : one.have_key ? `epoch ${one.key_epoch}` : "waits for it")],
        ["Without key", (one) => html`<${Keyless} topic=${one.topic} count=${one.members_without_key} />`, "number"],
        ["Created", (one) => html`<${Time} at=${one.created_at} />`],
      ]}
    />
  `;
}

/** The number of subscribers without the key of a topic; a button shows their names. */
function Keyless({ topic, count }) {
  const [shown, show] = useState("");
  if (!count) return count ?? "–";
  const names = async () => {
    try {
      const found = await call("GET", `/v1/topic/keyless?topic=${encodeURIComponent(topic)}`);
      show(found.items.map((one) => plain(one.name)).join(", ") + (found.more ? ", …" : "") || "All have it now.");
    } catch (refusal) {
      show(refusal.message);
    }
  };
  return html`${count} <button type="button" aria-label="Show who lacks the key of ${topic}" onClick=${names}>Names</button> <span role="status">${shown}</span>`;
}
