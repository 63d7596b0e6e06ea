// Files: chosen or dropped; and sending them, or naming those of the service.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";

/** A box to choose files or drop them; `onFiles` gets a list, never an empty one. */
export function FileChooser({ label, several = false, onFiles }) {
  const [isOver, setIsOver] = useState(false);
  useEffect(() => {
    // Anywhere on the page, and at any time: a browser would play a file that misses the box.
    const over = (event) => {
      event.preventDefault();
      setIsOver(true);
    };
    const leave = (event) => event.relatedTarget || setIsOver(false);
    const drop = (event) => {
      event.preventDefault();
      setIsOver(false);
      dropped(event.dataTransfer).then((files) => files.length && onFiles(files));
    };
    const handlers = { dragover: over, dragleave: leave, drop };
    for (const [name, handler] of Object.entries(handlers)) addEventListener(name, handler);
    return () => {
      for (const [name, handler] of Object.entries(handlers)) removeEventListener(name, handler);
    };
  });
  const choose = (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // so that the same file can be chosen again
    if (files.length) onFiles(files);
  };
  if (!label) return null;
  return html`
    <label class="drop ${isOver ? "over" : ""}">
      <input type="file" accept="audio/*,video/*" multiple=${several} onChange=${choose} />
      <span><b>${label}</b> <span class="dropping">or drop ${several ? "them" : "one"} anywhere</span></span>
    </label>`;
}

/** The files that were dropped, those in folders too. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) { // it returns a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    found.push(...(await Promise.all(some.map(filesOf))).flat());
  }
}

// A request with several files is sent again as a whole if it fails.
const MAX_FILES = 100;
const MAX_BYTES = 200e6;

export function batches(files) {
  const made = [[]];
  let nBytes = 0;
  for (const file of files) {
    if (made.at(-1).length && (made.at(-1).length === MAX_FILES || nBytes + file.size > MAX_BYTES)) {
      made.push([]);
      nBytes = 0;
    }
    made.at(-1).push(file);
    nBytes += file.size;
  }
  return made;
}

/** Jobs of files: `send` uploads some, `take` names paths of the service; `sending` is null or {name, share}. */
export function useSending(kind, { onJob, onProblem }) {
  const [sending, setSending] = useState(null);
  const work = useRef(null);

  // Goes on when another view is opened.
  async function send(files) {
    const controller = new AbortController();
    work.current = controller;
    const { signal } = controller;
    const left = batches(files);
    onProblem(null);
    const nAll = files.length;
    let nSent = 0;
    try {
      while (left.length) {
        const form = new FormData();
        for (const file of left[0]) form.append("file", file, file.name);
        const name = nAll === 1 ? files[0].name : `${nAll} files`;
        const onProgress = (share) => setSending({ name, share: (nSent + share * left[0].length) / nAll });
        onProgress(0);
        onJob(await api.createJob(kind, form, { signal, onProgress }));
        nSent += left.shift().length;
      }
    } catch (error) {
      if (!signal.aborted) onProblem(error, () => send(left.flat()));
    }
    setSending(null);
  }

  const take = (paths) => {
    onProblem(null);
    api.createJob(kind, kind === "scan" ? { path: paths[0] } : { paths })
      .then(onJob, (error) => onProblem(error, () => take(paths)));
  };

  return { sending, send, take, stop: () => work.current?.abort() };
}

export function Sending({ sending, onStop }) {
  if (!sending) return null;
  return html`
    <div class="progress card">
      <span role="status">Sending ${sending.name}…</span>
      <progress aria-label=${`Sending ${sending.name}`} value=${sending.share} max="1" />
      <button class="plain" onClick=${onStop}>Stop</button>
    </div>`;
}
