// Jobs of a broker, and what they found.

import { html } from "/console/preact.js";
import { useStore } from "/console/state.js";
import { total } from "/console/metrics.js";
import { lasting } from "/console/format.js";
import { Empty, Table, Tag, Time } from "/console/parts.js";

export function Jobs() {
  const { jobs, metrics } = useStore();
  const violations = (metrics.cm_broker_atomicity_violation_found_total ?? []).filter((one) => one.value > 0);
  return html`
    <h2>Jobs</h2>
    <${Table}
      label="Jobs"
      rows=${jobs}
      keyOf=${(one) => one.job}
      columns=${[
        ["Job", (one) => html`<b>${one.job}</b>`],
        ["Every", (one) => lasting(one.every_s)],
        ["Last run", (one) => (one.last_run_at ? html`<${Time} at=${one.last_run_at} />` : "not yet")],
        ["Handled", (one) => one.count ?? "–", "number"],
        ["Found", (one) => (one.found ? html`<${Tag} kind="bad">${one.found}</${Tag}>` : (one.found ?? "–")), "number"],
      ]}
    />
    <h2>Findings since the start of the broker</h2>
    ${violations.length === 0
      ? html`<${Empty}>Every message is whole.</${Empty}>`
      : violations.map((one) => html`<p class="condition" key=${one.labels.kind}><${Tag} kind="bad">${one.value}</${Tag}> ${one.labels.kind}</p>`)}
    ${total(metrics, "cm_broker_store_errors_total") > 0 &&
    html`<p class="condition"><${Tag} kind="bad">${total(metrics, "cm_broker_store_errors_total")}</${Tag}> operations of the store failed.</p>`}
  `;
}
