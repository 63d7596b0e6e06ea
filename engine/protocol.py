"""What anything must be able to do to fingerprint a catalog's audio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.records import Fingerprint


@runtime_checkable
class AudioFingerprinter(Protocol):
    """Turns waveforms into fingerprints; a catalog takes any object that does.

    Its fingerprints must depend on nothing but each segment's own samples, or a clip would not
    resemble the recording it comes from.
    """

    @property
    def recipe_id(self) -> str:
        """Stands for all that changes its numbers: a catalog refuses any other."""

    @property
    def sample_rate(self) -> int:
        """Hz the waveforms must have."""

    @property
    def segment_s(self) -> float:
        """Length of one segment in seconds: what it needs at least."""

    def metadata(self) -> Mapping[str, Any]:
        """Tell, in what JSON can hold, how it came about; kept in the catalog."""

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        """Find the longest hop it can do that fits evenly into another and is at most `hop_s`.

        Parameters
        ----------
        hop_s, whole_s : float
            Seconds.

        Returns
        -------
        float
        """

    def fingerprint(
        self, blocks: Iterable[NDArray[np.float32]], segment_hop_s: float, source: str = "array"
    ) -> Fingerprint:
        """Fingerprint one recording.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            The waveform in pieces.
        segment_hop_s : float
        source : str
            What errors call it.

        Raises
        ------
        AudioTooShortError, SilentAudioError
        """
