// The page: navigation between its views, problems, and the key.
//
// A component that changes its parts draws one element around them: Preact may mix up their order otherwise.

import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { storeKey, storedKey } from "./api.js";
import { Activity } from "./activity.js";
import { useDialog } from "./dialog.js";
import { Duplicates } from "./duplicates.js";
import { Identify } from "./identify.js";
import { Library } from "./library.js";
import { Recordings } from "./recordings.js";

// In the order of the navigation. Live streams will be a line behind the recordings: it has room for one more.
const VIEWS = [
  { path: "", name: "Identify", view: Identify },
  { path: "library", name: "Library", view: Library },
  { path: "recordings", name: "Recordings", view: Recordings },
  { path: "activity", name: "Activity", view: Activity },
  { path: "duplicates", name: "Duplicates", view: Duplicates, within: "library" },
];

const LASTING = [403, 404, 413, 422]; // the same request gets them again
const KEY_CODES = ["key_needed", "unknown_key", "scope_needed"];

/** The view that the address names, and the part of it behind the view's name. */
function place() {
  const [path, part = ""] = location.hash.slice(2).split("/");
  return { current: VIEWS.find((one) => one.path === path) ?? VIEWS[0], part };
}

function App() {
  const [{ current, part }, setPlace] = useState(place);
  const [problem, setProblem] = useState(null); // {error, retry}
  useEffect(() => {
    const change = () => {
      setPlace(place());
      setProblem(null);
      setTimeout(focusHeading);
    };
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  useEffect(() => {
    document.title = `${current.name} – astound`;
  }, [current]);

  const onProblem = (error, retry) => setProblem(error && { error, retry });
  const again = () => {
    setProblem(null);
    problem.retry?.();
  };
  const needsKey = KEY_CODES.includes(problem?.error.code);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to content</a>
    <header>
      <a class="brand" href="#/"><img src="icon.svg" alt="" width="28" height="28" /> astound</a>
      <nav aria-label="Views">
        ${VIEWS.filter((one) => !one.within).map((one) => html`
          <a href=${`#/${one.path}`} aria-current=${one.path === (current.within ?? current.path) ? "page" : null}>${one.name}</a>`)}
      </nav>
    </header>
    <main id="main" tabindex="-1">
      ${problem && !needsKey && html`
        <div class="card trouble" role="alert">
          <p>${problem.error.message}</p>
          ${problem.retry && !LASTING.includes(problem.error.status) && html`<button class="plain" onClick=${again}>Try again</button>`}
          <button class="plain" onClick=${() => setProblem(null)}>Close</button>
        </div>`}
      ${needsKey && html`<${KeyDialog} error=${problem.error} onDone=${again} onClose=${() => setProblem(null)} />`}
      <${current.view} part=${part} onProblem=${onProblem} />
    </main>`;
}

/** Begin at the heading of a view that was just opened, unless the view itself has set the focus. */
function focusHeading() {
  const at = document.activeElement;
  if (at !== document.body && !at.closest("header")) return;
  const heading = document.querySelector("h1");
  heading.tabIndex = -1;
  heading.focus();
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function KeyDialog({ error, onDone, onClose }) {
  const dialog = useDialog();
  const reason = error.message[0].toUpperCase() + error.message.slice(1);
  const save = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    storeKey(form.get("key").trim(), form.get("kept"));
    onDone();
  };
  return html`
    <dialog ref=${dialog} onClose=${onClose} aria-labelledby="key">
      <form onSubmit=${save}>
        <h2 id="key">${storedKey() ? "Another key is needed" : "A key is needed"}</h2>
        <p>${storedKey() ? `${reason}.` : "This service answers only those who have a key."}
          ${" "}Whoever runs it makes one with <code>astound key create</code>.</p>
        <label>Key <input name="key" type="password" required autocomplete="current-password" /></label>
        <label class="check"><input name="kept" type="checkbox" /> Remember it on this device</label>
        <div class="buttons">
          <button type="button" class="plain" onClick=${() => dialog.current.close()}>Cancel</button>
          <button type="submit">Continue</button>
        </div>
      </form>
    </dialog>`;
}

render(html`<${App} />`, document.body);
