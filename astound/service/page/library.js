// Library: search and browse the tracks, listen to one, edit what is noted, delete with undo.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { Adding } from "./adding.js";
import { useDeletion, Toasts } from "./deletion.js";
import { Editor } from "./editor.js";
import { TrackPlace } from "./place.js";
import { clock, counted, day, fileName, length, nameOf } from "./text.js";

const PAGE = 50;
const TYPING_MS = 200;

export function Library({ part, onProblem }) {
  const [search, setSearch] = useState("");
  const [list, setList] = useState(null); // {tracks, next, search}
  const [stats, setStats] = useState(null);
  const [edited, setEdited] = useState(null);
  const [opened, setOpened] = useState(null); // the track that the address names
  const reload = () => api.stats().then(setStats, () => {});
  const [deleted, deletion] = useDeletion(onProblem, reload);
  const id = /^\d+$/.test(part) ? Number(part) : null;

  useEffect(() => void reload(), []);
  useEffect(() => {
    setOpened(null);
    const open = () => api.track(id).then(setOpened, (error) => onProblem(error, open));
    if (id) open();
  }, [id]);
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
    setList((old) => old && { ...old, tracks: old.tracks.map((one) => (one.id === track.id ? track : one)) });
    if (opened) setOpened(track);
    setEdited(null);
  }

  function remove(track) {
    deletion.begin(track);
    if (id) location.hash = "#/library";
  }

  const refresh = () => {
    reload();
    load({ search });
  };
  const hidden = new Set(deleted.map((track) => track.id));
  const shown = (list?.tracks ?? []).filter((track) => !hidden.has(track.id));
  const nWaiting = deleted.filter((track) => !track.isGone).length;
  const browse = html`
      <div class="tools">
        <input type="search" placeholder="Search title, artist, album or file" aria-label="Search"
          value=${search} onInput=${(event) => setSearch(event.target.value)} />
        <div class="summary"><p class="muted" role="status">${stats && summary(stats, nWaiting, list, shown)}</p>
          <a class="link" href="#/duplicates">Find duplicates</a></div>
      </div>
      <${Adding} onAdded=${refresh} onProblem=${onProblem} />
      ${list && !shown.length && html`<${Nothing} search=${list.search} isEmpty=${stats?.n_tracks === 0} />`}
      <ul class="tracks">
        ${shown.map((track) => html`
          <${Row} key=${track.id} track=${track} onEdit=${() => setEdited(track)}
            onDelete=${() => remove(track)} />`)}
      </ul>
      ${list?.next && html`
        <${More} onMore=${() => load({ search: list.search, cursor: list.next, before: list.tracks })} />`}`;
  return html`
    <section class="library" aria-label="Library">
      <h1>Library</h1>
      ${id === null ? browse : html`<a class="link" href="#/library">All tracks</a>`}
      ${id !== null && opened && html`
        <${OneTrack} key=${id} track=${opened} onEdit=${() => setEdited(opened)} onDelete=${() => remove(opened)}
          onProblem=${onProblem} />`}
      ${edited && html`
        <${Editor} track=${edited} onSaved=${replace} onClose=${() => setEdited(null)} onProblem=${onProblem} />`}
      <${Toasts} deleted=${deleted} deletion=${deletion} />
    </section>`;
}

function summary(stats, nWaiting, list, shown) {
  if (!list?.search) return `${counted(stats.n_tracks - nWaiting, "track")}, ${length(stats.duration_s)}`;
  return `${list.next ? "the first " : ""}${counted(shown.length, "track")} found`;
}

function Nothing({ search, isEmpty }) {
  if (search) return html`<p class="card">No track has “${search}” in its tags or its path.</p>`;
  if (!isEmpty) return null;
  return html`
    <p class="card">Your library is empty. Add some music above. On the computer that runs astound, this adds a folder:
      ${" "}<code>astound add ~/Music</code></p>`;
}

// -- the tracks -------------------------------------------------------------------------------

function Row({ track, onEdit, onDelete }) {
  const name = nameOf(track);
  const about = [track.artist, track.album].filter(Boolean).join(" · ");
  return html`
    <li>
      <a class="what" data-track=${track.id} href=${`#/library/${track.id}`}>
        <b>${name}</b>
        <span>${about}</span>
        ${track.title && html`<small class="muted" title=${track.path}>${fileName(track.path)}</small>`}
      </a>
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

/** One track: what is noted of it, and its sound. */
function OneTrack({ track, onEdit, onDelete, onProblem }) {
  const name = nameOf(track);
  const facts = [
    ["Artist", track.artist], ["Album", track.album], ["ISRC", track.isrc], ...Object.entries(track.metadata),
    ["Length", clock(track.duration_s)], ["Added", day(track.added_at)], ["File", track.path],
  ];
  return html`
    <article class="card one" aria-label=${name}>
      <h2>${name}</h2>
      <${TrackPlace} track=${{ id: track.id, name, durationS: track.duration_s }} parts=${[]} onProblem=${onProblem} />
      <dl class="facts">
        ${facts.filter(([, value]) => value).map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd>${value}</dd></div>`)}
      </dl>
      <button class="plain" onClick=${onEdit} aria-label=${`Edit ${name}`}>Edit</button>
      <button class="plain" onClick=${onDelete} aria-label=${`Delete ${name}`}>Delete</button>
    </article>`;
}
