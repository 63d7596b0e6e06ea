// Words and numbers as people read them.

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 0.05));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export const fileName = (path) => path.split(/[\\/]/).pop();

export const nameOf = (track) => track.title || fileName(track.path).replace(/\.[^.]*$/, "");

export function confidence(probability) {
  const words =
    probability >= 0.99 ? "Certain"
    : probability >= 0.95 ? "Very sure"
    : probability >= 0.85 ? "Fairly sure"
    : "Not quite sure";
  return `${words} (${percent(probability)})`;
}

// Never "100 %": no answer is.
function percent(probability) {
  return probability > 0.999 ? "over 99.9 %" : `${(100 * probability).toFixed(1)} %`;
}

export function length(seconds) {
  if (seconds < 3600) return counted(Math.round(seconds / 60), "minute");
  return `${(seconds / 3600).toFixed(1)} hours`;
}

export const counted = (n, word, many = `${word}s`) => `${n.toLocaleString("en")} ${n === 1 ? word : many}`;

export function day(time) {
  const date = new Date(time);
  const year = date.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  return date.toLocaleString("en-GB", { day: "numeric", month: "short", year, hour: "2-digit", minute: "2-digit" });
}

/** Tempo and pitch of a match that differ from the track's; "" if they do not. */
export function played(match) {
  const percentFaster = Math.round(100 * (match.tempo - 1) * 10) / 10;
  const parts = [];
  if (Math.abs(percentFaster) >= 0.5) {
    parts.push(`${Math.abs(percentFaster)} % ${percentFaster > 0 ? "faster" : "slower"}`);
  }
  if (match.pitch) {
    parts.push(`${Math.abs(match.pitch)} semitones ${match.pitch > 0 ? "higher" : "lower"}`);
  }
  return parts.length ? `Played ${parts.join(" and ")} than the track.` : "";
}

export function bytes(n) {
  if (n < 1e6) return `${Math.ceil(n / 1e3)} kB`;
  return n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(1)} GB`;
}
