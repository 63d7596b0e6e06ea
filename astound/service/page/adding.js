// Adding music: files that are chosen or dropped, or folders of the service; and what became of them.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { FileChooser, Sending, useSending } from "./files.js";
import { Progress, useJob } from "./jobs.js";
import { MediaFolder } from "./media.js";
import { counted, fileName } from "./text.js";

export function Adding({ onAdded, onProblem }) {
  const [ids, setIds] = useState([]); // of jobs
  const add = (job) => setIds((old) => (old.includes(job.id) ? old : [...old, job.id]));
  const { sending, send, take, stop } = useSending("ingest", { onJob: add, onProblem });
  useEffect(() => {
    api.jobs().then((jobs) => {
      jobs.filter((job) => job.kind === "ingest" && !api.hasEnded(job)).reverse().forEach(add);
    }, () => {});
  }, []);
  return html`
    <section class="adding" aria-label="Add music">
      <${FileChooser} label=${sending ? null : "Add music: choose files"} several onFiles=${send} />
      <${MediaFolder} several onPaths=${take} onProblem=${onProblem} />
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
    <ul class="reasons" tabindex="0">${records.map(({ path, reason }) => html`<li><b>${fileName(path)}</b>: ${reason}</li>`)}</ul>`;
}
