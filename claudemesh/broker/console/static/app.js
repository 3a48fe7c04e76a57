// The console of a broker. It shows, and changes nothing.

import { html, render } from "/console/preact.js";
import { Shell, SignedOut } from "/console/shell.js";
import { follow, useStore } from "/console/state.js";
import { Overview } from "/console/overview.js";
import { Audit, Connections, Members, Meshes } from "/console/meshes.js";
import { Jobs } from "/console/jobs.js";

const VIEWS = {
  overview: ["Overview", Overview],
  meshes: ["Meshes", Meshes],
  members: ["Members", Members],
  connections: ["Connections", Connections],
  jobs: ["Jobs", Jobs],
  audit: ["Audit", Audit],
};
const LINKS = { joining: "Connecting…", live: "Live", away: "The broker is away", "signed-out": "Signed out" };

function App() {
  const { link, reason, now } = useStore();
  if (link === "signed-out") {
    return html`
      <${SignedOut}
        reason=${reason}
        where="On the host of the broker, or with its admin token, run"
        command="claudemesh broker web"
        end="the admin token is replaced"
      />
    `;
  }
  return html`
    <${Shell}
      views=${VIEWS}
      badges=${{ overview: now?.degraded.length }}
      heading="broker"
      about=${location.host}
      link=${link}
      linkText=${LINKS[link]}
      reason=${reason}
      isReady=${now}
    />
  `;
}

render(html`<${App} />`, document.getElementById("app"));
follow();
