/** A program of the conformance suite: calls as lines of JSON on stdin, answers on stdout, by the JavaScript SDK. */

import { createInterface } from "node:readline";
import { Daemon, DaemonError } from "./claudemesh.mjs";

const daemon = new Daemon();
const seen = new Map();
const running = new Map();

function tell(id, answer) {
  process.stdout.write(`${JSON.stringify({ id, ...answer })}\n`);
}

/** Spell the names of a result as the local API does. */
function snake(value) {
  if (Array.isArray(value)) return value.map(snake);
  if (value === null || typeof value !== "object") return value;
  const spelled = ([name, each]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), each];
  return Object.fromEntries(Object.entries(value).map(spelled));
}

function note(message) {
  seen.set(message.body, message);
  return snake(message);
}

const topic = (given) => (given.queue === undefined ? daemon.topic(given.topic) : daemon.queue(given.queue));

const CALLS = {
  send: (given, signal) =>
    daemon.send(given.to, given.message, {
      clientMessageId: given.client_message_id,
      priority: given.priority,
      meta: given.meta,
      replyTo: given.reply_to_id,
      receipt: given.receipt,
      waitMs: given.wait_ms,
      signal,
    }),
  post: (given) => topic(given).post(given.message),
  subscribe: (given) => topic(given).subscribe(),
  unsubscribe: (given) => topic(given).unsubscribe(),
  reply: (given) => daemon.reply(seen.get(given.body), given.message),
  ack: (given) => daemon.ack(seen.get(given.body)),
  whole: async (given) => note(await daemon.whole(seen.get(given.body))),
  request: async (given) => {
    const options = { timeoutMs: given.timeout_ms, clientMessageId: given.client_message_id };
    return note(await daemon.request(given.to, given.message, options));
  },
  outbox: (given) => daemon.outbox(given.id, { waitFor: given.wait_for, waitMs: given.wait_ms }),
  share_file: (given) => daemon.shareFile(given.path, given.to, { message: given.message }),
  files: async (given) => {
    const found = [];
    for await (const item of daemon.files(given.direction)) found.push(snake(item));
    return found;
  },
  delete_file: (given) => daemon.deleteFile(given.id),
  get_file: async (given) => ({ path: await daemon.getFile(given.id, given.out) }),
  peers: () => daemon.peers(),
  health: (_, signal) => daemon.health({ signal }),
  version: () => daemon.version(),
  profile: (given) => daemon.profile(given),
  history: (given) => daemon.history(given),
};

const STREAMS = {
  messages: (given, signal) => daemon.messages({ ...given, signal }),
  events: (_, signal) => daemon.events({ signal }),
  inbox: (given) => daemon.inbox(given),
};

async function make(id, call, given, signal) {
  if (call === "send_many") {
    for (let count = 0; count < given.count; count++) {
      await daemon.send(given.to, `${given.text} ${count}`);
      tell(id, { progress: count + 1 });
    }
    return { sent: given.count };
  }
  if (!(call in STREAMS)) return snake((await CALLS[call](given, signal)) ?? {});
  const items = [];
  for await (const item of STREAMS[call](given, signal)) {
    if (call === "events") continue;
    items.push(note(item));
    tell(id, { item: items.at(-1) });
  }
  return { end: true, items };
}

async function serve({ id, call, with: given }) {
  if (call === "cancel") return running.get(given.of).abort();
  const stop = new AbortController();
  running.set(id, stop);
  if (call === "close") {
    daemon.close();
    return tell(id, { result: {} });
  }
  try {
    tell(id, { result: await make(id, call, given, stop.signal) });
  } catch (error) {
    if (error instanceof DaemonError) {
      const { code, status, retryable, message, clientMessageId } = error;
      const told = { class: error.constructor.name, code, status, retryable, says: message };
      tell(id, { error: { ...error.body, ...told, client_message_id: clientMessageId ?? null } });
    } else if (stop.signal.aborted) {
      tell(id, { result: { cancelled: true } });
    } else {
      throw error;
    }
  }
}

const calls = [];
for await (const line of createInterface({ input: process.stdin })) calls.push(serve(JSON.parse(line)));
if (process.argv.includes("--finish")) await Promise.all(calls);
process.exit(0);
