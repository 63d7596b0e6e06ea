// Activity: the latest queries, the jobs, and how busy the service is while this view is open.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { KINDS, Progress, progressText } from "./jobs.js";
import { SOURCES } from "./listen.js";
import { bytes, confidence, counted, day, fileName, length, nameOf } from "./text.js";

const EVERY_MS = 3000;
const N_KEPT = 60;
const N_JOBS = 20;
const N_QUERIES = 50;
const N_SHOWN = 10; // at first
const PER_MINUTE = 60_000 / EVERY_MS;

export function Activity({ onProblem }) {
  const [{ jobs, queries, stats, samples }, setFound] = useState({ samples: [] }); // of the metrics
  useEffect(() => {
    let timer;
    let isOpen = true;
    const update = async () => {
      try {
        const [jobs, queries, stats, metrics] =
          await Promise.all([api.jobs(), api.recentQueries(N_QUERIES), api.stats(), api.metrics()]);
        if (!isOpen) return;
        setFound((old) => ({ jobs, queries, stats, samples: [...old.samples, parse(metrics)].slice(-N_KEPT - 1) }));
        timer = setTimeout(update, EVERY_MS);
      } catch (error) {
        if (isOpen) onProblem(error, update);
      }
    };
    update();
    return () => {
      isOpen = false;
      clearTimeout(timer);
    };
  }, []);
  return html`
    <section class="activity" aria-label="Activity">
      <h1>Activity</h1>
      ${stats && html`<${Figures} stats=${stats} samples=${samples} />`}
      <h2>Queries</h2>
      ${queries && html`<${Queries} queries=${lastOnes(queries)} />`}
      <h2>Jobs</h2>
      ${jobs && !jobs.length && html`<p class="muted">None so far. Adding music and scanning recordings are jobs.</p>`}
      <ul class="rows jobs">
        ${(jobs ?? []).slice(0, N_JOBS).map((job) => html`<${JobRow} key=${job.id} job=${job} onProblem=${onProblem} />`)}
      </ul>
    </section>`;
}

/** Without those that were followed by one of more of the same listening. */
function lastOnes(queries) {
  const names = Object.values(SOURCES).map((source) => source.name);
  return queries.filter((one, i) => {
    const next = queries[i - 1];
    return !(names.includes(one.name) && next?.name === one.name && next.duration_s > one.duration_s);
  });
}

function Queries({ queries }) {
  const [isWhole, setIsWhole] = useState(false);
  if (!queries.length) return html`<p class="muted">None since the service started.</p>`;
  return html`
    <div>
      <ul class="rows queries">
        ${queries.slice(0, isWhole ? N_QUERIES : N_SHOWN).map((one) => html`<${QueryRow} query=${one} />`)}
      </ul>
      ${!isWhole && queries.length > N_SHOWN && html`
        <button class="plain" onClick=${() => setIsWhole(true)}>Show more</button>`}
    </div>`;
}

