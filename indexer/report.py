"""What became of every file of an ingest."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Added:
    """A file that became a track."""

    path: str
    track_id: int


@dataclass(frozen=True)
class Skipped:
    """A file whose audio is in the catalog; `track_id` is None if the same run is adding it."""

    path: str
    track_id: int | None


@dataclass(frozen=True)
class Failure:
    """A file that could not be ingested, with the reason in one line."""

    path: str
    reason: str


@dataclass(frozen=True)
class Warned:
    """A file that was ingested although something is wrong with it, in one line."""

    path: str
    reason: str


@dataclass
class IngestReport:
    """Result of an ingest, or of the part of it that is done.

    Parameters
    ----------
    added, skipped, failed : list
        One record for each file, in the order of processing.
    warned : list of Warned
        One record for each warning about an added file.
    audio_s : float
        Seconds of audio fingerprinted.
    elapsed_s : float
    n_files, n_bytes : int
        Number and size of all files.
    n_files_done, n_bytes_done : int
        Number and size of the files that are done; some may not be committed yet.
    """

    added: list[Added] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    warned: list[Warned] = field(default_factory=list)
    audio_s: float = 0.0
    elapsed_s: float = 0.0
    n_files: int = 0
    n_bytes: int = 0
    n_files_done: int = 0
    n_bytes_done: int = 0

    @property
    def realtime_factor(self) -> float:
        """Seconds of audio fingerprinted in one second."""
        return self.audio_s / self.elapsed_s if self.elapsed_s else 0.0
