// A stretch of a track, drawn on its waveform and playable from there.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { play, stop, usePlayer } from "./player.js";
import { clock } from "./text.js";

const N_BINS = 300;
const STEP_S = 5;

/**
 * Waveform of a track, a plain bar where there is none, nothing if its length is unknown.
 *
 * `parts` are stretches that are marked: {startS, endS}; the first one is played.
 */
export function TrackPlace({ track, parts, isPlaying = false, onProblem = () => {} }) {
  const [drawn, setDrawn] = useState(null); // {durationS, peaks, sharesAudio}
  const player = usePlayer(track.id);
  const startS = parts[0]?.startS ?? 0;
  const begin = (atS) => play(track.id, atS).catch(onProblem);
  useEffect(() => {
    const controller = new AbortController();
    load(track, controller.signal).then((found) => {
      if (controller.signal.aborted) return;
      setDrawn(found);
      if (isPlaying && found?.sharesAudio) begin(startS);
    });
    return () => {
      controller.abort();
      stop();
    };
  }, [track.id]);
  if (!drawn) return null;
  const { durationS, peaks, sharesAudio } = drawn;
  const atS = player?.atS ?? startS;
  const label = `${parts.map((part) => `${clock(part.startS)} to ${clock(part.endS)}`).join(", ")} of ${clock(durationS)}`;
  const seek = (event) => begin((durationS * event.offsetX) / event.currentTarget.clientWidth);
  const press = (event) => {
    const steps = { ArrowLeft: -STEP_S, ArrowRight: STEP_S };
    if (!(event.key in steps)) return;
    event.preventDefault();
    begin(Math.min(durationS, Math.max(0, atS + steps[event.key])));
  };
  const slider = sharesAudio && {
    role: "slider", tabIndex: 0, "aria-label": `Position in ${track.name}`, "aria-valuemin": 0,
    "aria-valuemax": Math.round(durationS), "aria-valuenow": Math.round(atS),
    "aria-valuetext": clock(atS), onClick: seek, onKeyDown: press, class: "wave playable",
  };
  return html`
    <div class="place-row">
      ${sharesAudio && html`
        <button class="play" onClick=${() => (player?.isPlaying ? stop() : begin(player ? atS : startS))}
          aria-label=${player?.isPlaying ? `Pause ${track.name}` : `Play ${track.name} from ${clock(atS)}`}>
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d=${player?.isPlaying ? "M7 5h4v14H7zM13 5h4v14h-4z" : "M8 5v14l11-7z"} /></svg>
        </button>`}
      <div class="wave" ...${slider}>
        ${peaks
          ? html`<${Wave} peaks=${peaks} parts=${parts} durationS=${durationS} label=${label} />`
          : html`<${Bar} parts=${parts} durationS=${durationS} label=${label} />`}
        ${player && html`<i class="head" style=${{ left: `${(100 * atS) / durationS}%` }} />`}
      </div>
    </div>`;
}

/** The waveform; its length alone without one. A key may allow neither. */
async function load(track, signal) {
  try {
    const { peaks, duration_s: durationS, shares_audio: sharesAudio } = await api.peaks(track.id, N_BINS, signal);
    return { peaks, durationS, sharesAudio };
  } catch {
    const durationS = track.durationS ?? (await api.track(track.id).catch(() => null))?.duration_s;
    return durationS ? { durationS } : null;
  }
}

function Wave({ peaks, parts, durationS, label }) {
  const isIn = (bin) => {
    const [fromS, toS] = [(bin * durationS) / peaks.length, ((bin + 1) * durationS) / peaks.length];
    return parts.some((part) => fromS < part.endS && toS > part.startS);
  };
  const bars = (isWanted) =>
    peaks.map((peak, bin) => (isIn(bin) === isWanted ? `M${bin} ${-Math.max(peak, 0.02)}V${Math.max(peak, 0.02)}` : "")).join("");
  return html`
    <svg role="img" aria-label=${label} viewBox=${`-0.5 -1 ${peaks.length} 2`} preserveAspectRatio="none">
      ${parts.map((part) => html`
        <rect class="part" x=${(part.startS / durationS) * peaks.length - 0.5} y="-1" height="2"
          width=${Math.max(1.5, ((part.endS - part.startS) / durationS) * peaks.length)} />`)}
      <path class="rest" d=${bars(false)} /><path class="found" d=${bars(true)} />
    </svg>`;
}

export function Bar({ parts, durationS, label }) {
  return html`
    <div class="bar" role="img" aria-label=${label}>
      ${parts.map(({ startS, endS }) => html`
        <i style=${{ left: `${(100 * startS) / durationS}%`, width: `${(100 * (endS - startS)) / durationS}%` }} />`)}
    </div>`;
}
