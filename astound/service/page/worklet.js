// Joins the blocks of the microphone, the mean of their channels, to pieces of a twentieth second.

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Float32Array(Math.round(sampleRate / 20));
    this.n = 0;
  }

  process([channels]) {
    if (!channels.length) return true;
    for (let i = 0; i < channels[0].length; i += 1) {
      this.piece[this.n] = channels.reduce((sum, one) => sum + one[i], 0) / channels.length;
      this.n += 1;
      if (this.n === this.piece.length) {
        this.port.postMessage(this.piece.slice());
        this.n = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
