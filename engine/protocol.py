"""The interface of everything that can fingerprint a catalog's audio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.records import Fingerprint


@runtime_checkable
class AudioFingerprinter(Protocol):
    """Converts waveforms to fingerprints; a catalog accepts any object with these members.

    A segment's fingerprint must depend on that segment's samples only, or a clip would not match
    the recording it comes from.
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