function QueryRow({ query: { name, status, best, duration_s: durationS, elapsed_s: elapsedS, answered_at: at } }) {
  const clip = [name ?? "a clip", durationS && counted(Math.round(durationS), "second")].filter(Boolean).join(", ");
  return html`
    <li>
      <${best ? "a" : "div"} class="what" href=${best && `#/library/${best.track_id}`}>
        <b>${best ? nameOf(best) : status === "error" ? "No usable audio" : "Not in the library"}</b>
        <span>${best?.artist}</span>
        <small class="muted">${clip} · ${day(at)} · took ${elapsedS.toFixed(2)} s</small>
      <//>
      ${best && html`<span class="muted">${confidence(best.confidence)}</span>`}
    </li>`;
}

function JobRow({ job, onProblem }) {
  const about = subject(job);
  return html`
    <li>
      <div class="what">
        <b>${KINDS[job.kind]}</b>
        ${about && html`<span class="muted">${about}</span>`}
        <small class="muted">${day(job.created_at)}${api.hasEnded(job) && ` · ${progressText(job)}`}</small>
        ${job.error && html`<small class="error">${job.error.detail}</small>`}
      </div>
      ${job.kind === "scan" && html`<a class="link" href=${`#/recordings/${job.id}`} aria-label=${`Open ${about}`}>Open</a>`}
      <${Progress} job=${job} name=${`${KINDS[job.kind]} ${about}`} onProblem=${onProblem} />
    </li>`;
}

function subject({ options }) {
  const names = options.files ?? options.paths ?? [];
  if (!names.length) return "";
  return names.length === 1 ? options.name ?? fileName(names[0]) : `${fileName(names[0])} and ${names.length - 1} more`;
}

// -- figures ----------------------------------------------------------------------------------

/** Read the text format of Prometheus: values by name, with the labels as they stand. */
function parse(text) {
  const lines = text.split("\n").filter((line) => line && !line.startsWith("#"));
  return new Map(lines.map((line) => {
    const at = line.lastIndexOf(" ");
    return [line.slice(0, at), Number(line.slice(at + 1))];
  }));
}

const sum = (values, start) =>
  [...values].reduce((all, [name, value]) => (name.startsWith(start) ? all + value : all), 0);
const QUEUE = "astound_queue";
const WHOLE = "astound_query_seconds_%{step=\"whole\"}";

/** What happened between each sample and the one before. */
function changes(samples) {
  return samples.slice(1).map((values, i) => {
    const before = samples[i];
    const grown = (read) => Math.max(0, read(values) - read(before)); // a restart begins at 0
    const of = (kind) => (all) => all.get(WHOLE.replace("%", kind)) ?? 0;
    const n = grown(of("count"));
    return { nQueries: grown((all) => sum(all, "astound_queries_total")), meanS: n ? grown(of("sum")) / n : 0,
      nRefused: grown((all) => sum(all, "astound_refusals_total")), nWaiting: values.get(QUEUE) ?? 0 };
  });
}

function Figures({ stats, samples }) {
  const values = samples.at(-1);
  const rows = changes(samples);
  const [nQueries, nRefused] = ["queries", "refusals"].map((what) => sum(values, `astound_${what}_total`));
  const nMatches = values.get('astound_queries_total{status="match"}') ?? 0;
  const n = values.get(WHOLE.replace("%", "count"));
  const meanS = n ? values.get(WHOLE.replace("%", "sum")) / n : null;
  return html`
    <div>
      <dl class="figures">
        <${Figure} name="Tracks" value=${stats.n_tracks} about=${`${length(stats.duration_s)}, ${bytes(stats.n_bytes)}`} />
        <${Figure} name="Queries" value=${nQueries} about=${`${nMatches.toLocaleString("en")} found`}
          values=${rows.map((row) => PER_MINUTE * row.nQueries)} unit="a minute" />
        <${Figure} name="Answer time" value=${meanS === null ? "–" : `${meanS.toFixed(2)} s`} about="mean, with waiting"
          values=${rows.map((row) => row.meanS)} unit="seconds" />
        <${Figure} name="Queue" value=${values.get(QUEUE) ?? 0} about="running or waiting"
          values=${rows.map((row) => row.nWaiting)} unit="queries" />
        <${Figure} name="Refused" value=${nRefused} about="requests"
          values=${rows.map((row) => PER_MINUTE * row.nRefused)} unit="a minute" />
      </dl>
      <p class="muted"><small>Numbers since the service started. Charts of the last three minutes, while this view is open.</small></p>
    </div>`;
}

function Figure({ name, value, about, values, unit }) {
  return html`
    <div>
        <dt>${name}</dt><dd>${value.toLocaleString("en")}</dd><dd class="muted">${about}</dd>
        ${values && html`<dd><${Chart} values=${values} name=${name} unit=${unit} /></dd>`}
    </div>`;
}

/** Bars of some values, the latest at the right. */
function Chart({ values, name, unit }) {
  const most = Math.max(...values, 0);
  const first = N_KEPT - values.length;
  const bars = values.map((value, i) => (value ? `M${first + i + 0.5} 32v${(-31 * value) / most}` : "")).join("");
  const text = `${name}: at most ${Number(most.toFixed(2))} ${unit}`;
  return html`
    <svg class="chart" role="img" aria-label=${text} viewBox=${`0 0 ${N_KEPT} 32`} preserveAspectRatio="none">
      <title>${text}</title>
      <path d=${bars} />
    </svg>`;
}
