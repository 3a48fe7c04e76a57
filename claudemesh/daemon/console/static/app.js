// The console of a daemon.

import { html, render } from "/console/preact.js";
import { Shell, SignedOut } from "/console/shell.js";
import { follow, useStore } from "/console/state.js";
import { Overview } from "/console/overview.js";
import { Messages } from "/console/messages.js";
import { Members, Topics } from "/console/mesh.js";
import { Sends } from "/console/sends.js";
import { Hooks, Settings } from "/console/daemon.js";

const VIEWS = {
  overview: ["Overview", Overview],
  messages: ["Messages", Messages],
  members: ["Members", Members],
  topics: ["Topics", Topics],
  sends: ["Sends", Sends],
  hooks: ["Hooks", Hooks],
  settings: ["Settings", Settings],
};
const LINKS = { joining: "Connecting…", live: "Live", away: "The daemon is away", "signed-out": "Signed out" };

function App() {
  const state = useStore();
  if (state.link === "signed-out") {
    return html`
      <${SignedOut}
        reason=${state.reason}
        where="On the host of the daemon, run"
        command="claudemesh web"
        end="the token is replaced"
      />
    `;
  }
  return html`
    <${Shell}
      views=${VIEWS}
      badges=${{ messages: state.health?.unread, sends: state.health?.dead }}
      heading=${state.health?.mesh ?? "claudemesh"}
      about=${state.health && html`as <b>${state.health.name}</b>`}
      link=${state.link}
      linkText=${LINKS[state.link]}
      reason=${state.reason}
      isReady=${state.health}
    >
      ${state.isOld &&
      html`
        <p class="condition" role="status">
          The daemon was replaced by version ${state.health.daemon_version}, and this page is of another one.
          <button type="button" onClick=${() => location.reload()}>Load the new page</button>
        </p>
      `}
    </${Shell}>
  `;
}

render(html`<${App} />`, document.getElementById("app"));
follow();
