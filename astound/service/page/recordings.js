// Recordings: which tracks are in a mix or an hour of radio, and when.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { FileChooser, Sending, useSending } from "./files.js";
import { KINDS, Progress, progressText, useJob } from "./jobs.js";
import { MediaFolder } from "./media.js";
import { TrackPlace } from "./place.js";
import { clock, confidence, counted, day, fileName, nameOf } from "./text.js";

const FORMATS = [
  { format: "cue", name: "CUE sheet", suffix: ".cue" },
  { format: "audacity", name: "Audacity labels", suffix: ".txt" },
  { format: "csv", name: "CSV", suffix: ".csv" },
];

export function Recordings({ part, onProblem }) {
  const open = (job) => { // unless another view was opened meanwhile
    if (location.hash === "#/recordings") location.hash = `#/recordings/${job.id}`;
  };
  const { sending, send, take, stop } = useSending("scan", { onJob: open, onProblem });
  const id = /^\d+$/.test(part) ? Number(part) : null;
  return html`
    <section class="recordings" aria-label="Recordings">
      <h1>Recordings</h1>
      ${id === null
        ? html`
          <p>Which tracks are in a mix, or in an hour of radio?</p>
          <${FileChooser} label=${sending ? null : "Choose a recording"} onFiles=${([file]) => send([file])} />
          <${MediaFolder} onPaths=${take} onProblem=${onProblem} />
          <${Sending} sending=${sending} onStop=${stop} />
          <${Scans} onProblem=${onProblem} />`
        : html`
          <a class="link" href="#/recordings">All recordings</a>
          <${Scan} key=${id} id=${id} onProblem=${onProblem} />`}
    </section>`;
}

function Scans({ onProblem }) {
  const [jobs, setJobs] = useState([]);
  useEffect(() => {
    const load = () => api.jobs().then(
      (all) => setJobs(all.filter((job) => job.kind === "scan")), (error) => onProblem(error, load));
    load();
  }, []);
  if (!jobs.length) return null;
  return html`
    <div>
      <h2>Scanned</h2>
      <ul class="tracks">
        ${jobs.map((job) => html`
          <li key=${job.id}>
            <a class="what" href=${`#/recordings/${job.id}`}><b>${recordingOf(job)}</b>
              <span class="muted">${progressText(job)} · ${day(job.created_at)}</span></a>
          </li>`)}
      </ul>
    </div>`;
}

const recordingOf = ({ options }) => options.name ?? fileName((options.files ?? options.paths)[0]);

function Scan({ id, onProblem }) {
  const job = useJob(id, onProblem);
  if (!job) return null;
  if (job.kind !== "scan") return html`<p class="card">Job ${id} is no scan.</p>`;
  const { result } = job;
  const trouble = job.error?.detail ?? result?.error?.message;
  return html`
    <article aria-label=${recordingOf(job)}>
      <h2>${recordingOf(job)}</h2>
      <${Progress} job=${job} name=${KINDS.scan} onProblem=${onProblem} />
      ${job.status === "cancelled" && html`<p class="muted">Cancelled; this is what was found until then.</p>`}
      ${trouble && html`<p class="card trouble" role="alert">${trouble}</p>`}
      ${result && html`<${Timeline} result=${result} isDone=${api.hasEnded(job)} onProblem=${onProblem} />`}
      ${result?.entries.length > 0 && html`<${Exports} job=${job} onProblem=${onProblem} />`}
    </article>`;
}

/** The colour of a track among those of a timeline: it keeps it when it occurs again. */
function hues(entries) {
  const ids = [...new Set(entries.map((entry) => entry.track_id))];
  return new Map(ids.map((id, i) => [id, (250 + 137.5 * i) % 360]));
}

