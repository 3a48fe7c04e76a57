// The frame of a page: header, navigation, and one view at a time, chosen by the address behind the #.

import { html, useEffect, useState } from "/console/preact.js";

/** `views` are [title, component] by name, `badges` numbers by the name of a view, `children` the content above a view. */
export function Shell({ views, badges, heading, about, link, linkText, reason, isReady, children }) {
  const chosen = () => {
    const name = location.hash.slice(2).split("?")[0];
    return Object.hasOwn(views, name) ? name : Object.keys(views)[0];
  };
  const [name, choose] = useState(chosen());
  useEffect(() => {
    const changed = () => choose(chosen());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const [title, View] = views[name];
  useEffect(() => {
    document.title = `${title} · claudemesh`;
  }, [title]);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header>
      <h1><img src="/console/icon.svg" alt="" width="22" height="22" /> ${heading}</h1>
      <p class="who">${about}</p>
      <p class="link ${link}" role="status" title=${reason}>${linkText}</p>
    </header>
    <nav aria-label="Views">
      ${Object.entries(views).map(
        ([key, [label]]) => html`
          <a href="#/${key}" aria-current=${key === name ? "page" : undefined}>
            ${label}${badges[key] ? html` <span class="badge">${badges[key] > 999 ? "999+" : badges[key]}</span>` : ""}
          </a>
        `,
      )}
    </nav>
    <main id="main" tabindex="-1" aria-label=${title}>
      ${children} ${isReady ? html`<${View} />` : html`<p class="empty">${reason || "Loading…"}</p>`}
    </main>
  `;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

/** The page without a session, with the command that begins one. */
export function SignedOut({ reason, where, command, end }) {
  return html`
    <main class="signed-out" aria-label="Signed out">
      <h1>Not signed in</h1>
      ${reason && html`<p>${reason}</p>`}
      <p>${where}</p>
      <pre>${command}</pre>
      <p>It opens this page with a code for one session, which lasts 12 hours, or until ${end}.</p>
    </main>
  `;
}
