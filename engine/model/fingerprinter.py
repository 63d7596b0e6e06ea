"""Convert waveforms to fingerprints, block by block: spectrogram, encoder, clip head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.audio.source import AudioSource
from engine.device import resolve_device
from engine.errors import AudioTooShortError, ConfigError, SilentAudioError
from engine.recipe import Recipe
from engine.records import Fingerprint, Vectors, Waveform

PIECE_S = 60.0
"""Longest spectrogram computed at once, in seconds, however long a block is."""

_MIN_HOP_DIFFERENCE_S = 1e-6
CLIP_BATCH_SIZE = 256
"""Clips pooled at once, so that a day of audio needs no more memory than an hour."""


class SegmentEncoder(Protocol):
    """Computes embeddings from waveforms, on some device."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of the embeddings."""

    def embed(self, waveform: Waveform, hop_frames: int) -> Vectors:
        """Embed all segments of a waveform.

        Parameters
        ----------
        waveform : float32 array of shape (n_samples,)
            At least one segment.
        hop_frames : int
            Frames between the starts of two segments.

        Returns
        -------
        float32 array of shape (n_segments, fingerprint_length)
            Unit vectors; zero vectors for silent segments.
        """

    def embed_clips(self, embeddings: Vectors, absent: NDArray[np.bool_]) -> Vectors:
        """Pool clips of consecutive segment embeddings by attention.

        Parameters
        ----------
        embeddings : float32 array of shape (n_clips, n_segments, fingerprint_length)
        absent : bool array of shape (n_clips, n_segments)
            True where a clip has no (audible) segment; each clip needs at least one.

        Returns
        -------
        float32 array of shape (n_clips, fingerprint_length), unit norm
        """


