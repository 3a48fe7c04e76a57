// The daemon itself: runs of its hooks, and its settings.

import { html, useEffect, useState } from "/console/preact.js";
import { call } from "/console/api.js";
import { refresh, useStore } from "/console/state.js";
import { plain } from "/console/format.js";
import { Empty, Table, Tag, Time } from "/console/parts.js";

// The outcome of a run is its exit code, or a word when there is none: timeout, signal or not_started.
const outcomeOf = ({ outcome }) => (outcome === "0" ? "ok" : /^\d+$/.test(outcome) ? "failed" : outcome.replaceAll("_", " "));

export function Hooks() {
  const { hookRuns } = useStore();
  useEffect(() => refresh("hookRuns"), []);
  return html`
    <h2>The last runs of hooks since the start of the daemon</h2>
    ${hookRuns.length === 0
      ? html`<${Empty}>No hook has run. <code>claudemesh daemon hooks list</code> lists them.</${Empty}>`
      : html`
          <${Table}
            label="Hook runs"
            rows=${hookRuns}
            keyOf=${(one) => `${one.hook}-${one.event_id}-${one.ended_at}`}
            columns=${[
              ["Hook", (one) => html`<b>${plain(one.hook)}</b>`],
              ["Outcome", (one) => html`<${Tag} kind=${outcomeOf(one) === "ok" ? "good" : "bad"}>${outcomeOf(one)}</${Tag}>`],
              ["Exit", (one) => one.exit ?? "–", "number"],
              ["Replied", (one) => (one.replied ? "yes" : "no")],
              ["Time", (one) => `${one.duration_ms} ms`, "number"],
              ["Ended", (one) => html`<${Time} at=${one.ended_at} />`],
            ]}
          />
        `}
  `;
}

export function Settings() {
  const { config } = useStore();
  const [origins, setOrigins] = useState({});
  const [isChanged, filter] = useState(false);
  useEffect(() => refresh("config"), []);
  useEffect(() => {
    call("GET", "/v1/config/origins").then((found) => setOrigins(found.origins), () => setOrigins({}));
  }, [config]);
  const rows = Object.entries(config.settings).flatMap(([section, keys]) =>
    Object.entries(keys).map(([name, value]) => ({ key: `[${section}] ${name}`, value, origin: origins[section]?.[name] })),
  );
  return html`
    <h2>Settings in force</h2>
    ${config.error && html`<p class="error" role="alert">The last reload was refused: ${plain(config.error)}</p>`}
    ${config.needs_restart.length > 0 && html`<p class="condition">A restart applies ${config.needs_restart.join(", ")}.</p>`}
    <p class="buttons">
      <label><input type="checkbox" checked=${isChanged} onChange=${(event) => filter(event.target.checked)} /> Only those that are not the default</label>
    </p>
    <${Table}
      label="Settings in force"
      rows=${rows.filter((one) => !isChanged || one.origin !== "default")}
      keyOf=${(one) => one.key}
      columns=${[
        ["Key", (one) => html`<code>${one.key}</code>`],
        ["Value", (one) => html`<code>${plain(JSON.stringify(one.value))}</code>`, "wide"],
        ["Origin", (one) => (one.origin === null ? "the file has another value now" : plain(one.origin ?? "")), "wide"],
      ]}
    />
  `;
}
