"""Write waveforms as WAV files."""

from __future__ import annotations

import io

import av

from engine.records import Waveform


def to_wav(waveform: Waveform, sample_rate: int) -> io.BytesIO:
    """Write a waveform as a WAV file of float samples, which changes none.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
    """
    file = io.BytesIO()
    frame = av.AudioFrame.from_ndarray(waveform[None], "flt", "mono")
    frame.sample_rate = sample_rate
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_f32le", rate=sample_rate, layout="mono")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file