class Fingerprinter:
    """Converts waveforms at the recipe's sample rate to fingerprints.

    Implements :class:`engine.protocol.AudioFingerprinter`.

    Parameters
    ----------
    encoder : SegmentEncoder
    """

    def __init__(self, encoder: SegmentEncoder) -> None:
        self.encoder = encoder
        self.recipe: Recipe = encoder.recipe

    @classmethod
    def load(cls, path: Path | None = None, device: str = "auto") -> Fingerprinter:
        """Build one from a weights file.

        Parameters
        ----------
        path : Path, optional
            The weights astound ships by default.
        device : {"auto", "cpu", "cuda"}
            "auto" uses CUDA if it is available. onnxruntime encodes on the CPU, torch on a GPU.

        Raises
        ------
        ModelError
            The file is missing, damaged or another file, or there is no CUDA device.
        """
        if resolve_device(device) == "cpu":
            from engine.model.onnx_encoder import OnnxEncoder

            return cls(OnnxEncoder.load(path))
        from engine.model.encoder import Encoder  # imports torch, which takes seconds

        return cls(Encoder.load(path, device))

    @property
    def recipe_id(self) -> str:
        """Id of the recipe; see :attr:`Recipe.recipe_id`."""
        return self.recipe.recipe_id

    @property
    def sample_rate(self) -> int:
        """Required sample rate of the waveforms in Hz."""
        return self.recipe.spectrogram.sample_rate

    @property
    def segment_s(self) -> float:
        """Length of one segment in seconds."""
        return self.recipe.spectrogram.segment_s

    def metadata(self) -> dict[str, Any]:
        """Return the recipe as a nested dict."""
        return self.recipe.to_dict()

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        """Find the longest possible hop; see :meth:`Recipe.hop_within`."""
        return self.recipe.hop_within(hop_s, whole_s)

    def fingerprint(
        self, blocks: Iterable[Waveform], segment_hop_s: float, source: str = "array"
    ) -> Fingerprint:
        """Fingerprint one recording.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            The waveform in blocks of any size, read as they come.
        segment_hop_s : float
            Distance of the segments in seconds.
        source : str
            The recording's name in error messages.

        Returns
        -------
        Fingerprint
            Silent segments and clips have zero vectors.

        Raises
        ------
        AudioTooShortError
            The recording is shorter than one segment.
        SilentAudioError
            No segment is audible.
        """
        recording = AudioSource(source, blocks, self.sample_rate)
        parts = list(self._embed(recording, segment_hop_s))
        if not parts:
            raise AudioTooShortError(source, recording.duration_s, self.segment_s)
        embeddings = np.concatenate(parts)
        if not embeddings.any():
            raise SilentAudioError(source, "silent from beginning to end")
        return Fingerprint(
            embeddings=embeddings,
            clip_embeddings=self._embed_clips(embeddings, segment_hop_s),
            segment_hop_s=segment_hop_s,
            segment_s=self.segment_s,
            duration_s=recording.duration_s,
            recipe_id=self.recipe_id,
        )

    def _embed(self, blocks: Iterable[Waveform], segment_hop_s: float) -> Iterator[Vectors]:
        """Embed all segments of a recording, in parts of shape (n_segments, dim)."""
        config = self.recipe.spectrogram
        hop_frames = config.frames_per_hop(segment_hop_s)
        hop = hop_frames * config.hop_length
        pending = np.zeros(0, np.float32)
        for block in _split(blocks, round(PIECE_S * self.sample_rate)):
            pending = np.concatenate([pending, block]) if len(pending) else block
            n_segments = (len(pending) - config.samples_per_segment) // hop + 1
            if n_segments > 0:
                n_samples = (n_segments - 1) * hop + config.samples_per_segment
                yield self.encoder.embed(pending[:n_samples], hop_frames)
                pending = pending[n_segments * hop :]

    def _embed_clips(self, embeddings: Vectors, segment_hop_s: float) -> Vectors:
        """Pool overlapping clips; the last one may be shorter than the others."""
        clip = self.recipe.clip
        spaced = _spaced(embeddings, segment_hop_s, clip.segment_hop_s)
        starts = range(0, max(len(spaced) - clip.n_segments // 2, 1), clip.hop_segments)
        padded = np.zeros((len(starts), clip.n_segments, embeddings.shape[1]), np.float32)
        for row, start in zip(padded, starts, strict=True):
            piece = spaced[start : start + clip.n_segments]
            row[: len(piece)] = piece
        absent: NDArray[np.bool_] = np.logical_not(padded.any(axis=2))
        silent: NDArray[np.bool_] = np.all(absent, axis=1)
        absent[silent] = False
        batches = (slice(n, n + CLIP_BATCH_SIZE) for n in range(0, len(starts), CLIP_BATCH_SIZE))
        pooled = [self.encoder.embed_clips(padded[one], absent[one]) for one in batches]
        # The cosine of a zero vector with anything is 0.
        return np.where(silent[:, None], np.float32(0), np.concatenate(pooled))


def _spaced(embeddings: Vectors, hop_s: float, clip_hop_s: float) -> Vectors:
    """Return the segments at the hop of the clip head, zeros where there is none."""
    stride, spread = round(clip_hop_s / hop_s), round(hop_s / clip_hop_s)
    if stride and abs(stride * hop_s - clip_hop_s) < _MIN_HOP_DIFFERENCE_S:
        return embeddings[::stride]
    if not spread or abs(spread * clip_hop_s - hop_s) > _MIN_HOP_DIFFERENCE_S:
        reason = f"must divide {clip_hop_s} s, the hop of the clip head, or be a multiple of it"
        raise ConfigError.invalid("segment_hop_s", hop_s, reason)
    out = np.zeros(((len(embeddings) - 1) * spread + 1, embeddings.shape[1]), np.float32)
    out[::spread] = embeddings
    return out


def _split(blocks: Iterable[Waveform], n_samples: int) -> Iterator[Waveform]:
    """Split blocks that are longer than `n_samples`."""
    for block in blocks:
        for start in range(0, len(block), n_samples):
            yield block[start : start + n_samples]
