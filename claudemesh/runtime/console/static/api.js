// Requests to the server of the page. The browser's session has two parts: a cookie, which scripts cannot read, and a key,
// which this tab keeps for as long as it is open.

const KEY = "claudemesh-console-key";

/** A refusal of the server: its code, its sentence and the HTTP status. Status 0: there was no answer. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
  /** Whether the session has ended, or never began. */
  get isSignedOut() {
    return this.status === 401;
  }
}

const CODE_MS = 60_000; // a code is good for so long
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;

/** Begin a session by the code in the address, if there is one, and take the code out of the address. */
export async function enter() {
  const code = /^#([\w-]{16,64})$/.exec(location.hash)?.[1];
  if (!code) return;
  history.replaceState(null, "", location.pathname);
  try {
    const { key } = await begun(code);
    sessionStorage.setItem(KEY, key);
  } catch (error) {
    // A tab that is signed in needs no code.
    if (!sessionStorage.getItem(KEY)) throw error;
  }
}

/** Return the answer to a code. A request without an answer is made again while the code may be good. */
async function begun(code) {
  const end = performance.now() + CODE_MS;
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    try {
      return await call("POST", "/v1/console/session", { code });
    } catch (error) {
      if (error.status !== 0 || performance.now() + wait > end) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

/** Return the JSON answer to a request. Throws `ApiError`. */
export async function call(method, path, body) {
  const response = await send(method, path, body);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw refusal(response.status, answer);
  return answer;
}

/** Return the answer to a request as text. Throws `ApiError`. */
export async function text(path) {
  const response = await send("GET", path);
  if (!response.ok) throw refusal(response.status, await response.json().catch(() => ({})));
  return response.text();
}

/** Yield the events of the daemon as {name, id, data}, until the stream ends or `signal` aborts it. */
export async function* events(since, signal) {
  const response = await send("GET", `/v1/events?since=${since}`, undefined, signal);
  if (!response.ok) throw refusal(response.status, await response.json().catch(() => ({})));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) yield parsed(block);
  }
}

async function send(method, path, body, signal) {
  const headers = { "X-Claudemesh-Console": sessionStorage.getItem(KEY) ?? "" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const text = body === undefined ? undefined : JSON.stringify(body);
  try {
    return await fetch(path, { method, headers, body: text, signal, cache: "no-store" });
  } catch (error) {
    throw new ApiError(0, "unreachable", "There is no answer.");
  }
}

function refusal(status, answer) {
  return new ApiError(status, answer.error ?? "unknown", answer.message ?? `The answer has the status ${status}.`);
}

function parsed(block) {
  const event = { name: "", id: null, data: null };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const value = line.slice(at + 1).trimStart();
    const field = line.slice(0, at);
    if (field === "event") event.name = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data = JSON.parse(value);
  }
  return event;
}
