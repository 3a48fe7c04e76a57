// Metrics of a broker, read from its page in Prometheus text format.

const LINE = /^(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Return the samples by name, each with its labels and its value. */
export function parsed(page) {
  const found = {};
  for (const line of page.split("\n")) {
    const match = LINE.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    (found[match[1]] ??= []).push({ labels, value: Number(match[3]) });
  }
  return found;
}

/** Return the sum of the samples of a name. */
export const total = (metrics, name) => (metrics[name] ?? []).reduce((sum, one) => sum + one.value, 0);

/** Return what happened between two readings: accepts in each second, refusals in each second, and latencies in ms. */
export function between(before, after, seconds) {
  const accepts = byLabel(after, "cm_broker_accepts_total", "status");
  const earlier = byLabel(before, "cm_broker_accepts_total", "status");
  const rate = (status) => Math.max(0, (accepts[status] ?? 0) - (earlier[status] ?? 0)) / seconds;
  const statuses = Object.keys(accepts);
  const refused = statuses.filter((one) => one !== "201" && one !== "200").reduce((sum, one) => sum + rate(one), 0);
  const buckets = byLabel(after, "cm_broker_accept_seconds_bucket", "le");
  const past = byLabel(before, "cm_broker_accept_seconds_bucket", "le");
  const counts = Object.entries(buckets)
    .map(([bound, count]) => [bound === "+Inf" ? Infinity : Number(bound), count - (past[bound] ?? 0)])
    .sort((a, b) => a[0] - b[0]);
  return { accepted: rate("201"), refused, p50: quantile(counts, 0.5), p99: quantile(counts, 0.99) };
}

/** Return the bound in ms of the bucket in which a share of all lies, null without any. */
function quantile(counts, share) {
  const all = counts.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  const [bound] = counts.find(([, count]) => count >= share * all);
  return bound * 1000;
}

function byLabel(metrics, name, label) {
  return Object.fromEntries((metrics[name] ?? []).map((one) => [one.labels[label], one.value]));
}
