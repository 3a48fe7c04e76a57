// The state of the page, asked for again every two seconds while the page is seen.

import { ApiError, call, enter, text } from "/console/api.js";
import { between, parsed } from "/console/metrics.js";
import { makeStore } from "/console/store.js";

const EVERY_MS = 2000;
const SLOWLY = 5; // lists are asked for in each fifth round
const MOST_LISTED = 10000;
const KEPT = 150; // points of the chart: five minutes

export const { state, useStore, change } = makeStore({
  // signed-out | joining | live | away
  link: "joining",
  reason: "",
  now: null,
  metrics: {},
  points: [], // {at, accepted, refused, p50, p99}, oldest first
  meshes: [],
  mesh: null, // the slug of the mesh that is shown
  members: [],
  connections: [],
  audit: [],
  jobs: [],
});

/** Follow the broker until the page is closed. */
export async function follow() {
  try {
    await enter();
  } catch (error) {
    return change({ link: "signed-out", reason: error.message });
  }
  for (let round = 0; ; round += 1) {
    if (!document.hidden) {
      try {
        await look(round % SLOWLY === 0 || state.link !== "live");
        change({ link: "live", reason: "" });
      } catch (error) {
        if (!(error instanceof ApiError)) console.error(error);
        if (error.isSignedOut) return change({ link: "signed-out", reason: "" });
        change({ link: "away", reason: error.message });
      }
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

let last = null; // the reading before: its metrics and its time

async function look(withLists) {
  const [now, page] = await Promise.all([call("GET", "/v1/admin/state"), text("/metrics")]);
  const reading = { metrics: parsed(page), at: performance.now() };
  // A restarted broker counts from the beginning.
  const isSame = last && state.now && state.now.uptime_s <= now.uptime_s;
  const point = isSame ? between(last.metrics, reading.metrics, (reading.at - last.at) / 1000) : null;
  last = reading;
  change({
    now,
    metrics: reading.metrics,
    points: point ? [...state.points, { at: Date.now(), ...point }].slice(-KEPT) : state.points,
  });
  if (withLists) await lists();
}

async function lists() {
  const [meshes, jobs] = await Promise.all([all("/v1/admin/meshes"), all("/v1/admin/jobs")]);
  const isThere = meshes.some((one) => one.slug === state.mesh);
  change({ meshes, jobs, mesh: isThere ? state.mesh : (meshes[0]?.slug ?? null) });
  await mesh();
}

/** Show another mesh. */
export async function choose(slug) {
  change({ mesh: slug, members: [], connections: [], audit: [] });
  await mesh().catch((error) => console.warn("mesh", error.message));
}

async function mesh() {
  const slug = state.mesh;
  if (slug === null) return;
  const where = `mesh=${encodeURIComponent(slug)}`;
  const [members, connections, audit] = await Promise.all([
    all(`/v1/admin/members?${where}`),
    all(`/v1/admin/connections?${where}`),
    call("GET", `/v1/admin/audit?${where}&limit=200`),
  ]);
  if (slug === state.mesh) change({ members, connections, audit: audit.items });
}

async function all(path) {
  const items = [];
  let after = "";
  do {
    const page = await call("GET", after ? `${path}${path.includes("?") ? "&" : "?"}after=${encodeURIComponent(after)}` : path);
    items.push(...page.items);
    after = page.next ?? "";
  } while (after && items.length < MOST_LISTED);
  return items;
}
