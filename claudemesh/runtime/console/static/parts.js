// Parts of several views.

import { html, useEffect, useLayoutEffect, useRef, useState } from "/console/preact.js";
import { ago, whole } from "/console/format.js";

/** A time in words; the exact one is its title. */
export function Time({ at }) {
  if (!at) return html`<span class="none">–</span>`;
  return html`<time datetime=${at} title=${whole(at)}>${ago(at)}</time>`;
}

/** A word with a colour of its own. The word alone tells the same. */
export const Tag = ({ kind, children }) => html`<span class="tag ${kind ?? ""}">${children}</span>`;

/** An empty list, and the next step. */
export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/** A table. `columns` are [header, cell of a row, class]. It scrolls by itself where it is too wide. */
export function Table({ label, columns, rows, keyOf }) {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${label}>
      <table>
        <thead>
          <tr>${columns.map(([header, , kind]) => html`<th scope="col" class=${kind}>${header}</th>`)}</tr>
        </thead>
        <tbody>
          ${rows.map(
            (row) => html`
              <tr key=${keyOf(row)}>${columns.map(([, cell, kind]) => html`<td class=${kind}>${cell(row)}</td>`)}</tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

/** A number with its name and an explanation; with `href` a link to the view behind it. */
export function Card({ title, value, kind, href, children }) {
  const inner = html`<h3>${title}</h3><p class="value ${kind ?? ""}">${value}</p><p>${children}</p>`;
  return href ? html`<a class="card" href=${href}>${inner}</a>` : html`<div class="card">${inner}</div>`;
}

const ROW_PX = 58;
const MOST_ABOVE = 500; // rows of one rendering that are looked for above those in view
const AROUND = 8; // rows that are made beyond the visible ones

/** A long list of which only the visible rows are in the page. `row` makes the content of one. */
export function LongList({ label, items, keyOf, row, selected, select, onEnd }) {
  const box = useRef(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  useLayoutEffect(() => {
    const measure = () => setView({ top: box.current.scrollTop, height: box.current.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  // A reader who has scrolled down keeps the rows in place when others arrive above them.
  const anchor = useRef(null);
  useLayoutEffect(() => {
    const { key, place } = anchor.current ?? {};
    const at = key && box.current.scrollTop > 0 ? items.slice(place, place + MOST_ABOVE).findIndex((one) => keyOf(one) === key) : 0;
    if (at > 0) box.current.scrollTop += at * ROW_PX;
    const top = Math.min(items.length - 1, Math.floor(box.current.scrollTop / ROW_PX));
    anchor.current = top < 0 ? null : { key: keyOf(items[top]), place: top };
  });
  const first = Math.max(0, Math.floor(view.top / ROW_PX) - AROUND);
  const last = Math.min(items.length, Math.ceil((view.top + view.height) / ROW_PX) + AROUND);
  useEffect(() => {
    if (last >= items.length - AROUND) onEnd?.();
  }, [last, items.length]);
  const moved = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -items.length, End: items.length }[event.key];
    if (!step || !items.length) return;
    event.preventDefault();
    const place = items.findIndex((one) => keyOf(one) === selected);
    const next = Math.min(items.length - 1, Math.max(0, place + step));
    select(keyOf(items[next]));
    const top = next * ROW_PX;
    if (top < box.current.scrollTop) box.current.scrollTop = top;
    else if (top + ROW_PX > box.current.scrollTop + view.height) box.current.scrollTop = top + ROW_PX - view.height;
  };
  return html`
    <div
      class="long"
      ref=${box}
      tabindex="0"
      role="listbox"
      aria-label=${label}
      aria-activedescendant=${selected ? `row-${selected}` : undefined}
      onScroll=${() => setView({ top: box.current.scrollTop, height: box.current.clientHeight })}
      onKeyDown=${moved}
    >
      <div class="rows" role="presentation" style=${{ height: `${items.length * ROW_PX}px` }}>
        ${items.slice(first, last).map((one, place) => {
          const key = keyOf(one);
          return html`
            <div
              key=${key}
              id="row-${key}"
              role="option"
              aria-selected=${key === selected}
              aria-setsize=${items.length}
              aria-posinset=${first + place + 1}
              class="row"
              style=${{ transform: `translateY(${(first + place) * ROW_PX}px)` }}
              onClick=${() => select(key)}
            >
              ${row(one)}
            </div>
          `;
        })}
      </div>
    </div>
  `;
}

/** A button that asks before it acts, and shows the answer when it is refused. */
export function Act({ label, question, act, kind }) {
  const [asking, ask] = useState(false);
  const [error, fail] = useState("");
  const dialog = useRef(null);
  useEffect(() => {
    if (asking) dialog.current?.showModal();
  }, [asking]);
  // Closed before it is taken away, so that the focus goes back to the button.
  const end = () => dialog.current?.close();
  const run = async () => {
    end();
    try {
      await act();
      fail("");
    } catch (refusal) {
      fail(refusal.message);
    }
  };
  return html`
    <button type="button" class=${kind} onClick=${() => (question ? ask(true) : run())}>${label}</button>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    ${asking &&
    html`
      <dialog ref=${dialog} aria-label=${label} onClose=${() => ask(false)}>
        <p>${question}</p>
        <p class="buttons">
          <button type="button" autofocus onClick=${end}>Cancel</button>
          <button type="button" class=${kind ?? "main"} onClick=${run}>${label}</button>
        </p>
      </dialog>
    `}
  `;
}
