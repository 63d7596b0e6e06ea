// The media folder of the service: browse it, and choose folders or files in it.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { bytes, counted } from "./text.js";

/** A part to unfold; `onPaths` gets what is chosen: one file, or `several` files and folders. */
export function MediaFolder({ several = false, onPaths, onProblem }) {
  const [isOpen, setIsOpen] = useState(false);
  return html`
    <details class="media" onToggle=${(event) => setIsOpen(event.currentTarget.open)}>
      <summary>From the computer that runs astound</summary>
      ${isOpen && html`<${Folder} several=${several} onPaths=${onPaths} onProblem=${onProblem} />`}
    </details>`;
}

function Folder({ several, onPaths, onProblem }) {
  const [folder, setFolder] = useState(null); // {path, entries, next}
  const [hasNone, setHasNone] = useState(false);
  const [chosen, setChosen] = useState([]); // paths
  const crumb = useRef(null);

  async function open(path, before = []) {
    try {
      const page = await api.media(path, before.length);
      setFolder({ ...page, entries: [...before, ...page.entries] });
      if (!before.length) setChosen([]);
    } catch (error) {
      if (error.code === "no_media") setHasNone(true);
      else onProblem(error, () => open(path, before));
    }
  }
  useEffect(() => void open(""), []);
  useEffect(() => {
    // What was pressed to come here is gone.
    if (document.activeElement === document.body) crumb.current?.focus();
  }, [folder?.path]);

  if (hasNone) {
    return html`<p>It shows no folder. Whoever runs it can share one: <code>astound serve --media ~/Music</code></p>`;
  }
  if (!folder) return null;
  const { path, entries, next } = folder;
  const toggle = (one) => setChosen(chosen.includes(one) ? chosen.filter((other) => other !== one) : [...chosen, one]);
  const choose = (paths) => {
    setChosen([]);
    onPaths(paths);
  };
  return html`
    <div class="card">
      <${Crumbs} path=${path} current=${crumb} onOpen=${open} />
      ${!entries.length && html`<p class="muted">Neither folders nor audio files are in it.</p>`}
      <ul class="listing">
        ${entries.map((entry) => html`
          <${Entry} key=${entry.path} entry=${entry} isChosen=${several ? chosen.includes(entry.path) : null}
            onToggle=${() => toggle(entry.path)} onOpen=${() => open(entry.path)} onTake=${() => choose([entry.path])} />`)}
      </ul>
      ${next && html`<button class="plain" onClick=${() => open(path, entries)}>Show more</button>`}
      ${several && entries.length > 0 && html`
        <button onClick=${() => choose(chosen.length ? chosen : [path])}>
          ${chosen.length ? `Add what is chosen (${chosen.length})` : "Add this whole folder"}</button>`}
    </div>`;
}

/** The folders that lead to one, to go back to. */
function Crumbs({ path, current, onOpen }) {
  const parts = path ? path.split("/") : [];
  const all = ["Media", ...parts].map((name, i) => ({ name, path: parts.slice(0, i).join("/") }));
  return html`
    <nav aria-label="Folders"><ol class="crumbs">
      ${all.map((one, i) => html`
        <li key=${one.path}>${i < parts.length
          ? html`<button class="plain" onClick=${() => onOpen(one.path)}>${one.name}</button>`
          : html`<b ref=${current} tabindex="-1" aria-current="location">${one.name}</b>`}</li>`)}
    </ol></nav>`;
}

/** A folder or a file; without `isChosen` a file is taken when it is pressed. */
function Entry({ entry, isChosen, onToggle, onOpen, onTake }) {
  const { name, is_folder: isFolder, size_bytes: nBytes } = entry;
  const box = isChosen !== null && html`<input type="checkbox" checked=${isChosen} onChange=${onToggle}
    aria-label=${isFolder ? `Choose the folder ${name}` : null} />`;
  const size = html`<small class="muted">${nBytes === null ? "" : bytes(nBytes)}</small>`;
  if (isFolder) {
    return html`<li>${box && html`<label>${box}</label>`}<button class="plain folder" onClick=${onOpen}>${name}</button></li>`;
  }
  if (box) return html`<li><label>${box}<span>${name}</span>${size}</label></li>`;
  return html`<li><button class="plain file" onClick=${onTake}>${name}${size}</button></li>`;
}
