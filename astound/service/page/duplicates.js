// Duplicates: tracks that contain the same recording, side by side; listen, and keep one.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { useDeletion, Toasts } from "./deletion.js";
import { KINDS, Progress, useJob } from "./jobs.js";
import { TrackPlace } from "./place.js";
import { clock, counted, day, nameOf } from "./text.js";

const N_SHOWN = 10; // the waveform of each is decoded
const WORDS = {
  full: "The same recording",
  version: "Another version of the same recording",
  part: "They share a part",
};

export function Duplicates({ onProblem }) {
  const [id, setId] = useState(null);
  const [isLoaded, setIsLoaded] = useState(false);
  const job = useJob(id, onProblem);
  useEffect(() => {
    const load = () => api.jobs().then((jobs) => {
      setId(jobs.find((one) => one.kind === "dedup" && one.status !== "failed")?.id ?? null);
      setIsLoaded(true);
    }, (error) => onProblem(error, load));
    load();
  }, []);
  const search = () =>
    api.createJob("dedup").then((made) => setId(made.id), (error) => onProblem(error, search));
  const isBusy = job && !api.hasEnded(job);
  return html`
    <section class="duplicates" aria-label="Duplicates">
      <h1>Duplicates</h1>
      <p>Tracks that contain the same recording, in full or in part.</p>
      ${isLoaded && !isBusy && html`
        <button onClick=${search}>${job ? "Search again" : "Search the library"}</button>`}
      ${job && html`<${Progress} job=${job} name=${KINDS.dedup} onProblem=${onProblem} />`}
      ${job?.error && html`<p class="card trouble" role="alert">${job.error.detail}</p>`}
      ${job?.result && html`<${Pairs} key=${job.id} job=${job} onProblem=${onProblem} />`}
    </section>`;
}

function Pairs({ job, onProblem }) {
  const [nShown, setNShown] = useState(N_SHOWN);
  const [deleted, deletion] = useDeletion(onProblem);
  const [missing, setMissing] = useState(new Set());
  const gone = new Set([...deleted.map((track) => track.id), ...missing]);
  const pairs = job.result.duplicates.filter((pair) => !gone.has(pair.first_id) && !gone.has(pair.second_id));
  const drop = (id) => setMissing((old) => new Set([...old, id]));
  return html`
    <div>
      <p class="muted" role="status">${counted(pairs.length, "pair")}, searched ${day(job.finished_at)}</p>
      ${pairs.slice(0, nShown).map((pair) => html`
        <${Pair} key=${`${pair.first_id} ${pair.second_id}`} pair=${pair} onDelete=${deletion.begin}
          onMissing=${drop} onProblem=${onProblem} />`)}
      ${pairs.length > nShown && html`
        <button class="more" onClick=${() => setNShown(nShown + N_SHOWN)}>Show more</button>`}
      ${!pairs.length && html`<p class="card">No track contains another one.</p>`}
      <${Toasts} deleted=${deleted} deletion=${deletion} />
    </div>`;
}

function Pair({ pair, onDelete, onMissing, onProblem }) {
  const [tracks, setTracks] = useState(null);
  useEffect(() => {
    const load = (id) => api.track(id).catch((error) => {
      if (error.code === "track_not_found") onMissing(id);
      throw error;
    });
    Promise.all([load(pair.first_id), load(pair.second_id)]).then(setTracks, () => {});
  }, []);
  if (!tracks) return null;
  const side = (index, key) => html`
    <${Side} track=${tracks[index]} other=${tracks[1 - index]} share=${pair[`${key}_share`]}
      isBest=${pair.keeper_id === tracks[index].id} onProblem=${onProblem}
      parts=${pair.passages.map((one) => ({ startS: one[`${key}_start_s`], endS: one[`${key}_end_s`] }))}
      onKeep=${() => onDelete(tracks[1 - index])} />`;
  return html`
    <article class="card pair-card" aria-label=${`${nameOf(tracks[0])} and ${nameOf(tracks[1])}`}>
      <h2>${WORDS[pair.kind]}</h2>
      <div class="sides">${side(0, "first")}${side(1, "second")}</div>
    </article>`;
}

function Side({ track, other, parts, share, isBest, onKeep, onProblem }) {
  const name = nameOf(track);
  return html`
    <div class="side">
      <h3 tabindex="-1" data-track=${track.id}>${name}</h3>
      <p>${track.artist ?? "no artist"}</p>
      <p class="muted path">${track.path}</p>
      <p>${clock(track.duration_s)}, ${Math.round(100 * share)} % in the other${isBest && " · best quality"}</p>
      <${TrackPlace} track=${{ id: track.id, name, durationS: track.duration_s }} parts=${parts} onProblem=${onProblem} />
      <button class=${isBest ? "" : "plain"} onClick=${onKeep}
        aria-label=${`Keep this ${name} (track ${track.id}), delete track ${other.id}`}>Keep this one</button>
    </div>`;
}
