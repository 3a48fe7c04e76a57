// The overview of a broker: load, deliveries, and conditions.

import { html } from "/console/preact.js";
import { useStore } from "/console/state.js";
import { total } from "/console/metrics.js";
import { lasting, plain } from "/console/format.js";
import { Card, Empty, Tag, Time } from "/console/parts.js";

export function Overview() {
  const { now, metrics, points, meshes } = useStore();
  const last = points.at(-1);
  return html`
    <h2 class="unseen">State</h2>
    <section class="cards" aria-label="State">
      <${Card} title="State" value=${now.draining ? "stopping" : now.degraded.length ? "degraded" : "ready"} kind=${now.draining || now.degraded.length ? "bad" : "good"}>
        ${now.degraded.length} conditions
      </${Card}>
      <${Card} title="Accepted" value=${last ? `${rounded(last.accepted)} / s` : "–"}>
        sends, and ${last ? rounded(last.refused) : 0} / s that were not
      </${Card}>
      <${Card} title="Latency" value=${latency(last?.p50)}>half of the sends; 99 % ${latency(last?.p99)}</${Card}>
      <${Card} title="Connections" value=${now.connections} href="#/connections">to this broker</${Card}>
      <${Card} title="Owed" value=${now.deliveries_owed}>deliveries, ${total(metrics, "cm_broker_deliveries_unacknowledged")} of them sent without an ack yet</${Card}>
      <${Card} title="Meshes" value=${meshes.length} href="#/meshes">${meshes.reduce((sum, one) => sum + one.online, 0)} members online</${Card}>
      <${Card} title="Running" value=${lasting(now.uptime_s)}>version ${now.version}, ${now.store}, limiter ${now.limiter}</${Card}>
    </section>
    <${Rate} points=${points} />
    <section aria-labelledby="conditions">
      <h2 id="conditions">Conditions</h2>
      ${now.degraded.length === 0 && html`<${Empty}>All parts of the broker work.</${Empty}>`}
      ${now.degraded.map(
        (one) => html`<p class="condition" key=${one.code}><${Tag} kind="bad">${one.code}</${Tag}> ${plain(one.message)} <${Time} at=${one.since} /></p>`,
      )}
    </section>
    <p class="none">Broker ${plain(now.broker_id)}</p>
  `;
}

const rounded = (rate) => (rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate));
const latency = (ms) => (ms === null || ms === undefined ? "–" : ms === Infinity ? "more than 2.5 s" : `≤ ${ms} ms`);

const WIDTH = 480;
const HEIGHT = 70;
const SHOWN = 150;

function Rate({ points }) {
  if (points.length < 2) return html`<${Empty}>The rate of accepts is shown here in a few seconds.</${Empty}>`;
  const most = Math.max(1, ...points.map((one) => one.accepted));
  const place = (one, at) => `${((SHOWN - points.length + at) / (SHOWN - 1)) * WIDTH},${HEIGHT - (one.accepted / most) * (HEIGHT - 2)}`;
  return html`
    <figure class="chart">
      <figcaption><span class="key received">Accepts in each second</span> of the last five minutes, at most ${rounded(most)}</figcaption>
      <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Accepts in each second of the last five minutes" preserveAspectRatio="none">
        <polyline class="rate" points=${points.map(place).join(" ")} />
      </svg>
    </figure>
  `;
}
