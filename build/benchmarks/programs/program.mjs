/** The JavaScript SDK beside plain HTTP: `program.mjs send SOCKET TO COUNT`, `program.mjs stream SOCKET COUNT`. */

import { randomUUID } from "node:crypto";
import http from "node:http";
import { Daemon } from "./claudemesh.mjs";

const TEXT = "x".repeat(1024);
const [what, socketPath, ...rest] = process.argv.slice(2);
const daemon = new Daemon({ socketPath });
const agent = new http.Agent({ keepAlive: true });

function post(to) {
  const body = JSON.stringify({ to, message: TEXT, client_message_id: randomUUID() });
  const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, path: "/v1/send", method: "POST", headers, agent }, async (answer) => {
      const pieces = [];
      for await (const piece of answer) pieces.push(piece);
      resolve(JSON.parse(Buffer.concat(pieces).toString()));
    });
    request.on("error", reject);
    request.end(body);
  });
}

function median(times) {
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)];
}

if (what === "send") {
  const [to, count] = rest;
  const times = [[], []];
  for (let round = 0; round <= Number(count); round++) {
    for (const [place, call] of [() => daemon.send(to, TEXT), () => post(to)].entries()) {
      const started = performance.now();
      await call();
      if (round > 0) times[place].push(performance.now() - started);
    }
  }
  console.log(median(times[0]), median(times[1]));
} else {
  await daemon.health();
  const started = performance.now();
  let number = 0;
  let last = 0;
  for await (const message of daemon.messages({ since: 0 })) {
    if (message.seq <= last) throw new Error(`${message.seq} behind ${last}`);
    last = message.seq;
    if (++number === Number(rest[0])) break;
  }
  console.log((performance.now() - started) / 1000);
}
daemon.close();
agent.destroy();
