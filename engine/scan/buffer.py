"""Ring buffer of recent audio; caches one embedding per piece and playback speed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.audio import decode
from engine.audio.decode import Waveform
from engine.errors import SilentAudioError
from engine.protocol import AudioFingerprinter
from engine.records import Fingerprint, Vectors

Floats = NDArray[np.float64]

# Highest playback speed: a segment then spans this many times its length at speed 1.
_MAX_SPEED = 1.25


class AudioBuffer:
    """Ring buffer of recent audio; caches one embedding per piece and playback speed.

    The recording is divided into pieces of equal length. A piece is embedded on first use. The
    segments of consecutive pieces are equally spaced.

    Parameters
    ----------
    fingerprinter : AudioFingerprinter
    hop_s, piece_s : float
        Segment hop at speed 1, and length of a piece, rounded to whole hops.
    """

    def __init__(self, fingerprinter: AudioFingerprinter, hop_s: float, piece_s: float) -> None:
        self.fingerprinter, self.hop_s = fingerprinter, hop_s
        self.segment_s = fingerprinter.segment_s
        self.piece_s = max(round(piece_s / hop_s), 2) * hop_s
        self.has_ended = False
        self._samples: Waveform = np.zeros(0, np.float32)
        self._first_sample = 0
        self._pieces: dict[tuple[int, int], Vectors | None] = {}
        self._dim = 1

    # -- sound -----------------------------------------------------------------------------------

    @property
    def position_s(self) -> float:
        """Seconds of the recording received so far."""
        return (self._first_sample + len(self._samples)) / self.fingerprinter.sample_rate

    @property
    def n_pieces(self) -> int:
        """Number of pieces that can be embedded: complete ones, and the last at the end."""
        if self.has_ended:
            return int(np.ceil(max(self.position_s - self.segment_s, 0) / self.piece_s + 1e-9))
        return max(int((self.position_s - _MAX_SPEED * self.segment_s) / self.piece_s), 0)

    @property
    def n_held(self) -> int:
        """Samples and embedding components in memory."""
        pieces = (piece.size for piece in self._pieces.values() if piece is not None)
        return self._samples.size + sum(pieces)

    def extend(self, block: Waveform) -> None:
        """Append a float32 array of shape (n_samples,) at the fingerprinter's sample rate."""
        self._samples = np.concatenate([self._samples, block])

    def end(self) -> None:
        """Mark the end of the recording."""
        self.has_ended = True

    def drop(self, before_s: float) -> None:
        """Drop the pieces that end before a moment."""
        first = max(int(before_s / self.piece_s), 0)
        self._pieces = {key: piece for key, piece in self._pieces.items() if key[1] >= first}
        n_gone = round(first * self.piece_s * self.fingerprinter.sample_rate) - self._first_sample
        if n_gone > 0:
            self._samples = self._samples[n_gone:].copy()
            self._first_sample += n_gone

    # -- embeddings ------------------------------------------------------------------------------

    def speed(self, wanted: float) -> float:
        """Return the speed closest to `wanted` at which segments fill a piece evenly."""
        return self.piece_s / (self.hop_s * self._n_segments(wanted))

    def window(self, start_s: float, speed: float) -> Fingerprint | None:
        """Fingerprint a stretch as long as a piece; None if it is silent.

        Parameters
        ----------
        start_s : float
            Start in the recording, rounded to a segment.
        speed : float
            Playback speed; times in the fingerprint are those of the played audio.
        """
        hop_s = self.hop_s * self.speed(speed)
        first = round(start_s / hop_s)
        embeddings = self._segments(speed, first, first + self._n_segments(speed))
        if not embeddings.any():
            return None
        return Fingerprint(
            embeddings=embeddings,
            clip_embeddings=np.zeros((0, embeddings.shape[1]), np.float32),
            segment_hop_s=self.hop_s,
            segment_s=self.segment_s,
            duration_s=(len(embeddings) - 1) * self.hop_s + self.segment_s,
            recipe_id=self.fingerprinter.recipe_id,
        )

    def segments(self, start_s: float, end_s: float, speed: float) -> tuple[Floats, Vectors]:
        """Return the buffered segments whose middles lie in a stretch.

        Returns
        -------
        middles_s : float64 array of shape (n_segments,)
            In the recording.
        embeddings : float32 array of shape (n_segments, dim)
            Zeros where the recording is silent.
        """
        speed = self.speed(speed)
        hop_s, half_s = self.hop_s * speed, self.segment_s * speed / 2
        per_piece = self._n_segments(speed)
        rate = self.fingerprinter.sample_rate
        known = round(self._first_sample / rate / self.piece_s) * per_piece
        first = max(int(np.ceil((start_s - half_s) / hop_s - 1e-9)), known)
        last = min(int(np.ceil((end_s - half_s) / hop_s - 1e-9)), self.n_pieces * per_piece)
        middles_s = np.arange(first, max(last, first), dtype=np.float64) * hop_s + half_s
        return middles_s, self._segments(speed, first, max(last, first))

    def _n_segments(self, speed: float) -> int:
        """Count the segments of a piece at a speed."""
        return round(self.piece_s / (self.hop_s * speed))

    def _segments(self, speed: float, first: int, last: int) -> Vectors:
        per_piece = self._n_segments(speed)
        numbers = range(first // per_piece, -(-last // per_piece))
        pieces = [self._piece(per_piece, number) for number in numbers]
        silence = np.zeros((per_piece, self._dim), np.float32)
        joined = [silence if piece is None else piece for piece in pieces]
        start = first - numbers.start * per_piece
        return np.concatenate([silence[:0], *joined])[start : start + last - first]

    def _piece(self, n_segments: int, number: int) -> Vectors | None:
        key = n_segments, number
        if key not in self._pieces:
            self._pieces[key] = self._embed(n_segments, number)
        return self._pieces[key]

    def _embed(self, n_segments: int, number: int) -> Vectors | None:
        """Embed a piece, padded with silence at the end of the recording; None if it is silent."""
        speed, rate = self.piece_s / (self.hop_s * n_segments), self.fingerprinter.sample_rate
        span_s = (n_segments - 1) * self.hop_s + self.segment_s
        first = round(number * self.piece_s * rate) - self._first_sample
        played = self._samples[first : first + round(span_s * speed * rate) + 1]
        if n_segments * self.hop_s != self.piece_s:
            played = decode.change_speed(played, rate, speed)
        needed = round(span_s * rate) + 1
        padded = np.pad(played[:needed], (0, max(needed - len(played), 0)))
        try:
            fingerprint = self.fingerprinter.fingerprint([padded], self.hop_s)
        except SilentAudioError:
            return None
        embeddings = fingerprint.embeddings[:n_segments].copy()
        ends_s = (
            number * self.piece_s + (fingerprint.starts_s[:n_segments] + self.segment_s) * speed
        )
        embeddings[ends_s > self.position_s + 1e-3] = 0
        self._dim = embeddings.shape[1]
        return embeddings
