// The state of the page: lists as the daemon has them, kept up to date by its events.

import { ApiError, call, enter, events } from "/console/api.js";
import { makeStore } from "/console/store.js";

const KEPT = 10000; // messages in the list; older ones are fetched by the command line
const PAGE = 200;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;

export const { state, useStore, change } = makeStore({
  // signed-out | joining | live | away
  link: "joining",
  reason: "",
  health: null,
  messages: [], // newest first
  older: null, // cursor of the messages before the oldest one
  sends: [], // newest first
  peers: [],
  topics: [],
  sessions: [],
  hookRuns: [], // the last ones of this daemon, newest first
  config: null,
  activity: null, // counts of the last day
  isOld: false, // the daemon has another version than the one that served this page
});
let served = null; // the version of the daemon that served this page

/** Follow the daemon until the page is closed: join, load, follow events, and again when the daemon was away. */
export async function follow() {
  let wait = FIRST_WAIT_MS;
  try {
    await enter();
  } catch (error) {
    return leave(error.message);
  }
  for (;;) {
    try {
      await load();
      wait = FIRST_WAIT_MS;
      change({ link: "live", reason: "" });
      // A browser has six connections to an address for all of its tabs: one that is not seen holds none.
      if (document.hidden) await seen();
      else if (!(await listen())) throw new ApiError(0, "ended", "The daemon has closed the stream of events.");
      continue;
    } catch (error) {
      if (!(error instanceof ApiError)) console.error(error);
      if (error.isSignedOut) return leave("");
      change({ link: "away", reason: error.message });
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

function leave(reason) {
  change({ link: "signed-out", reason });
}

async function load() {
  const [health, inbox, sends, peers, topics, sessions, config, activity, runs] = await Promise.all([
    call("GET", "/v1/health"),
    call("GET", `/v1/inbox?order=desc&limit=${PAGE}`),
    sendList(),
    all("/v1/peers"),
    topicList(),
    all("/v1/sessions"),
    call("GET", "/v1/config"),
    known("/v1/activity"),
    known("/v1/hook_runs"),
  ]);
  served ??= health.daemon_version;
  // Messages of before stay when the newest page reaches them; otherwise some between would be missing.
  const oldest = inbox.items.at(-1)?.seq ?? 0;
  const isJoined = state.messages.length > 0 && oldest <= state.messages[0].seq;
  const kept = isJoined ? state.messages.filter((one) => one.seq < oldest) : [];
  change({
    health,
    messages: [...inbox.items, ...kept],
    older: kept.length ? state.older : inbox.next,
    sends,
    peers,
    topics,
    sessions,
    config,
    activity,
    hookRuns: runs?.items ?? state.hookRuns,
    isOld: served !== health.daemon_version,
  });
}

/** Whether the list holds as many messages as it may. */
export const isFull = (messages) => messages.length >= KEPT;

/** Load earlier messages behind the oldest one. */
export async function loadOlder() {
  if (!state.older || isFull(state.messages)) return;
  const after = state.older;
  change({ older: null });
  try {
    const page = await call("GET", `/v1/inbox?order=desc&limit=500&after=${encodeURIComponent(after)}`);
    change({ messages: [...state.messages, ...page.items].slice(0, KEPT), older: page.next });
  } catch (error) {
    change({ older: after });
    console.warn("inbox", error.message);
  }
}

/** Return the answer of a route that a daemon of an earlier version does not have, null from such a daemon. */
async function known(path) {
  try {
    return await call("GET", path);
  } catch (error) {
    if (error.status !== 404) throw error;
    return null;
  }
}

async function all(path) {
  const items = [];
  let after = "";
  do {
    const page = await call("GET", `${path}?limit=500${after && `&after=${encodeURIComponent(after)}`}`);
    items.push(...page.items);
    after = page.next ?? "";
  } while (after && items.length < KEPT);
  return items;
}

/** Return the newest sends, and the newest of those that wait or were given up, however many followed them. */
async function sendList() {
  const kinds = ["", "&status=dead", "&status=pending"];
  const pages = await Promise.all(kinds.map((kind) => call("GET", `/v1/outbox?order=desc&limit=${PAGE}${kind}`)));
  const found = new Map(pages.flatMap((page) => page.items).map((one) => [one.id, one]));
  return [...found.values()].sort((a, b) => (a.enqueued_at < b.enqueued_at ? 1 : -1));
}

async function topicList() {
  try {
    return await all("/v1/topic/list");
  } catch (error) {
    // The list comes from the broker, which may be away.
    if (error.isSignedOut || error.status === 0) throw error;
    return state.topics;
  }
}

export const PREFIXES = { dm: "", topic: "#", queue: "queue:" };

/** Return the destination of a send as it is written: a member's name, #topic or queue:name. */
export function destinationOf(send, peers) {
  if (!send.destination_ref) return "–";
  const name = peers.find((one) => one.pubkey === send.destination_ref)?.name;
  return PREFIXES[send.destination_kind] + (name ?? send.destination_ref.slice(0, 64));
}

// Parts of the state that an event makes stale, loaded again at most once a second each.
const REFRESH = {
  activity: async () => change({ activity: await known("/v1/activity") }),
  hookRuns: async () => change({ hookRuns: (await known("/v1/hook_runs"))?.items ?? state.hookRuns }),
  config: async () => change({ config: await call("GET", "/v1/config") }),
  health: async () => change({ health: await call("GET", "/v1/health") }),
  sends: async () => change({ sends: await sendList() }),
  peers: async () => change({ peers: await all("/v1/peers") }),
  topics: async () => change({ topics: await topicList() }),
  sessions: async () => change({ sessions: await all("/v1/sessions") }),
};
const STALE = {
  message: ["health"],
  receipts: ["sends"],
  outbox_dead: ["health", "sends"],
  outbox_pressure_high: ["health"],
  peer_join: ["peers"],
  peer_leave: ["peers"],
  peers_changed: ["peers"],
  member_renamed: ["peers"],
  member_updated: ["peers"],
  member_replaced: ["peers"],
  member_keypair_rotated: ["peers"],
  keypair_revoked: ["peers"],
  daemon_reconnect: ["health", "sends", "peers", "topics"],
  daemon_disconnect: ["health"],
};
const waiting = new Set();

/** Load a part of the state again, soon. */
export function refresh(...parts) {
  for (const part of parts) {
    if (waiting.has(part)) continue;
    waiting.add(part);
    setTimeout(() => {
      waiting.delete(part);
      REFRESH[part]().catch((error) => console.warn(part, error.message));
    }, 250);
  }
}

const seen = () => new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));

/** Follow the events until the stream ends, or the page is not seen. Return whether to load the lists again at once. */
async function listen() {
  // An empty inbox is followed from its beginning: a message that came since it was read is not missed.
  const newest = state.messages[0]?.seq ?? 0;
  const controller = new AbortController();
  const leaveHidden = () => document.hidden && controller.abort();
  document.addEventListener("visibilitychange", leaveHidden);
  // Parts without an event of their own: the queue, sessions, sends on their way, topics, and a reload of settings.
  const timer = setInterval(() => refresh("health", "sends", "sessions"), 5000);
  const slow = setInterval(() => refresh("activity", "config", "topics"), 30000);
  try {
    for await (const event of events(newest, controller.signal)) {
      if (event.name === "message") arrived(event.data);
      else if (event.name === "hook_executed") {
        change({ hookRuns: [event.data, ...state.hookRuns].slice(0, PAGE) });
      } else if (event.name === "reset") {
        // Another inbox stands behind the page: begin again with it.
        change({ messages: [], older: null });
        return true;
      }
      refresh(...(STALE[event.name] ?? []));
    }
    return false;
  } catch (error) {
    if (controller.signal.aborted) return true;
    throw error;
  } finally {
    document.removeEventListener("visibilitychange", leaveHidden);
    clearInterval(timer);
    clearInterval(slow);
    controller.abort();
  }
}

const TOGETHER_MS = 100;
let arriving = [];
let tookInAt = 0;

/** Put a message into the list: the first one at once, those that follow it in a burst ten times a second. */
function arrived(message) {
  arriving.push(message);
  if (arriving.length === 1) setTimeout(takeIn, Math.max(0, tookInAt + TOGETHER_MS - performance.now()));
}

function takeIn() {
  tookInAt = performance.now();
  // A message that is opened later comes again with another seq.
  const last = new Map(arriving.map((one) => [one.id, one]));
  arriving = [];
  const fresh = [...last.values()].sort((a, b) => b.seq - a.seq);
  const others = state.messages.filter((one) => !last.has(one.id));
  const messages = [...fresh, ...others];
  // The lists may have been loaded since the oldest of them arrived.
  if (others.length && fresh.at(-1).seq < others[0].seq) messages.sort((a, b) => b.seq - a.seq);
  change({ messages: messages.slice(0, KEPT) });
}

/** Replace a message of the list by its present state. */
export function replaced(message) {
  change({ messages: state.messages.map((one) => (one.id === message.id ? message : one)) });
}
