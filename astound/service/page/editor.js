// Editor: a dialog for what is noted of a track.

import { html, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { useDialog } from "./dialog.js";

const TAGS = ["title", "artist", "album", "isrc"];
const LABELS = { title: "Title", artist: "Artist", album: "Album", isrc: "ISRC" };

export function Editor({ track, onSaved, onClose, onProblem }) {
  const dialog = useDialog();
  const [pairs, setPairs] = useState(Object.entries(track.metadata));

  async function save(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    const changes = {};
    for (const tag of TAGS) {
      const value = form.get(tag).trim() || null;
      if (value !== track[tag]) changes[tag] = value;
    }
    const metadata = changedPairs(track.metadata, pairs);
    if (Object.keys(metadata).length) changes.metadata = metadata;
    try {
      onSaved(Object.keys(changes).length ? await api.update(track.id, changes) : track);
    } catch (error) {
      onProblem(error);
    }
  }

  const setPair = (i, pair) => setPairs(pairs.map((old, j) => (i === j ? pair : old)));
  return html`
    <dialog ref=${dialog} onClose=${onClose} aria-labelledby="editor">
      <form onSubmit=${save}>
        <h2 id="editor">Edit track ${track.id}</h2>
        ${TAGS.map((tag) => html`
          <label key=${tag}>${LABELS[tag]}
            <input name=${tag} defaultValue=${track[tag] ?? ""} maxlength="1000" autocomplete="off" /></label>`)}
        ${pairs.map(([key, value], i) => html`
          <div class="pair" key=${i}>
            <label>Key <input value=${key} onInput=${(e) => setPair(i, [e.target.value, value])} /></label>
            <label>Value <input value=${value} onInput=${(e) => setPair(i, [key, e.target.value])} /></label>
          </div>`)}
        <button type="button" class="plain" onClick=${() => setPairs([...pairs, ["", ""]])}>Note something else</button>
        <p class="muted path">${track.path}</p>
        <div class="buttons">
          <button type="button" class="plain" onClick=${() => dialog.current.close()}>Cancel</button>
          <button type="submit">Save</button>
        </div>
      </form>
    </dialog>`;
}

/** What to send so that the metadata become some pairs; null removes a key. */
function changedPairs(metadata, pairs) {
  const wanted = Object.fromEntries(
    pairs.map(([key, value]) => [key.trim(), value.trim()]).filter(([key, value]) => key && value),
  );
  const removed = Object.keys(metadata).filter((key) => !(key in wanted)).map((key) => [key, null]);
  const set = Object.entries(wanted).filter(([key, value]) => metadata[key] !== value);
  return Object.fromEntries([...removed, ...set]);
}
