// Meshes of a broker, and the members, connections and audit events of one.

import { html } from "/console/preact.js";
import { choose, useStore } from "/console/state.js";
import { plain, short, size } from "/console/format.js";
import { Empty, Table, Tag, Time } from "/console/parts.js";

const NO_MESH = html`<${Empty}>No mesh. <code>claudemesh mesh create team --broker URL</code> makes one.</${Empty}>`;
const rate = (count) => (count === null ? "default" : `${count} / min`);
const bytes = (count) => (count === null ? "default" : size(count));

export function Meshes() {
  const { meshes } = useStore();
  if (meshes.length === 0) return NO_MESH;
  return html`
    <h2>Meshes</h2>
    <${Table}
      label="Meshes"
      rows=${meshes}
      keyOf=${(one) => one.mesh_id}
      columns=${[
        ["Name", (one) => html`<a href="#/members" onClick=${() => choose(one.slug)}><b>${plain(one.slug)}</b></a>`],
        ["Online", (one) => one.online, "number"],
        ["Clones", (one) => one.clone_concurrency_policy],
        ["Rate limit", (one) => rate(one.rate_limit_per_minute)],
        ["Rate limit of a member", (one) => rate(one.member_rate_limit_per_minute)],
        ["Storage limit", (one) => bytes(one.stored_bytes)],
        ["Retention", (one) => (one.message_retention_days === null ? "default" : `${one.message_retention_days} days`)],
        ["Created", (one) => html`<${Time} at=${one.created_at} />`],
      ]}
    />
  `;
}

function Choice() {
  const { meshes, mesh } = useStore();
  return html`
    <p class="buttons choice">
      <label>Mesh
        ${" "}<select value=${mesh} onChange=${(event) => choose(event.target.value)}>
          ${meshes.map((one) => html`<option key=${one.slug} value=${one.slug}>${plain(one.slug)}</option>`)}
        </select>
      </label>
    </p>
  `;
}

export function Members() {
  const { mesh, members } = useStore();
  if (mesh === null) return NO_MESH;
  return html`
    <${Choice} />
    <h2>Members</h2>
    <${Table}
      label="Members"
      rows=${members}
      keyOf=${(one) => one.member_id}
      columns=${[
        ["Name", (one) => html`<b>${plain(one.name)}</b>`],
        ["State", (one) => html`<${Tag} kind=${one.status === "active" ? (one.online ? "good" : "") : "bad"}>${one.status === "active" ? (one.online ? "online" : "offline") : one.status}</${Tag}>`],
        ["Owed", (one) => (one.owed >= 1000 ? "1000 or more" : one.owed), "number"],
        ["Role", (one) => one.role],
        ["Kind", (one) => (one.ephemeral ? "ephemeral" : "lasting")],
        ["Last seen", (one) => (one.online ? "–" : html`<${Time} at=${one.last_seen_at} />`)],
        ["Key", (one) => html`<code title=${one.pubkey}>${short(one.pubkey)}</code>`],
      ]}
    />
  `;
}

export function Connections() {
  const { mesh, connections } = useStore();
  if (mesh === null) return NO_MESH;
  return html`
    <${Choice} />
    <h2>Connections to this broker</h2>
    ${connections.length === 0
      ? html`<${Empty}>No member of this mesh is connected to this broker. <code>claudemesh up -d</code> on the host of a member connects it.</${Empty}>`
      : html`
          <${Table}
            label="Connections"
            rows=${connections}
            keyOf=${(one) => one.connection_id}
            columns=${[
              ["Member", (one) => html`<b>${plain(one.name)}</b>`],
              ["Since", (one) => html`<${Time} at=${one.connected_at} />`],
              ["Without an ack", (one) => one.unacknowledged, "number"],
              ["Daemon", (one) => html`<code title=${plain(one.instance_id)}>${short(plain(one.instance_id))}</code>`],
            ]}
          />
        `}
  `;
}

export function Audit() {
  const { mesh, members, audit } = useStore();
  if (mesh === null) return NO_MESH;
  const name = (id) => members.find((one) => one.member_id === id)?.name ?? id ?? "–";
  return html`
    <${Choice} />
    <h2>The newest audit events</h2>
    ${audit.length === 0
      ? html`<${Empty}>No event is kept.</${Empty}>`
      : html`
          <${Table}
            label="Audit events"
            rows=${audit}
            keyOf=${(one) => JSON.stringify(one)}
            columns=${[
              ["Time", (one) => html`<${Time} at=${one.created_at} />`],
              ["Event", (one) => html`<b>${one.kind}</b>`],
              ["Member", (one) => plain(name(one.member_id))],
              ["Details", (one) => html`<code>${plain(JSON.stringify(one.data))}</code>`, "wide"],
            ]}
          />
        `}
  `;
}
