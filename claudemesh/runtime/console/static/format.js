// Times, sizes and names as people read them.

const UNITS = [
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const exact = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "long" });

/** Return a time as "5 min. ago". */
export function ago(time) {
  const seconds = (new Date(time) - Date.now()) / 1000;
  if (Math.abs(seconds) < 45) return "just now";
  const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? ["minute", 60];
  return relative.format(Math.round(seconds / size), unit);
}

/** Return a time with its date, seconds and zone. */
export const whole = (time) => exact.format(new Date(time));

/** Return a duration in seconds as "3 h 12 min". */
export function lasting(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** Return a number of bytes as "12 KiB". */
export function size(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let place = 0;
  while (bytes >= 1024 && place < units.length - 1) [bytes, place] = [bytes / 1024, place + 1];
  return `${place ? bytes.toFixed(1) : bytes} ${units[place]}`;
}

// Control characters but tab and line feed, characters that change the direction of the text around them, and those
// that cannot be seen: the same ones that the command line spells out (runtime/terminal.py).
const HIDDEN =
  /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\u{e0000}-\u{e007f}]/gu;

/** Return a text of another member with a mark for each character that hides or turns text. */
export const plain = (text) => text.replaceAll("\r\n", "\n").replace(HIDDEN, "\ufffd");

/** Return the beginning of a text on one line. */
export const line = (text) => plain(text.slice(0, 300).replace(/\s+/g, " "));

/** Return a member's key as its first characters. */
export const short = (key) => `${key.slice(0, 8)}…`;
