// A small chart of counts over the last day: bars of one hour, received above and sent below a middle line.

import { html } from "/console/preact.js";

const WIDTH = 480;
const HALF = 34;
const PER_HOUR = 4; // the daemon counts quarters of an hour

/** Return the sums of received and sent messages since midnight of this browser's time zone, as texts. */
export function today({ since, bucket_s, received, sent, most_counted }) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const first = Math.max(0, Math.ceil((midnight - new Date(since)) / (bucket_s * 1000)));
  return [summed(received.slice(first), most_counted), summed(sent.slice(first), most_counted)];
}

/** Return a sum. The daemon counts no quarter of an hour further than `most`: there may be more then. */
const summed = (counts, most) => `${sum(counts)}${counts.some((count) => count >= most) ? "+" : ""}`;

/** The last 24 hours. `label` is a text for readers who do not see it. */
export function Day({ activity }) {
  const received = hours(activity.received);
  const sent = hours(activity.sent);
  const most = Math.max(1, ...received, ...sent);
  const step = WIDTH / received.length;
  const height = (count) => (count ? Math.max(1.5, (count / most) * HALF) : 0);
  const starts = received.map((_, place) => new Date(new Date(activity.since).getTime() + place * 3600_000));
  const time = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  return html`
    <figure class="chart">
      <figcaption>
        Last 24 hours: <span class="key received">${summed(activity.received, activity.most_counted)} received</span>,
        ${" "}<span class="key sent">${summed(activity.sent, activity.most_counted)} sent</span>, at most ${most} an hour
      </figcaption>
      <svg viewBox="0 0 ${WIDTH} ${2 * HALF + 2}" role="img" aria-label="Messages in each of the last 24 hours" preserveAspectRatio="none">
        <line x1="0" x2=${WIDTH} y1=${HALF + 1} y2=${HALF + 1} />
        ${received.map(
          (count, place) => html`
            <g key=${place}>
              <title>${time.format(starts[place])}: ${count} received, ${sent[place]} sent</title>
              <rect class="back" x=${place * step} y="0" width=${step} height=${2 * HALF + 2} />
              <rect class="received" x=${place * step + 2} y=${HALF - height(count)} width=${step - 4} height=${height(count)} />
              <rect class="sent" x=${place * step + 2} y=${HALF + 2} width=${step - 4} height=${height(sent[place])} />
            </g>
          `,
        )}
      </svg>
    </figure>
  `;
}

const sum = (counts) => counts.reduce((total, count) => total + count, 0);

function hours(quarters) {
  const found = [];
  for (let place = 0; place < quarters.length; place += PER_HOUR) found.push(sum(quarters.slice(place, place + PER_HOUR)));
  return found;
}
