// Sends of this host: those that wait, those that were given up, and the last done ones.

import { html, useState } from "/console/preact.js";
import { call } from "/console/api.js";
import { destinationOf, refresh, useStore } from "/console/state.js";
import { plain } from "/console/format.js";
import { Act, Empty, Table, Tag, Time } from "/console/parts.js";

const KINDS = {
  open: ["Waiting and given up", (one) => one.status !== "done" && one.status !== "aborted"],
  all: ["All", () => true],
};

export function Sends() {
  const { sends, peers } = useStore();
  const [kind, choose] = useState("open");
  const shown = sends.filter(KINDS[kind][1]);
  return html`
    <h2>Sends</h2>
    <p class="buttons" role="group" aria-label="Sends to show">
      ${Object.entries(KINDS).map(
        ([name, [label]]) => html`<button type="button" key=${name} aria-pressed=${name === kind} onClick=${() => choose(name)}>${label}</button>`,
      )}
    </p>
    ${shown.length === 0
      ? html`<${Empty}>${kind === "open" ? "No send waits, and none was given up." : html`This host has sent nothing yet. <a href="#/messages">Messages</a> has a form to write.`}</${Empty}>`
      : html`
          <${Table}
            label="Sends"
            rows=${shown}
            keyOf=${(one) => one.id}
            columns=${[
              ["State", (one) => html`<${Tag} kind=${{ dead: "bad", done: "good" }[one.status]}>${one.status}</${Tag}>`],
              ["To", (one) => plain(destinationOf(one, peers))],
              ["Queued", (one) => html`<${Time} at=${one.enqueued_at} />`],
              ["Attempts", (one) => one.attempts, "number"],
              ["Reason", (one) => plain(one.last_error ?? (one.waiting_for ? "waits for the key of its topic" : "–")), "wide"],
              ["", Actions, "actions"],
            ]}
          />
        `}
  `;
}

function Actions(send) {
  if (send.status === "done" || send.status === "aborted") return "";
  const post = (act) => async () => {
    await call("POST", `/v1/outbox/${encodeURIComponent(send.id)}/${act}`, {});
    refresh("sends", "health");
  };
  return html`
    ${send.status === "dead" &&
    html`<${Act} label="Requeue" question="The message is sent again under a new id. A recipient that has it already may get it twice." act=${post("requeue")} />`}
    <${Act} label="Drop" kind="danger" question="The send is given up for good. No recipient gets it unless the broker has it already." act=${post("drop")} />
  `;
}
