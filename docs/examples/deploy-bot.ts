// A bot that has a version built and tells the team: node deploy-bot.js VERSION MEMBER LOG
//
// It asks the workers of the queue `builds` (worker.py is one), posts the answer to the topic `releases` with a
// mention of the member, shares the log with them, and then answers the question `status`.
//
// Each send has an id of its own, so the bot may be ended and started again at any time: nothing is sent twice.

import { Daemon, DaemonError, NoReply } from "./claudemesh.js";

/** Have a worker build the version; resolves with its answer. */
async function deploy(daemon: Daemon, version: string): Promise<string> {
  const answer = await daemon.request(daemon.queue("builds").address, version, {
    timeoutMs: 600_000,
    clientMessageId: `build-${version}`,
    meta: { version },
  });
  await daemon.ack(answer);
  return answer.body ?? "";
}

/** Tell the team, and share the log with the member. */
async function announce(daemon: Daemon, version: string, answer: string, member: string, log: string): Promise<void> {
  const releases = daemon.topic("releases");
  await releases.subscribe();
  const clientMessageId = `live-${version}`;
  await releases.post(`${version}: ${answer}`, { mentions: [member], receipt: "delivered", clientMessageId });
  await daemon.shareFile(log, member, { message: `The log of ${version}`, clientMessageId: `log-${version}` });
  const progress = await daemon.outbox(clientMessageId, { waitFor: "delivered", waitMs: 30_000 });
  console.log(`${version} is announced: ${progress.detail}`);
}

/** Answer each question once, over restarts of the daemon and of this program. */
async function follow(daemon: Daemon, version: string): Promise<void> {
  for await (const message of daemon.messages({ ack: true })) {
    if (message.kind === "dm" && message.body === "status") {
      await daemon.reply(message, `${version} is live`, { clientMessageId: `status-${message.id}` });
    }
  }
}

const [version = "", member = "", log = ""] = process.argv.slice(2);
const daemon = new Daemon();
// The stream ends, and with it the program.
process.once("SIGINT", () => daemon.close());
try {
  const answer = await deploy(daemon, version);
  await announce(daemon, version, answer, member, log);
  await follow(daemon, version);
} catch (error) {
  if (!(error instanceof DaemonError)) throw error;
  console.error(error instanceof NoReply ? "No worker has answered." : error.code, error.message);
  if (error.retryable) console.error("Try again later.");
  process.exitCode = 1;
} finally {
  daemon.close();
}
