// Deletion with undo: a track is deleted once it can no longer be restored.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";
import { nameOf } from "./text.js";

const UNDO_MS = 10_000;
const AGAIN_MS = 1000;
const HELD = ".toast:hover, .toast :focus-visible";

/** Tracks that are deleted once they can no longer be restored, or when the page is left. */
export function useDeletion(onProblem, onDeleted = () => {}) {
  const [deleted, setDeleted] = useState([]);
  const timers = useRef(new Map());
  const forget = (track) => {
    clearTimeout(timers.current.get(track.id));
    timers.current.delete(track.id);
  };
  const show = (track) => setDeleted((old) => old.filter((one) => one.id !== track.id));

  const finishIn = (track, ms) => timers.current.set(track.id, setTimeout(() => {
    // Not while it is pointed at, or reached by keyboard: that may take longer.
    if (document.querySelector(HELD)) finishIn(track, AGAIN_MS);
    else finish(track);
  }, ms));

  async function finish(track) {
    forget(track);
    try {
      await api.remove(track.id);
      setDeleted((old) => old.map((one) => (one.id === track.id ? { ...one, isGone: true } : one)));
      onDeleted();
    } catch (error) {
      if (error.code === "track_not_found") return;
      show(track);
      onProblem(error, () => finish(track));
    }
  }

  useEffect(() => {
    const finishAll = () => {
      for (const id of timers.current.keys()) api.removeAtLast(id).catch(() => {});
      timers.current.forEach(clearTimeout);
      timers.current.clear();
    };
    addEventListener("pagehide", finishAll);
    return () => {
      removeEventListener("pagehide", finishAll);
      finishAll();
    };
  }, []);

  return [deleted, {
    begin(track) {
      finishIn(track, UNDO_MS);
      setDeleted((old) => [...old, track]);
    },
    undo(track) {
      forget(track);
      show(track);
      setTimeout(() => document.querySelector(`[data-track="${track.id}"]`)?.focus());
    },
  }];
}

/** What was deleted, with a button to undo it. */
export function Toasts({ deleted, deletion }) {
  return html`
    <div class="toasts" role="status">
      ${deleted.map((track) => html`
        <${Toast} key=${track.id} track=${track} onUndo=${() => deletion.undo(track)} />`)}
    </div>`;
}

function Toast({ track, onUndo }) {
  const button = useRef(null);
  useEffect(() => button.current?.focus(), []);
  if (track.isGone) return null;
  return html`
    <div class="toast">
      <span>Deleted “${nameOf(track)}”. Its file stays.</span>
      <button ref=${button} onClick=${onUndo}>Undo</button>
    </div>`;
}