function Timeline({ result, isDone, onProblem }) {
  const [chosen, setChosen] = useState(null); // index of an entry
  const { entries, gaps, duration_s: durationS, start_s: startS } = result;
  if (!durationS) return null;
  const hueOf = hues(entries);
  const rows = [
    ...entries.map((entry, index) => ({ fromS: entry.query_start_s, toS: entry.query_end_s, entry, index })),
    ...gaps.map((gap) => ({ fromS: gap.start_s, toS: gap.end_s })),
  ].sort((one, other) => one.fromS - other.fromS);
  const choose = (index) => setChosen(index === chosen ? null : index);
  const knownS = durationS - gaps.reduce((sum, gap) => sum + gap.end_s - gap.start_s, 0);
  return html`
    <div>
      <p role="status">${counted(entries.length, "entry", "entries")} in ${clock(durationS)};
        ${" "}${Math.round((100 * knownS) / durationS)} % of it known${isDone ? "" : " so far"}.</p>
      <div class="timeline" aria-hidden="true">
        ${lanes(entries).map((lane) => html`
          <div class="lane">
            ${lane.map((index) => {
              const entry = entries[index];
              const style = {
                "--hue": hueOf.get(entry.track_id),
                left: `${(100 * (entry.query_start_s - startS)) / durationS}%`,
                width: `${(100 * (entry.query_end_s - entry.query_start_s)) / durationS}%`,
              };
              return html`<button tabindex="-1" class=${index === chosen ? "chosen" : ""} style=${style}
                title=${nameOf(entry)} onClick=${() => setChosen(index)}>${nameOf(entry)}</button>`;
            })}
          </div>`)}
        <div class="scale"><span>${clock(startS)}</span><span>${clock(startS + durationS)}</span></div>
      </div>
      <table class="entries">
        <caption class="hidden">What is in the recording, in order of time</caption>
        <thead><tr><th scope="col">From</th><th scope="col">To</th><th scope="col">Track</th></tr></thead>
        <tbody>
          ${rows.map(({ fromS, toS, entry, index }) => html`
            <tr key=${`${fromS} ${index}`} class=${index === undefined ? "muted" : ""}>
              <td>${clock(fromS)}</td><td>${clock(toS)}</td>
              <td>${entry
                ? html`<${EntryCell} entry=${entry} hue=${hueOf.get(entry.track_id)} isOpen=${index === chosen}
                    onToggle=${() => choose(index)} onProblem=${onProblem} />`
                : "unknown"}</td>
            </tr>`)}
        </tbody>
      </table>
    </div>`;
}

/** Indices of the entries in as few rows as show none above another. */
function lanes(entries) {
  const made = [];
  entries.forEach((entry, index) => {
    const lane = made.find((one) => entries[one.at(-1)].query_end_s <= entry.query_start_s + 0.5);
    if (lane) lane.push(index);
    else made.push([index]);
  });
  return made.length ? made : [[]];
}

function EntryCell({ entry, hue, isOpen, onToggle, onProblem }) {
  const place = useRef(null);
  const name = nameOf(entry);
  useEffect(() => {
    if (isOpen) place.current.scrollIntoView({ block: "nearest" });
  }, [isOpen]);
  const parts = [{ startS: entry.reference_start_s, endS: entry.reference_end_s }];
  return html`
    <div>
      <button class="entry" aria-expanded=${isOpen} onClick=${onToggle} style=${{ "--hue": hue }}>
        <b>${name}</b>${entry.artist && html`<span>${entry.artist}</span>`}</button>
      ${isOpen && html`
        <div class="entry-place" ref=${place}>
          <${TrackPlace} track=${{ id: entry.track_id, name }} parts=${parts} isPlaying onProblem=${onProblem} />
          <small class="muted">From ${clock(entry.reference_start_s)} of the track. ${confidence(entry.confidence)}.</small>
        </div>`}
    </div>`;
}

function Exports({ job, onProblem }) {
  const save = async ({ format, suffix }) => {
    try {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await api.timeline(job.id, format));
      link.download = recordingOf(job).replace(/\.[^.]*$/, "") + suffix;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (error) {
      onProblem(error);
    }
  };
  return html`
    <div class="exports">
      <span>Save as</span>
      ${FORMATS.map((one) => html`<button class="plain" onClick=${() => save(one)}>${one.name}</button>`)}
    </div>`;
}
