"""Waveform to Fingerprint: spectrogram and encoder joined, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.audio.decode import Waveform
from engine.audio.source import AudioSource
from engine.errors import AudioTooShortError, ConfigError, SilentAudioError
from engine.model import spectrogram
from engine.model.weights import Encoder, load_encoder
from engine.recipe import Recipe
from engine.records import Fingerprint, Vectors

# No spectrogram is longer than this, whatever comes in at once.
PIECE_S = 60.0
# Segments the encoder takes at once: more is not faster on a CPU, and memory stays flat.
BATCH_SIZE = 128


class Fingerprinter:
    """Turns waveforms of the recipe's sample rate into fingerprints.

    Parameters
    ----------
    encoder : Encoder
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.recipe: Recipe = encoder.recipe

    @classmethod
    def shipped(cls, device: str = "auto") -> Fingerprinter:
        """Make one with the encoder astound ships.

        Parameters
        ----------
        device : {"auto", "cpu", "cuda"}
        """
        return cls(load_encoder(device=device))

    @property
    def recipe_id(self) -> str:
        """Stands for all that changes its numbers."""
        return self.recipe.recipe_id

    @property
    def sample_rate(self) -> int:
        """Hz the waveforms must have."""
        return self.recipe.spectrogram.sample_rate

    @property
    def segment_s(self) -> float:
        """Length of one segment in seconds."""
        return self.recipe.spectrogram.segment_s

    def metadata(self) -> dict[str, Any]:
        """Tell its recipe, as a nested dict."""
        return self.recipe.to_dict()

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        """Find the longest possible hop; see :meth:`SpectrogramConfig.hop_within`."""
        return self.recipe.spectrogram.hop_within(hop_s, whole_s)

    def fingerprint(
        self, blocks: Iterable[Waveform], segment_hop_s: float, source: str = "array"
    ) -> Fingerprint:
        """Fingerprint one recording.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            The waveform, in pieces of any size; they may come as they are decoded.
        segment_hop_s : float
            Distance of the segments.
        source : str
            What errors call the recording.

        Returns
        -------
        Fingerprint

        Raises
        ------
        AudioTooShortError
            Less than one segment.
        SilentAudioError
            No audible segment.
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
            recipe_id=self.recipe.recipe_id,
        )

    def _embed(self, blocks: Iterable[Waveform], segment_hop_s: float) -> Iterator[Vectors]:
        config = self.recipe.spectrogram
        hop_frames = config.frames_per_hop(segment_hop_s)
        hop = hop_frames * config.hop_length
        pending = np.zeros(0, np.float32)
        for block in _pieces(blocks, round(PIECE_S * self.sample_rate)):
            pending = np.concatenate([pending, block]) if len(pending) else block
            n_segments = (len(pending) - config.samples_per_segment) // hop + 1
            if n_segments > 0:
                reach = (n_segments - 1) * hop + config.samples_per_segment
                yield self._embed_stretch(pending[:reach], hop_frames)
                pending = pending[n_segments * hop :]

    def _embed_stretch(self, waveform: Waveform, hop_frames: int) -> Vectors:
        config = self.recipe.spectrogram
        # A copy only of arrays that torch refuses to share: read-only or strided ones.
        samples = torch.from_numpy(np.require(waveform, np.float32, ["C", "W"]))
        mel = spectrogram.log_mel(samples, config)
        raw = spectrogram.segments(mel, hop_frames, config)
        batches = [
            self.encoder.embed_segments(spectrogram.normalise(batch, config))
            for batch in raw.split(BATCH_SIZE)
        ]
        return _zeroed(torch.cat(batches), spectrogram.silent(raw, config))

    def _embed_clips(self, embeddings: Vectors, segment_hop_s: float) -> Vectors:
        """Pool clips that overlap by half; the last may be shorter than the rest."""
        clip = self.recipe.clip
        stride = round(clip.segment_hop_s / segment_hop_s)
        if abs(stride * segment_hop_s - clip.segment_hop_s) > 1e-6:
            requirement = f"must divide {clip.segment_hop_s} s, the hop of the clip head"
            raise ConfigError.invalid("segment_hop_s", segment_hop_s, requirement)
        spaced = embeddings[::stride]
        starts = range(0, max(len(spaced) - clip.n_segments // 2, 1), clip.hop_segments)
        padded = np.zeros((len(starts), clip.n_segments, embeddings.shape[1]), np.float32)
        for row, start in zip(padded, starts, strict=True):
            piece = spaced[start : start + clip.n_segments]
            row[: len(piece)] = piece
        absent: NDArray[np.bool_] = np.logical_not(padded.any(axis=2))
        silent: NDArray[np.bool_] = np.all(absent, axis=1)
        absent[silent] = False
        pooled = self.encoder.embed_clips(torch.from_numpy(padded), torch.from_numpy(absent))
        return _zeroed(pooled, torch.from_numpy(silent))


def _pieces(blocks: Iterable[Waveform], n_samples: int) -> Iterator[Waveform]:
    for block in blocks:
        for start in range(0, len(block), n_samples):
            yield block[start : start + n_samples]


def _zeroed(embeddings: torch.Tensor, silent: torch.Tensor) -> Vectors:
    """Give silence the zero vector, which resembles nothing."""
    return np.where(silent.numpy()[:, None], np.float32(0), embeddings.numpy())
