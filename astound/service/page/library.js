// Library: search and browse the tracks, add some, edit what is noted, delete with undo.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { useDeletion, Toasts } from "./deletion.js";
import { FileChooser, PathForm, Sending, useSending } from "./files.js";
import { Progress, useJob } from "./jobs.js";
import { clock, counted, fileName, length, nameOf } from "./text.js";

const PAGE = 50;
const TYPING_MS = 200;
const TAGS = ["title", "artist", "album", "isrc"];
const LABELS = { title: "Title", artist: "Artist", album: "Album", isrc: "ISRC" };

export function Library({ onProblem }) {
  const [search, setSearch] = useState("");
  const [list, setList] = useState(null); // {tracks, next, search}
  const [stats, setStats] = useState(null);
  const [edited, setEdited] = useState(null);
  const [deleted, deletion] = useDeletion(onProblem);

  const reload = () => api.stats().then(setStats, () => {});
  useEffect(() => void reload(), []);
  useEffect(() => {
    const controller = new AbortController();
    const timer = setTimeout(() => load({ search, signal: controller.signal }), list ? TYPING_MS : 0);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [search]);

  async function load({ search, cursor = 0, before = [], signal }) {
    try {
      const page = await api.tracks({ search, cursor, limit: PAGE }, signal);
      setList({ tracks: [...before, ...page.tracks], next: page.next, search });
    } catch (error) {
      if (error.name !== "AbortError") onProblem(error, () => load({ search, cursor, before }));
    }
  }

  function replace(track) {
    setList({ ...list, tracks: list.tracks.map((one) => (one.id === track.id ? track : one)) });
    setEdited(null);
  }

  const refresh = () => {
    reload();
    load({ search });
  };
  const hidden = new Set(deleted.map((track) => track.id));
  const shown = (list?.tracks ?? []).filter((track) => !hidden.has(track.id));
  return html`
    <section class="library" aria-label="Library">
      <h1>Library</h1>
      <div class="tools">
        <input type="search" placeholder="Search title, artist, album or file" aria-label="Search"
          value=${search} onInput=${(event) => setSearch(event.target.value)} />
        <div class="summary"><p class="muted" role="status">${stats && summary(stats, list, shown)}</p>
          <a href="#/duplicates">Find duplicates</a></div>
      </div>
      <${Adding} onAdded=${refresh} onProblem=${onProblem} />
      ${list && !shown.length && html`<${Nothing} search=${list.search} isEmpty=${stats?.n_tracks === 0} />`}
      <ul class="tracks">
        ${shown.map((track) => html`
          <${Row} key=${track.id} track=${track} onEdit=${() => setEdited(track)}
            onDelete=${() => deletion.begin(track)} />`)}
      </ul>
      ${list?.next && html`
        <${More} onMore=${() => load({ search: list.search, cursor: list.next, before: list.tracks })} />`}
      ${edited && html`
        <${Editor} track=${edited} onSaved=${replace} onClose=${() => setEdited(null)} onProblem=${onProblem} />`}
      <${Toasts} deleted=${deleted} deletion=${deletion} />
    </section>`;
}

function summary(stats, list, shown) {
  if (!list?.search) return `${counted(stats.n_tracks, "track")}, ${length(stats.duration_s)}`;
  return `${list.next ? "the first " : ""}${counted(shown.length, "track")} found`;
}

function Nothing({ search, isEmpty }) {
  if (search) return html`<p class="card">No track has “${search}” in its tags or its path.</p>`;
  if (!isEmpty) return null;
  return html`
    <p class="card">Your library is empty. Add some music above. On the computer that runs astound, this adds a folder:
      <code>astound add ~/Music</code></p>`;
}

// -- adding -----------------------------------------------------------------------------------

function Adding({ onAdded, onProblem }) {
  const [ids, setIds] = useState([]); // of jobs
  const add = (job) => setIds((old) => (old.includes(job.id) ? old : [...old, job.id]));
  const { sending, send, name, stop } = useSending("ingest", { onJob: add, onProblem });
  useEffect(() => {
    api.jobs().then((jobs) => {
      jobs.filter((job) => job.kind === "ingest" && !api.hasEnded(job)).reverse().forEach(add);
    }, () => {});
  }, []);
  return html`
    <section class="adding" aria-label="Add music">
      <${FileChooser} label=${sending ? null : "Add music: choose files"} several onFiles=${send} />
      <${PathForm} hint="Folder or file" verb="Add" onPath=${name} />
      <${Sending} sending=${sending} onStop=${stop} />
      ${ids.map((id) => html`
        <${Ingest} key=${id} id=${id} onAdded=${onAdded} onProblem=${onProblem}
          onClose=${() => setIds((old) => old.filter((one) => one !== id))} />`)}
    </section>`;
}

function Ingest({ id, onAdded, onClose, onProblem }) {
  const job = useJob(id, onProblem);
  const hasEnded = job && api.hasEnded(job);
  useEffect(() => {
    if (hasEnded) onAdded();
  }, [hasEnded]);
  if (!job) return null;
  if (!hasEnded) return html`<div class="card"><${Progress} job=${job} name="Add music" onProblem=${onProblem} /></div>`;
  const { added = [], skipped = [], failed = [], warned = [] } = job.result ?? {};
  const isBad = job.status === "failed" || failed.length > 0;
  return html`
    <div class="card outcome ${isBad ? "trouble" : ""}" role="status">
      <p><b>${job.status === "done" ? "" : `${job.status === "failed" ? "Failed" : "Cancelled"}. `}${counted(added.length, "track")} added.</b>
        ${skipped.length > 0 && ` ${counted(skipped.length, "file")} already in the library.`}
        ${failed.length > 0 && ` ${counted(failed.length, "file")} could not be added:`}</p>
      ${job.error && html`<p>${job.error.detail}</p>`}
      <${Reasons} records=${failed} /><${Reasons} records=${warned} />
      <button class="plain" onClick=${onClose}>Close</button>
    </div>`;
}

function Reasons({ records }) {
  if (!records.length) return null;
  return html`
    <ul class="reasons">${records.map(({ path, reason }) => html`<li><b>${fileName(path)}</b>: ${reason}</li>`)}</ul>`;
}

// -- the tracks -------------------------------------------------------------------------------

function Row({ track, onEdit, onDelete }) {
  const name = nameOf(track);
  const about = [track.artist, track.album].filter(Boolean).join(" · ");
  return html`
    <li>
      <div class="what">
        <b>${name}</b>
        <span>${about}</span>
        ${track.title && html`<small class="muted" title=${track.path}>${fileName(track.path)}</small>`}
      </div>
      <time class="muted">${clock(track.duration_s)}</time>
      <button class="plain" onClick=${onEdit} aria-label=${`Edit ${name}`}>Edit</button>
      <button class="plain" onClick=${onDelete} aria-label=${`Delete ${name}`}>Delete</button>
    </li>`;
}

/** Loads the next page when it is scrolled to, or pressed. */
function More({ onMore }) {
  const button = useRef(null);
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && onMore());
    observer.observe(button.current);
    return () => observer.disconnect();
  });
  return html`<button ref=${button} class="more" onClick=${onMore}>Show more</button>`;
}

// -- editing ----------------------------------------------------------------------------------

function Editor({ track, onSaved, onClose, onProblem }) {
  const dialog = useRef(null);
  const [pairs, setPairs] = useState(Object.entries(track.metadata));
  useEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    return () => before?.focus();
  }, []);

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
