// Identify: listen to the microphone or to this computer, or take a file, and show the answer.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { FileChooser } from "./files.js";
import { Recorder, SOURCES, canRecordComputer, obstacle, sourceProblem } from "./listen.js";
import { Bar, TrackPlace } from "./place.js";
import { clock, confidence, nameOf, played } from "./text.js";

// When what was recorded so far is queried, in seconds; the last one is the end.
const QUERY_AT_S = [3, 5, 8, 12, 16];
const END_S = QUERY_AT_S.at(-1);
// Several queries of one recording have several chances to be wrong.
const SURE = 0.97;
const FILE_END_S = 60;
const LEAST_S = 1;
const BORDER_S = 0.5; // a match covers its clip if it leaves out less
const TOO_SHORT = "The sound ended before there was enough of it.";

export function Identify({ onProblem }) {
  const [state, setState] = useState({ step: "idle" });
  const [level, setLevel] = useState(0);
  const work = useRef(null);
  const stop = () => work.current?.abort();
  useEffect(() => stop, []);

  async function run(task) {
    stop();
    const controller = new AbortController();
    work.current = controller;
    const show = (next) => controller.signal.aborted || setState(next);
    try {
      show(await task(controller.signal, show));
    } catch (error) {
      if (controller.signal.aborted) return;
      setState({ step: "idle" });
      if (error instanceof api.Problem) onProblem(error, () => run(task));
      else setState({ step: "trouble", reason: error.message });
    }
  }

  const listen = (source) => run(async (signal, show) => {
    show({ step: "asking", source });
    let recorder;
    try {
      recorder = await Recorder.start(source, (peak) => setLevel((old) => Math.max(peak, 0.8 * old)));
    } catch (error) {
      return { step: "trouble", reason: sourceProblem(source, error) };
    }
    signal.addEventListener("abort", () => recorder.stop());
    try {
      if (!signal.aborted) return await whileListening(source, recorder, signal, show);
    } finally {
      recorder.stop();
      setLevel(0);
    }
  });

  async function whileListening(source, recorder, signal, show) {
    const ticking = setInterval(() => {
      show({ step: "listening", source, seconds: recorder.seconds, isSilent: recorder.isSilent });
    }, 200);
    try {
      for (const atS of QUERY_AT_S) {
        while (recorder.seconds < atS && !recorder.hasEnded && !signal.aborted) await pause(50);
        if (signal.aborted) return { step: "idle" };
        const isLast = atS === END_S || recorder.hasEnded;
        if (recorder.seconds < LEAST_S) return { step: "trouble", reason: TOO_SHORT };
        if (recorder.isSilent && !isLast) continue;
        const clip = recorder.wav();
        const result = await api.query(clip, { name: source.name }, { signal });
        const isSure = result.matches[0]?.confidence >= SURE;
        if (isSure || isLast) return { step: "answer", result, clip, isLive: true };
      }
    } finally {
      clearInterval(ticking);
    }
  }

  const take = (file) =>
    run(async (signal, show) => {
      show({ step: "sending", name: file.name, share: 0 });
      const onProgress = (share) => show({ step: "sending", name: file.name, share });
      const onWait = () => show({ step: "waiting", name: file.name });
      const parameters = { name: file.name, end: FILE_END_S };
      const result = await api.query(file, parameters, { signal, onProgress, onWait });
      return { step: "answer", result, clip: file };
    });

  const cancel = () => {
    stop();
    setState({ step: "idle" });
  };
  const isBusy = ["asking", "listening", "sending", "waiting"].includes(state.step);
  useEffect(() => {
    // What was pressed may be gone.
    if (isBusy && document.activeElement === document.body) document.querySelector(".listen").focus();
  }, [isBusy]);
  return html`
    <section class="identify" aria-label="Identify">
      <h1>What is playing?</h1>
      <${Microphone} state=${state} level=${level} isBusy=${isBusy}
        onStart=${() => listen(SOURCES.microphone)} onStop=${cancel} />
      <p class="status" role="status">${statusText(state)}</p>
      ${state.step === "answer" && html`<${Answer} key=${state.result} ...${state} onProblem=${onProblem} />`}
      ${state.step === "trouble" && html`<p class="card trouble" role="alert">${state.reason}</p>`}
      ${canRecordComputer() && !isBusy && html`
        <button class="plain computer" onClick=${() => listen(SOURCES.computer)}>
          <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M3 5h18v11H3zM9 20h6M12 16v4M9.5 9v3M12 8v5M14.5 9v3" /></svg>
          This computer’s sound</button>`}
      <${FileChooser} label=${isBusy ? null : "Choose a file"} onFiles=${([file]) => take(file)} />
    </section>`;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function statusText(state) {
  switch (state.step) {
    case "idle": return obstacle() ? "" : "Plays near you? Press the button.";
    case "asking": return state.source.request;
    case "listening":
      if (state.isSilent && state.seconds > 2) return state.source.silence;
      return "Listening…";
    case "sending": return state.share < 1 ? `Sending ${state.name}…` : `Searching for ${state.name}…`;
    case "waiting": return "The service is busy or still loading. Waiting…";
    default: return "";
  }
}

function Microphone({ state, level, isBusy, onStart, onStop }) {
  const reason = obstacle();
  if (reason && !isBusy) return html`<p class="card trouble" role="note">${reason} You can still choose a file.</p>`;
  const isListening = state.step === "listening" || state.step === "asking";
  const share = state.step === "listening" ? Math.min(1, state.seconds / END_S) : (state.share ?? 0);
  return html`
    <button class="listen ${isListening ? "on" : ""}" onClick=${isBusy ? onStop : onStart}
      style=${{ "--share": share, "--level": Math.min(1, 2 * Math.sqrt(level)) }}>
      <svg viewBox="0 0 24 24" aria-hidden="true">
        ${isBusy
          ? html`<rect x="7" y="7" width="10" height="10" rx="1.5" />`
          : html`<path d="M12 3a3 3 0 0 0-3 3v6a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3Zm-6.5 9a6.5 6.5 0 0 0 13 0M12 18.5V21" />`}
      </svg>
      <span>${isBusy ? "Stop" : "Listen"}</span>
    </button>`;
}

// -- the answer -------------------------------------------------------------------------------

function Answer({ result, clip, isLive, onProblem }) {
  const heading = useRef(null);
  useEffect(() => heading.current?.focus(), [result]);
  if (result.status === "error") {
    const reason = result.error.message.replace(`${result.query}: `, "");
    return html`
      <article class="card trouble">
        <h2 ref=${heading} tabindex="-1">That did not work</h2>
        <p>${result.query}: ${reason}.</p>
      </article>`;
  }
  if (!result.matches.length) {
    return html`
      <article class="card">
        <h2 ref=${heading} tabindex="-1">Not in your library</h2>
        <p>${Math.round(result.duration_s)} seconds were searched, and no track fits.
          ${isLive ? " Closer to the music, or at another place in it, it may work." : ""}</p>
        <${Limit} result=${result} isLive=${isLive} />
        <${Why} clip=${clip} onProblem=${onProblem} />
      </article>`;
  }
  return html`
    <article class="card answer">
      ${result.matches.map((match, i) => html`
        <${Found} key=${match.rank} match=${match} result=${result} heading=${i ? null : heading} onProblem=${onProblem} />`)}
      ${result.warnings.map((text) => html`<p class="muted">${text}</p>`)}
      <${Limit} result=${result} isLive=${isLive} />
      <${Why} clip=${clip} onProblem=${onProblem} />
    </article>`;
}

/** That a file may go on behind the part that was searched. */
function Limit({ result, isLive }) {
  if (isLive || result.duration_s < FILE_END_S - BORDER_S) return null;
  return html`<p class="muted">Only the first minute was searched. Recordings searches a whole file.</p>`;
}

/** A match: what it is, where in the track, and where in the clip if there is more in it. */
function Found({ match, result, heading, onProblem }) {
  const parts = [{ startS: match.reference_start_s, endS: match.reference_end_s }];
  const name = nameOf(match);
  const isPart = match.query_start_s > BORDER_S || match.query_end_s < result.duration_s - BORDER_S;
  return html`
    <section class="found" aria-label=${name}>
      <h2 ref=${heading} tabindex="-1">${name}</h2>
      ${match.artist && html`<p class="artist">${match.artist}</p>`}
      <p class="sure">${confidence(match.confidence)}</p>
      ${isPart && html`<${ClipPlace} match=${match} durationS=${result.duration_s} />`}
      <p class="place">At <b>${clock(match.reference_start_s)}</b> of the track
        <span class="muted"> (${clock(match.reference_start_s)} to ${clock(match.reference_end_s)} was recognised)</span></p>
      <${TrackPlace} track=${{ id: match.track_id, name }} parts=${parts} onProblem=${onProblem} />
      ${played(match) && html`<p>${played(match)}</p>`}
    </section>`;
}

function ClipPlace({ match, durationS }) {
  const [startS, endS] = [match.query_start_s, match.query_end_s];
  const range = `${clock(startS)} to ${clock(endS)}`;
  return html`
    <p class="place">In the clip from <b>${clock(startS)}</b> to <b>${clock(endS)}</b></p>
    <${Bar} parts=${[{ startS, endS }]} durationS=${durationS} label=${`${range} of the clip`} />`;
}

function Why({ clip, onProblem }) {
  const [reason, setReason] = useState(null);
  const ask = async () => {
    setReason("Finding out…");
    try {
      const explanation = await api.explain(clip, { end: FILE_END_S });
      const nearest = explanation.nearest[0];
      const isMatch = explanation.status === "match";
      const closest = nearest && !isMatch ? ` The closest track is “${nameOf(nearest)}”.` : "";
      setReason(`${sentence(explanation.verdict.reason)}${closest}`);
    } catch (error) {
      setReason(null);
      onProblem(error, ask);
    }
  };
  if (reason) return html`<p class="muted" role="status">${reason}</p>`;
  return html`<button class="plain" onClick=${ask}>Why?</button>`;
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
