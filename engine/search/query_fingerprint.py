"""The fingerprint of a query, which can be searched where its audio is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engine.errors import ConfigError, RecipeMismatchError
from engine.records import Fingerprint, Vectors
from engine.search.clips import CLIP_S, OVERLAP_S, Clip

_TOLERANCE_S = 0.5
_MAX_NORM = 1.01


@dataclass(frozen=True, kw_only=True)
class ClipEmbeddings:
    """The fingerprint of a stretch of a recording.

    Parameters
    ----------
    start_s, duration_s : float
        Where in the recording it begins, and its length.
    embeddings : float32 array of shape (n_segments, dim)
        Of unit norm; zeros for silent segments.
    """

    start_s: float
    duration_s: float
    embeddings: Vectors


@dataclass(frozen=True, kw_only=True)
class QueryFingerprint:
    """The fingerprints of the clips of a query.

    Parameters
    ----------
    recipe_id : str
    segment_hop_s : float
    duration_s : float
        Length of the recording, or where the part that is searched ends.
    clips : tuple of ClipEmbeddings
        Those that are not silent, in their order, as :func:`engine.search.clips.fingerprint_clips`
        cuts them.
    """

    recipe_id: str
    segment_hop_s: float
    duration_s: float
    clips: tuple[ClipEmbeddings, ...]

    @classmethod
    def of(cls, clips: Sequence[Clip], start_s: float, duration_s: float) -> QueryFingerprint:
        """Make the fingerprint of a recording.

        Parameters
        ----------
        clips : sequence of Clip
            At least one.
        start_s : float
            Where in the recording the first clip begins, if none before it was silent.
        duration_s : float
        """
        first = clips[0].fingerprint
        embeddings = (
            ClipEmbeddings(
                start_s=start_s + one.start_s,
                duration_s=one.fingerprint.duration_s,
                embeddings=one.fingerprint.embeddings,
            )
            for one in clips
        )
        return cls(
            recipe_id=first.recipe_id,
            segment_hop_s=first.segment_hop_s,
            duration_s=duration_s,
            clips=tuple(embeddings),
        )

    def require(self, recipe_id: str, segment_hop_s: float) -> None:
        """Check that it can be compared with fingerprints of a recipe.

        Raises
        ------
        RecipeMismatchError
        ConfigError
            Its segments have another distance.
        """
        if self.recipe_id != recipe_id:
            raise RecipeMismatchError(recipe_id, self.recipe_id, "the fingerprint")
        if self.segment_hop_s != segment_hop_s:
            requirement = f"must be {segment_hop_s:g}"
            raise ConfigError.invalid("segment_hop_s", self.segment_hop_s, requirement)

    def to_clips(self, segment_s: float, dim: int) -> list[Clip]:
        """Return the clips, with empty waveforms.

        Parameters
        ----------
        segment_s : float
            Length of a segment.
        dim : int
            Length of an embedding.

        Raises
        ------
        ConfigError
            They cannot be those of a recording.
        """
        _require(bool(self.clips), "clips", "must not be empty")
        starts_s = [one.start_s for one in self.clips]
        are_apart = all(b - a > CLIP_S - 2 * OVERLAP_S for a, b in pairwise(starts_s))
        _require(starts_s[0] >= 0 and are_apart, "clips", "must overlap by seconds, in their order")
        return [self._to_clip(one, segment_s, dim) for one in self.clips]

    def _to_clip(self, one: ClipEmbeddings, segment_s: float, dim: int) -> Clip:
        hop_s, shape = self.segment_hop_s, one.embeddings.shape
        is_possible = segment_s <= one.duration_s <= CLIP_S + _TOLERANCE_S
        _require(is_possible, "clips.duration_s", f"must be from {segment_s:g} to {CLIP_S:g}")
        n_segments = (one.duration_s - segment_s) / hop_s + 1
        is_matrix = len(shape) == 2 and abs(shape[0] - n_segments) < 1 + _TOLERANCE_S / hop_s
        needed = f"must have the shape ({int(n_segments)}, {dim})"
        _require(is_matrix and shape[0] > 0 and shape[1] == dim, "clips.embeddings", needed)
        _require(
            _are_unit(one.embeddings),
            "clips.embeddings",
            "must be unit vectors, or zeros where it is silent",
        )
        fingerprint = Fingerprint(
            embeddings=one.embeddings,
            clip_embeddings=np.zeros((0, dim), np.float32),
            segment_hop_s=hop_s,
            segment_s=segment_s,
            duration_s=one.duration_s,
            recipe_id=self.recipe_id,
        )
        return Clip(start_s=one.start_s, fingerprint=fingerprint, waveform=np.zeros(0, np.float32))


def _are_unit(embeddings: Vectors) -> bool:
    """Return whether no vector is longer than a unit vector, and not all are zeros."""
    if not np.all(np.abs(embeddings) <= _MAX_NORM):  # also NaN
        return False
    return bool(np.all(np.linalg.norm(embeddings, axis=1) <= _MAX_NORM) and embeddings.any())


def _require(condition: bool, name: str, requirement: str) -> None:
    if not condition:
        raise ConfigError(name, requirement)
