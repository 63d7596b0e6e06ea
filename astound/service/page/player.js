// The one player of the page: a track that starts stops the one before.

import { useEffect, useState } from "./vendor/htm-preact.js";
import * as api from "./api.js";

const audio = new Audio();
let trackId = null;
const listeners = new Set();
const tell = () => listeners.forEach((listener) => listener());
for (const name of ["play", "pause", "timeupdate", "ended", "error"]) audio.addEventListener(name, tell);

export async function play(id, atS) {
  if (trackId !== id) {
    stop();
    const address = await api.audioAddress(id);
    URL.revokeObjectURL(audio.src);
    trackId = id;
    audio.src = address;
  }
  audio.currentTime = atS;
  try {
    await audio.play();
  } catch (error) {
    if (error.name === "AbortError") return; // it was stopped meanwhile
    stop();
    throw new Error("This browser cannot play the file.", { cause: error });
  }
}

export function stop() {
  audio.pause();
}

/** Whether a track plays, and where it is; null where it is not loaded. */
export function usePlayer(id) {
  const read = () => (trackId === id ? { isPlaying: !audio.paused, atS: audio.currentTime } : null);
  const [state, setState] = useState(read);
  useEffect(() => {
    const update = () => setState(read());
    listeners.add(update);
    return () => listeners.delete(update);
  }, [id]);
  return state;
}
