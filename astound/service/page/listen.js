// The microphone as a growing WAV file.

const LEVEL_OF_NOTHING = 0.0005;

/** Why the microphone cannot work here, and what mends it; null if it can. */
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

/** The sentence for an error of getUserMedia. */
export function microphoneProblem(error) {
  const sentences = {
    NotAllowedError:
      "The browser may not use the microphone. Select the icon beside the address, allow the " +
      "microphone, and press Listen again.",
    NotFoundError: "No microphone was found. Connect one, and press Listen again.",
    NotReadableError: "Another program uses the microphone. Close it, and press Listen again.",
  };
  return sentences[error.name] ?? `The microphone does not work (${error.message || error.name}).`;
}

export class Recorder {
  /** Ask for the microphone and begin; `onLevel` gets the peak of each piece, in [0, 1]. */
  static async start(onLevel) {
    const stream = await navigator.mediaDevices.getUserMedia({
      // What makes speech clear destroys music.
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
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
