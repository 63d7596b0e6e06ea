"""Ring buffer of a recording's recent audio, with its embeddings at any playback speed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.audio import decode
from engine.audio.decode import Waveform
from engine.errors import SilentAudioError
from engine.protocol import AudioFingerprinter
from engine.records import Fingerprint, Vectors

Floats = NDArray[np.float64]

# Highest speed: a segment spans at most this many times its length at the recording's own speed.
_MAX_SPEED = 1.25


class AudioBuffer:
    """Ring buffer of recent audio; caches one embedding per segment and playback speed.

    The recording is cut into pieces of equal length. A piece is embedded when it is first needed at
    a speed. The segments of consecutive pieces are equally spaced.

    Parameters
    ----------
    fingerprinter : AudioFingerprinter
    hop_s : float
        Distance of the segments, in the recording as it is played.
    piece_s : float
        Length of a piece, rounded to whole hops.
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

    # -- audio -----------------------------------------------------------------------------------

    @property
    def position_s(self) -> float:
        """Seconds of the recording that were appended."""
        return (self._first_sample + len(self._samples)) / self.fingerprinter.sample_rate

    @property
    def n_pieces(self) -> int:
        """Number of pieces that can be embedded: whole ones, and the rest after the end."""
        if self.has_ended:
            rest_s = max(self.position_s - self.segment_s, 0)
            return int(np.ceil(rest_s / self.piece_s + 1e-9))
        return max(int((self.position_s - _MAX_SPEED * self.segment_s) / self.piece_s), 0)

    @property
    def n_held(self) -> int:
        """Number of samples and values of embeddings in memory."""
        pieces = (piece.size for piece in self._pieces.values() if piece is not None)
        return self._samples.size + sum(pieces)

    def append(self, block: Waveform) -> None:
        """Append a float32 array of shape (n_samples,), at the fingerprinter's sample rate."""
        self._samples = np.concatenate([self._samples, block])

    def end(self) -> None:
        """Mark the end of the recording, so that an incomplete last piece can be embedded."""
        self.has_ended = True

    def discard(self, before_s: float) -> None:
        """Free the pieces that end before a moment of the recording."""
        first = max(int(before_s / self.piece_s), 0)
        self._pieces = {key: piece for key, piece in self._pieces.items() if key[1] >= first}
        n_discarded = (
            round(first * self.piece_s * self.fingerprinter.sample_rate) - self._first_sample
        )
        if n_discarded > 0:
            self._samples = self._samples[n_discarded:].copy()
            self._first_sample += n_discarded

    # -- embeddings ------------------------------------------------------------------------------

    def nearest_speed(self, speed: float) -> float:
        """Return the nearest speed at which a whole number of segments fits into a piece."""
        return self.piece_s / (self.hop_s * self._n_segments(speed))

    def window(self, start_s: float, speed: float) -> Fingerprint | None:
        """Fingerprint a stretch as long as a piece.

        Parameters
        ----------
        start_s : float
            Its start in the recording, rounded to the nearest segment.
        speed : float
            Factor of the playback speed.

        Returns
        -------
        Fingerprint or None
            Its times are those of the recording as it is played; None if it is silent.
        """
        hop_s = self.hop_s * self.nearest_speed(speed)
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
        """Return the segments whose middles lie in start_s <= middle < end_s.

        Segments of discarded and of incomplete pieces are left out.

        Parameters
        ----------
        start_s, end_s : float
            In the recording.
        speed : float
            Factor of the playback speed.

        Returns
        -------
        middles_s : float64 array of shape (n_segments,), rising
            In the recording.
        embeddings : float32 array of shape (n_segments, dim)
            All zeros where a segment is silent.
        """
        speed = self.nearest_speed(speed)
        hop_s, half_s = self.hop_s * speed, self.segment_s * speed / 2
        per_piece = self._n_segments(speed)
        rate = self.fingerprinter.sample_rate
        first_kept = round(self._first_sample / rate / self.piece_s) * per_piece
        first = max(int(np.ceil((start_s - half_s) / hop_s - 1e-9)), first_kept)
        last = min(int(np.ceil((end_s - half_s) / hop_s - 1e-9)), self.n_pieces * per_piece)
        middles_s = np.arange(first, max(last, first), dtype=np.float64) * hop_s + half_s
        return middles_s, self._segments(speed, first, max(last, first))

    def _n_segments(self, speed: float) -> int:
        """Count the segments of a piece."""
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
        """Embed a piece, None if it is silent; segments that reach beyond the end are silent."""
        speed, rate = self.piece_s / (self.hop_s * n_segments), self.fingerprinter.sample_rate
        span_s = (n_segments - 1) * self.hop_s + self.segment_s
        first = round(number * self.piece_s * rate) - self._first_sample
        played = self._samples[first : first + round(span_s * speed * rate) + 1]
        if n_segments * self.hop_s != self.piece_s:
            played = decode.change_speed(played, rate, speed)
        n_samples = round(span_s * rate) + 1
        padded = np.pad(played[:n_samples], (0, max(n_samples - len(played), 0)))
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
