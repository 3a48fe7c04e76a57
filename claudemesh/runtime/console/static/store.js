// The state of a page, and its readers.

import { useEffect, useState } from "/console/preact.js";

/** Make a store: its `state`, `change`, and `useStore` for components. */
export function makeStore(state) {
  const listeners = new Set();
  let isQueued = false;

  /** Return the state, and render the caller again when it changes. */
  function useStore() {
    const [, render] = useState(0);
    useEffect(() => {
      const listener = () => render((count) => count + 1);
      listeners.add(listener);
      return () => listeners.delete(listener);
    }, []);
    return state;
  }

  /** Change the state. Listeners are told once for each frame, so that a burst of events costs one rendering. */
  function change(fields) {
    Object.assign(state, fields);
    if (isQueued) return;
    isQueued = true;
    requestAnimationFrame(() => {
      isQueued = false;
      for (const listener of listeners) listener();
    });
  }

  return { state, useStore, change };
}
