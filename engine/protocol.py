"""The interface of everything that can fingerprint a catalog's audio."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.config import SearchConfig
from engine.records import Fingerprint, Hits, Vectors


@runtime_checkable
class AudioFingerprinter(Protocol):
    """Converts waveforms to fingerprints; a catalog accepts any object with these members.

    A segment's fingerprint must depend on that segment's samples only, or a clip would not match
    the recording it comes from. Several threads fingerprint at once.
    """

    @property
    def recipe_id(self) -> str:
        """Id of everything that changes the fingerprints; a catalog accepts one id only."""

    @property
    def sample_rate(self) -> int:
        """Required sample rate of the waveforms in Hz."""

    @property
    def segment_s(self) -> float:
        """Length of one segment in seconds, the minimum length of a waveform."""

    def metadata(self) -> Mapping[str, Any]:
        """Return a description in JSON types; the catalog stores it."""

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        """Find the longest supported hop that divides `whole_s` and is at most `hop_s`.

        Parameters
        ----------
        hop_s, whole_s : float
            Seconds.

        Returns
        -------
        float
            Seconds.
        """

    def fingerprint(
        self, blocks: Iterable[NDArray[np.float32]], segment_hop_s: float, source: str = "array"
    ) -> Fingerprint:
        """Fingerprint one recording.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            The waveform in blocks.
        segment_hop_s : float
            Distance of the segments in seconds.
        source : str
            The recording's name in error messages.

        Raises
        ------
        AudioTooShortError, SilentAudioError
        """


class VectorIndex(Protocol):
    """Nearest-neighbour search over the segments of tracks."""

    @property
    def track_ids(self) -> list[int]:
        """Ids of the tracks that can be found, sorted."""

    @property
    def n_segments(self) -> int:
        """Number of vectors that can be found."""

    @property
    def is_approximate(self) -> bool:
        """Whether a search may miss some of the nearest segments."""

    def among(self, track_ids: Collection[int]) -> VectorIndex:
        """Restrict the index to some tracks."""

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        n_rescored: int = SearchConfig.n_rescored,
        nprobe: int | None = None,
    ) -> Hits:
        """Find the nearest segments of all tracks.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        k : int
        n_rescored, nprobe : int, int or None
            See :class:`~engine.config.SearchConfig`.

        Returns
        -------
        Hits
            Of shape (n_queries, k).
        """

    def n_positions(self, track_id: int) -> int:
        """Return the number of segments of a track."""

    def vectors(self, track_id: int, first: int, last: int) -> Vectors:
        """Read the vectors of a track at the positions first..last, the last one excluded.

        Returns
        -------
        float32 array of shape (last - first, dim)
        """

    def clips(self, track_id: int) -> Vectors:
        """Read the clip-level vectors of a track.

        Returns
        -------
        float32 array of shape (n_clips, dim)
        """
