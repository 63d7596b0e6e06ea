// Jobs: how far they are, and how to cancel them.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";

const PARTS_EVERY_MS = 1000; // that is how often the timeline of a scan grows

export const KINDS = {
  ingest: "Add music", scan: "Scan a recording", dedup: "Find duplicates",
  compact: "Compact the catalog", verify: "Verify the catalog",
};

/** A job as it changes, with its result once it has ended; that of a scan grows until then. */
export function useJob(id, onProblem) {
  const [job, setJob] = useState(null);
  useEffect(() => {
    if (id === null) return undefined;
    const controller = new AbortController();
    watch(id, setJob, controller.signal).catch((error) => {
      if (!controller.signal.aborted) onProblem(error);
    });
    return () => {
      controller.abort();
      setJob(null);
    };
  }, [id]);
  return job;
}

async function watch(id, setJob, signal) {
  const load = async () => {
    const job = await api.job(id);
    // An earlier answer may arrive after a later one.
    if (!signal.aborted) setJob((old) => (old && api.hasEnded(old) ? old : job));
    return job;
  };
  if (api.hasEnded(await load())) return;
  let timer = null;
  const loadSoon = () => {
    timer ??= setTimeout(() => {
      timer = null;
      load().catch(() => {});
    }, PARTS_EVERY_MS);
  };
  try {
    await api.follow(id, (state) => {
      if (api.hasEnded(state)) return;
      setJob((old) => ({ ...old, ...state }));
      if (state.kind === "scan") loadSoon();
    }, signal);
  } finally {
    clearTimeout(timer);
  }
  await load();
}

/** How far a job is, in words. */
export function progressText({ status, progress, cancelled_at: cancelledAt }) {
  if (status === "queued") return "Waits for its turn";
  if (status !== "running") return { done: "Done", failed: "Failed", cancelled: "Cancelled" }[status];
  if (cancelledAt) return "Stops soon";
  if (!progress) return "Begins";
  if (progress.message) return `${progress.message[0].toUpperCase()}${progress.message.slice(1)}`;
  const { done, total, unit } = progress;
  return `${Math.round(done)}${total ? ` of ${Math.round(total)}` : ""} ${unit}`;
}

/** The bar of a job that has not ended, and a button that cancels it. */
export function Progress({ job, name, onProblem }) {
  if (api.hasEnded(job)) return null;
  const { done, total } = job.progress ?? {};
  const cancel = () => api.cancelJob(job.id).catch(onProblem);
  return html`
    <div class="progress">
      <span role="status">${progressText(job)}</span>
      <progress aria-label=${name} value=${total ? done : undefined} max=${total || 1} />
      <button class="plain" onClick=${cancel} aria-label=${`Cancel: ${name}`}
        disabled=${Boolean(job.cancelled_at)}>Cancel</button>
    </div>`;
}
