// What sounds near this computer, or on it, as a growing WAV file.

const LEVEL_OF_NOTHING = 0.0005;
// What makes speech clear destroys music.
const AS_IT_IS = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** Why nothing can be recorded here, and what mends it; null if the microphone can. */
export function obstacle() {
  if (!window.isSecureContext) {
    return (
      "Browsers allow the microphone only over HTTPS, or on the computer that runs astound. " +
      "Ask whoever runs it to serve HTTPS (astound serve --tls-cert … --tls-key …), or open " +
      `http://localhost:${location.port || 80} on that computer.`
    );
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
    return "This browser has no way to record sound. A current Firefox, Chrome, Edge or Safari has.";
  }
  return null;
}

/** Whether the browser can record what this computer plays; those of phones cannot. */
export const canRecordComputer = () => !obstacle() && Boolean(navigator.mediaDevices.getDisplayMedia);

/** What can be recorded: its name, how it is opened, and what to say about it. */
export const SOURCES = {
  microphone: {
    name: "microphone",
    open: () => navigator.mediaDevices.getUserMedia({ audio: AS_IT_IS }),
    request: "Allow the microphone, please.",
    silence: "No sound arrives. Is the microphone muted?",
    problems: {
      NotAllowedError:
        "The browser may not use the microphone. Select the icon beside the address, allow the " +
        "microphone, and press Listen again.",
      NotFoundError: "No microphone was found. Connect one, and press Listen again.",
      NotReadableError: "Another program uses the microphone. Close it, and press Listen again.",
    },
  },
  computer: {
    name: "computer sound",
    open: openComputer,
    request: "Choose the tab or screen that plays, and switch on its sound.",
    silence: "No sound arrives. Does it play, and is its sound shared?",
    problems: {
      NotAllowedError:
        "Nothing was shared. Press “This computer’s sound” again, and choose the tab or screen that plays. " +
        "Only its sound is used.",
      NoSoundError:
        "No sound was shared. Press “This computer’s sound” again, choose a tab or the whole screen, and " +
        "switch on “Also share audio”. If there is no such switch, this browser cannot do it: Chrome and Edge can.",
      NotReadableError: "This computer does not let the browser record its sound. Try a single tab instead.",
    },
  },
};

/** The sentence for an error of a source. */
export const sourceProblem = ({ name, problems }, error) =>
  problems[error.name] ?? `The ${name} cannot be recorded (${error.message || error.name}).`;

async function openComputer() {
  // Browsers share sound only with a picture, which is dropped.
  const stream = await navigator.mediaDevices.getDisplayMedia({ audio: AS_IT_IS, video: true, systemAudio: "include" });
  stream.getVideoTracks().forEach((track) => track.stop());
  if (!stream.getAudioTracks().length) throw new DOMException("no sound was shared", "NoSoundError");
  return stream;
}

export class Recorder {
  /** Open a source and begin; `onLevel` gets the peak of each piece, in [0, 1]. */
  static async start(source, onLevel) {
    const stream = await source.open();
    const context = new AudioContext();
    try {
      await context.audioWorklet.addModule("worklet.js");
      await context.resume();
    } catch (error) {
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
      throw error;
    }
    return new Recorder(stream, context, onLevel);
  }

  constructor(stream, context, onLevel) {
    this.stream = stream;
    this.context = context;
    this.pieces = [];
    this.nSamples = 0;
    this.peak = 0;
    const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      this.pieces.push(data);
      this.nSamples += data.length;
      const peak = data.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
      this.peak = Math.max(this.peak, peak);
      onLevel(peak);
    };
    context.createMediaStreamSource(stream).connect(node);
  }

  /** Whether the browser ended it: nothing is shared any more, or the microphone was disconnected. */
  get hasEnded() {
    return this.stream.getAudioTracks().every((track) => track.readyState === "ended");
  }

  get seconds() {
    return this.nSamples / this.context.sampleRate;
  }

  get isSilent() {
    return this.peak < LEVEL_OF_NOTHING;
  }

  stop() {
    this.stream.getTracks().forEach((track) => track.stop());
    if (this.context.state !== "closed") this.context.close();
  }

  /** All that was recorded so far: a WAV file of 16 bits. */
  wav() {
    const rate = this.context.sampleRate;
    const bytes = new ArrayBuffer(44 + 2 * this.nSamples);
    const view = new DataView(bytes);
    const text = (at, letters) =>
      [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
    text(0, "RIFF");
    view.setUint32(4, 36 + 2 * this.nSamples, true);
    text(8, "WAVEfmt ");
    view.setUint32(16, 16, true);
    view.setUint16(20, 1, true); // PCM
    view.setUint16(22, 1, true); // one channel
    view.setUint32(24, rate, true);
    view.setUint32(28, 2 * rate, true);
    view.setUint16(32, 2, true);
    view.setUint16(34, 16, true);
    text(36, "data");
    view.setUint32(40, 2 * this.nSamples, true);
    let at = 44;
    for (const piece of this.pieces) {
      for (const sample of piece) {
        view.setInt16(at, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true);
        at += 2;
      }
    }
    return new Blob([bytes], { type: "audio/wav" });
  }
}
