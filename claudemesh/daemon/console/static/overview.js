// The overview: the link, the queue, conditions, and the sessions of this host.

import { html } from "/console/preact.js";
import { useStore } from "/console/state.js";
import { Day, today } from "/console/chart.js";
import { lasting, plain, short } from "/console/format.js";
import { Card, Empty, Table, Tag, Time } from "/console/parts.js";

export function Overview() {
  const { activity, health, peers, sessions } = useStore();
  const online = peers.filter((one) => one.online).length;
  const clock = health.clock_offset_ms;
  return html`
    <h2 class="unseen">State</h2>
    <section class="cards" aria-label="State">
      <${Card} title="Link" value=${health.connected ? "connected" : "not connected"} kind=${health.connected ? "good" : "bad"}>
        ${health.connected ? health.broker_url : plain(health.last_error ?? health.broker_url)}
      </${Card}>
      <${Card} title="Unread" value=${health.unread} href="#/messages">messages without acknowledgement</${Card}>
      <${Card} title="Waiting" value=${health.queue_depth} href="#/sends">
        sends that the broker does not have yet${health.inflight ? `, ${health.inflight} on their way` : ""}
      </${Card}>
      <${Card} title="Given up" value=${health.dead} kind=${health.dead ? "bad" : ""} href="#/sends">sends that were given up</${Card}>
      ${activity &&
      html`
        <${Card} title="Today" value="${today(activity)[0]} / ${today(activity)[1]}">messages received / sent</${Card}>
        <${Card} title="Disk" value="${activity.disk_pct} %" kind=${activity.disk_pct >= 80 ? "bad" : ""}>
          of its budget, outbox ${activity.queue_pct} %
        </${Card}>
      `}
      <${Card} title="Members" value="${online} of ${peers.length}" href="#/members">online</${Card}>
      <${Card} title="Running" value=${lasting(health.uptime_s)}>
        version ${health.daemon_version}, broker ${health.broker_version ?? "unknown"}${clock === null ? "" : `, clock ${clock >= 0 ? "+" : ""}${clock} ms`}
      </${Card}>
    </section>
    ${activity && html`<${Day} activity=${activity} />`}
    <section aria-labelledby="conditions">
      <h2 id="conditions">Conditions</h2>
      ${health.degraded.length === 0 && html`<${Empty}>All parts of the daemon work.</${Empty}>`}
      ${health.degraded.map(
        (one) => html`
          <p class="condition" key=${one.code}><${Tag} kind="bad">${one.code}</${Tag}> ${one.message} <${Time} at=${one.since} /></p>
        `,
      )}
      ${health.sealed.waiting + health.sealed.unreadable > 0 &&
      html`
        <p class="condition">
          <${Tag}>sealed</${Tag}> ${health.sealed.waiting} messages wait for a key, ${health.sealed.unreadable} cannot be read.
        </p>
      `}
    </section>
    <section aria-labelledby="sessions">
      <h2 id="sessions">Sessions of this host</h2>
      ${sessions.length === 0
        ? html`<${Empty}>No session. An agent begins one with <code>claudemesh mcp</code>.</${Empty}>`
        : html`
            <${Table}
              label="Sessions of this host"
              rows=${sessions}
              keyOf=${(one) => one.session_id}
              columns=${[
                ["Name", (one) => html`<b>${health.name}/${one.name}</b>`],
                ["Client", (one) => plain(`${one.client} ${one.client_version ?? ""}`)],
                ["State", (one) => html`<${Tag} kind=${one.state === "working" ? "good" : ""}>${one.state}</${Tag}>`],
                ["Reach", (one) => one.reach],
                ["Directory", (one) => plain(one.cwd ?? "–")],
              ]}
            />
          `}
    </section>
    <p class="none">Member ${short(health.member_pubkey)}, process ${health.pid}</p>
  `;
}
