"""Recordings of known and unknown stretches, by suites, with the ground truth by construction.

Every case depends on the seed, its name and the folders of audio alone. It is written to disk once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.random import Generator
from scipy import signal

from benchmarks.queries import datasets, degrade, mix
from benchmarks.queries.datasets import CONTEXT_S, RATE, TAIL_S, Noises, SpeechSource, Waveform
from benchmarks.queries.degrade import Distortion, Step
from benchmarks.queries.mix import Part
from benchmarks.queries.timeline import CUT_S, Piece, Timeline
from engine.audio import decode
from engine.audio.resample import resample
from engine.errors import AudioError, ConfigError
from engine.files import atomic_write

MINUTES_PER_N = 2.0
"""Minutes of the recording of the suite `long` for each of N."""

REJECT_S = 5.0
"""Length of the queries that are in no catalog."""

_N_TRIES = 200
_IDENTICAL = 0.9
_IDENTICAL_HZ = 4000
_PLACE_S = 0.25
_FADES_S = (0.2, 1.0)
_KEPT_S, _EDITED_S = (8.0, 30.0), (5.0, 30.0)
_SHORT_S, _SHORT_CUT_S = (3.0, 8.0), (1.0, 8.0)
_WITHIN_S, _AROUND_S = (2.0, 4.0), (4.0, 8.0)
_SPEED, _TEMPO, _DETUNED = (0.7, 1.4), (0.5, 2.0), (0.003, 0.03)


# -- cases -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The name of a case.

    Parameters
    ----------
    suite, row : str
        Its suite, and its row in that suite's table.
    number : int
        Index among the cases of the row.
    """

    suite: str
    row: str
    number: int

    @property
    def name(self) -> str:
        """Row and number as a file name, such as "noise10-003"."""
        return f"{self.row.replace(' ', '-')}-{self.number:03d}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Recordings with their ground truth.

    Parameters
    ----------
    spec : Spec
    files : tuple of Path
        The recordings. The second of a pair is the reference.
    duration_s : float
        Length of the first one.
    pieces : tuple of Piece
        By recording and start. The speed of reversed music is negative.
    """

    spec: Spec
    files: tuple[Path, ...]
    duration_s: float
    pieces: tuple[Piece, ...]


class Stretch(NamedTuple):
    """A stretch of a track, as loud as all others, float32 at RATE."""

    track: str
    start_s: float
    waveform: Waveform

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return len(self.waveform) / RATE


class Library:
    """Music to draw stretches from.

    Parameters
    ----------
    paths : sequence of Path
    option : str
        Name of the option that gave them, for errors.
    """

    def __init__(self, paths: Sequence[Path], option: str) -> None:
        self.paths, self.option = list(paths), option

    @cached_property
    def durations_s(self) -> dict[Path, float]:
        """Lengths of the files by their headers."""
        return {path: datasets.declared_s(path) for path in self.paths}

    @property
    def max_s(self) -> float:
        """Length of the longest file."""
        return max(self.durations_s.values(), default=0.0)

    def draw(
        self, rng: Generator, low_s: float, high_s: float, excluded: Iterable[str] = ()
    ) -> Stretch:
        """Draw an audible stretch whose length is uniform in a range.

        Parameters
        ----------
        rng : Generator
        low_s, high_s : float
            The range; a shorter track bounds it.
        excluded : iterable of str
            Paths not to draw from.

        Raises
        ------
        AudioError
            There is none.
        """
        skipped = set(excluded)
        paths = [p for p, s in self.durations_s.items() if s >= low_s and str(p) not in skipped]
        for _ in range(_N_TRIES if paths else 0):
            path = paths[int(rng.integers(len(paths)))]
            track = _track(path)
            n_low, n_high = round(low_s * RATE), min(round(high_s * RATE), len(track))
            if n_high < n_low:
                continue
            n_samples = int(rng.integers(n_low, n_high + 1))
            first = int(rng.integers(len(track) - n_samples + 1))
            cut = track[first : first + n_samples]
            if datasets.is_audible(cut):
                return Stretch(str(path), first / RATE, datasets.normalised(cut))
        raise AudioError(self.option, f"no audible stretch of {low_s:.1f} s")


@lru_cache(maxsize=8)
def _track(path: Path) -> Waveform:
    return decode.read(path, RATE)


@dataclass(frozen=True, kw_only=True)
class CaseSources:
    """Audio to make cases of.

    Parameters
    ----------
    known, absent : sequence of Path
        Music that the catalog contains, and does not contain.
    speech : sequence of Path
        Recordings that sound between music. Half of them are a catalog of speech.
    noise : Path
        Folder of noises.
    seed : int
    """

    known: Sequence[Path]
    absent: Sequence[Path]
    speech: Sequence[Path]
    noise: Path
    seed: int

    @cached_property
    def music(self) -> Library:
        """Known music."""
        return Library(self.known, "references")

    @cached_property
    def unknown(self) -> Library:
        """Music that the catalog does not contain."""
        return Library(self.absent, "absent")

    @cached_property
    def any_music(self) -> Library:
        """All music, for catalogs of other cases."""
        return Library([*self.known, *self.absent], "references")

    @cached_property
    def noises(self) -> Noises:
        """The noises."""
        return Noises(self.noise)

    @cached_property
    def speech_halves(self) -> tuple[list[Path], list[Path]]:
        """Speech for a catalog, and other speech for queries.

        Raises
        ------
        ConfigError
            There are fewer than two recordings.
        """
        halves = datasets.hold_out(self.speech, 0.5, self.seed)
        if not all(halves):
            raise ConfigError("speech", "two recordings are needed; one half becomes a catalog")
        return halves

    def paths(self) -> list[Path]:
        """Return all files, which cases depend on."""
        return [*self.known, *self.absent, *self.speech, *datasets.audio_files([self.noise])]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A case under construction.

    Parameters
    ----------
    spec : Spec
    folder : Path
        Where its files will be.
    sources : CaseSources
    """

    spec: Spec
    folder: Path
    sources: CaseSources
    timelines: list[Timeline] = field(default_factory=list)

    @cached_property
    def rng(self) -> Generator:
        """Random generator of the case alone."""
        return datasets.generator(self.sources.seed, self.spec.suite, self.spec.name)

    @property
    def seconds(self) -> float:
        """The length in the name of the row, such as that of "tempo 10 s"."""
        return float(self.spec.row.split()[-2])

    def file(self, number: int) -> Path:
        """Return the path of a recording."""
        return self.folder / f"{self.spec.name}-{number}.flac"

    def new(self) -> Timeline:
        """Add a recording."""
        self.timelines.append(Timeline())
        return self.timelines[-1]

    def uniform(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.rng.uniform(low, high))

    def factor(self, low: float, high: float) -> float:
        """Draw a factor, uniform in its logarithm."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))


class CaseFolder:
    """Cases on disk, each made when it is first needed.

    Parameters
    ----------
    folder : Path
    sources : CaseSources
    """

    def __init__(self, folder: Path, sources: CaseSources) -> None:
        self.folder, self.sources = folder, sources

    def case(self, spec: Spec) -> Case:
        """Read a case, or make it."""
        folder = self.folder / spec.suite
        truth = folder / f"{spec.name}.json"
        if not truth.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._make(spec, folder, truth)
        stored = json.loads(truth.read_text())
        return Case(
            spec=spec,
            files=tuple(folder / name for name in stored["files"]),
            duration_s=stored["duration_s"],
            pieces=tuple(
                Piece(**piece | {"also_at_s": tuple(piece["also_at_s"])})
                for piece in stored["pieces"]
            ),
        )

    def _make(self, spec: Spec, folder: Path, truth: Path) -> None:
        draft = Draft(spec=spec, folder=folder, sources=self.sources)
        SUITES[spec.suite].construct(draft)
        files = [draft.file(number) for number in range(len(draft.timelines))]
        for file, timeline in zip(files, draft.timelines, strict=True):
            _write(file, timeline.waveform)
        pieces = [
            asdict(piece) | {"recording": number, "also_at_s": _identical_places(piece)}
            for number, timeline in enumerate(draft.timelines)
            for piece in timeline.pieces
        ]
        stored = {
            "files": [file.name for file in files],
            "duration_s": draft.timelines[0].duration_s,
            "pieces": pieces,
        }
        with atomic_write(truth) as partial:  # last: it says that the recordings are complete
            partial.write_text(json.dumps(stored))


def _write(file: Path, waveform: Waveform) -> None:
    peak = float(np.abs(waveform).max(initial=0.0))
    soundfile.write(file, waveform / max(peak, 1.0), RATE)


def _identical_places(piece: Piece) -> list[float]:
    """Find where else in its track nearly the samples of a piece are."""
    track = Path(piece.track)
    if piece.speed <= 0 or not track.is_file():  # reversed music, the name of a repeat
        return []
    return list(
        _identical(_slow_track(track), piece.reference_start_s, piece.length_s * piece.speed)
    )


@lru_cache(maxsize=8)
def _slow_track(path: Path) -> Waveform:
    return resample(_track(path), RATE, _IDENTICAL_HZ)


def _identical(track: Waveform, start_s: float, length_s: float) -> Iterator[float]:
    """Find other starts whose samples, at _IDENTICAL_HZ, correlate with those of a stretch."""
    first, n_samples = round(start_s * _IDENTICAL_HZ), round(length_s * _IDENTICAL_HZ)
    cut = track[first : first + n_samples]
    energy = np.cumsum(np.square(np.pad(track, (1, 0)), dtype=np.float64))
    norms = np.sqrt(np.maximum(energy[len(cut) :] - energy[: -len(cut)], 1e-9))
    products = signal.correlate(track, cut, mode="valid", method="fft")
    cosines = products / (norms * float(np.linalg.norm(cut)))
    n_apart = round(_PLACE_S * _IDENTICAL_HZ)
    peaks, _ = signal.find_peaks(cosines, height=_IDENTICAL, distance=n_apart)
    yield from (
        float(peak - first) / _IDENTICAL_HZ + start_s
        for peak in peaks
        if abs(peak - first) > n_apart
    )


# -- songs in a row ----------------------------------------------------------------------------


def _joins(draft: Draft) -> None:
    """Join two to four songs with hard cuts and short fades; the row names the noise."""
    timeline, drawn = draft.new(), list[str]()
    for _ in range(int(draft.rng.integers(2, 5))):
        song = draft.sources.music.draw(draft.rng, 5.0, 20.0, drawn)
        fade_s = CUT_S if draft.rng.random() < 1 / 2 else draft.uniform(*_FADES_S)
        timeline.append(song.waveform, song.track, song.start_s, fade_s=fade_s)
        drawn.append(song.track)
    if draft.spec.row == "noise10":
        _add_noise(draft, timeline)


def _add_noise(draft: Draft, timeline: Timeline) -> None:
    step = degrade.add_noise(draft.sources.noises.draw, 10.0)
    timeline.waveform = step(timeline.waveform, RATE, draft.rng)


def _half_known(draft: Draft) -> None:
    """Join a known stretch with an unknown one before or after it."""
    known = draft.sources.music.draw(draft.rng, 5.0, 10.0)
    unknown = draft.sources.unknown.draw(draft.rng, 5.0, 20.0)
    timeline = draft.new()
    if draft.spec.row == "unknown before":
        timeline.append(unknown.waveform)
    timeline.append(known.waveform, known.track, known.start_s)
    if draft.spec.row == "unknown after":
        timeline.append(unknown.waveform)


# -- edits -------------------------------------------------------------------------------------


def _edits(draft: Draft) -> None:
    """Cut stretches out of a track, repeat them, or change their order."""
    _append_edit(draft.new(), *_edit(draft, draft.sources.music))


def _same(draft: Draft) -> None:
    """Make an edit or a faster version, and the stretch of a track that it comes from."""
    edited, reference = draft.new(), str(draft.file(1))
    if draft.spec.row == "faster":
        speed = 1 + draft.uniform(0.005, 0.03)
        original = draft.sources.music.draw(draft.rng, 40.0, 90.0)
        faster = degrade.change_speed(speed)(original.waveform, RATE, draft.rng)
        edited.append(faster, reference, 0.0, speed=speed)
    else:
        drawn, lengths_s, order = _edit(draft, draft.sources.music)
        original = Stretch(reference, 0.0, drawn.waveform)
        _append_edit(edited, original, lengths_s, order)
    draft.new().append(original.waveform)


def _edit(draft: Draft, music: Library) -> tuple[Stretch, Sequence[float], Sequence[int]]:
    """Draw a stretch of a track, the lengths of its parts, and the order to play them in."""
    for _ in range(_N_TRIES):
        kept = [draft.uniform(*_KEPT_S) for _ in range(5)]
        edited = [draft.uniform(*_EDITED_S) for _ in range(2)]
        twice = draft.rng.random() < 1 / 2
        lengths_s: list[float]
        if draft.spec.row == "reordered":
            lengths_s, order = (kept, [0, 3, 2, 1, 4]) if twice else (kept[:4], [0, 2, 1, 3])
        else:
            parts = [kept[0], edited[0], kept[1], edited[1], kept[2]]
            lengths_s = parts if twice else parts[:3]
            order = {
                ("cut out", False): [0, 2],
                ("cut out", True): [0, 2, 4],
                ("repeated", False): [0, 1, 1, 2],
                ("repeated", True): [0, 1, 1, 2, 3, 3, 4],
            }[draft.spec.row, twice]
        total_s = sum(lengths_s)
        if total_s <= music.max_s:
            return music.draw(draft.rng, total_s, total_s), lengths_s, order
    raise AudioError(music.option, "no track is long enough for edits")


def _append_edit(
    timeline: Timeline, original: Stretch, lengths_s: Sequence[float], order: Sequence[int]
) -> None:
    """Append parts of a stretch in an order; parts that follow each other are one piece."""
    ends = [round(end_s * RATE) for end_s in np.cumsum([0.0, *lengths_s])]
    breaks = [i for i, (one, other) in enumerate(pairwise(order), 1) if other != one + 1]
    for first, last in pairwise([0, *breaks, len(order)]):
        begin, end = ends[order[first]], ends[order[last - 1] + 1]
        start_s = original.start_s + begin / RATE
        timeline.append(original.waveform[begin:end], original.track, start_s)


def _short_pieces(draft: Draft) -> None:
    """Cut a stretch out of a short clip, or put a short piece into unknown music."""
    timeline, sources = draft.new(), draft.sources
    if draft.spec.row == "in music":
        timeline.append(sources.unknown.draw(draft.rng, *_AROUND_S).waveform)
        known = sources.music.draw(draft.rng, *_WITHIN_S)
        timeline.append(known.waveform, known.track, known.start_s)
        timeline.append(sources.unknown.draw(draft.rng, *_AROUND_S).waveform)
        return
    lengths_s = [draft.uniform(*_SHORT_S), draft.uniform(*_SHORT_CUT_S), draft.uniform(*_SHORT_S)]
    original = sources.music.draw(draft.rng, sum(lengths_s), sum(lengths_s))
    _append_edit(timeline, original, lengths_s, [0, 2])
    if draft.spec.row == "noise10":
        _add_noise(draft, timeline)


# -- jingles and repeats -----------------------------------------------------------------------


def _jingles(draft: Draft) -> None:
    """Put a short reference into speech; the row names its length."""
    speech = SpeechSource(draft.sources.speech, draft.rng)
    jingle = draft.sources.any_music.draw(draft.rng, draft.seconds, draft.seconds)
    timeline = draft.new()
    timeline.append(speech.read(round(draft.uniform(5.0, 15.0) * RATE)))
    timeline.append(jingle.waveform, str(draft.file(1)))
    timeline.append(speech.read(round(draft.uniform(5.0, 15.0) * RATE)))
    draft.new().append(jingle.waveform)


def _repeats(draft: Draft) -> None:
    """Put an intro into three recordings of speech, an advertisement into the first and last.

    The track is the name of the repeat; pieces lie on the identity.
    """
    speech = SpeechSource(draft.sources.speech, draft.rng)
    intro = draft.sources.any_music.draw(draft.rng, 4.0, 15.0)
    advertisement = draft.sources.any_music.draw(draft.rng, 4.0, 15.0, [intro.track])
    for number in range(3):
        timeline = draft.new()
        timeline.append(speech.read(round(draft.uniform(2.0, 5.0) * RATE)))
        _append_repeat(timeline, intro, "intro")
        timeline.append(speech.read(round(draft.uniform(10.0, 16.0) * RATE)))
        if number != 1:
            _append_repeat(timeline, advertisement, "advertisement")
        timeline.append(speech.read(round(draft.uniform(8.0, 14.0) * RATE)))


def _append_repeat(timeline: Timeline, music: Stretch, name: str) -> None:
    timeline.append(music.waveform, name, timeline.duration_s - CUT_S)


# -- speeds ------------------------------------------------------------------------------------


def _detuned(draft: Draft) -> None:
    """Play a long clip a little slower or faster."""
    change = draft.factor(*_DETUNED)
    speed = 1 + change if draft.spec.row == "faster" else 1 - change
    around_s = CONTEXT_S + TAIL_S
    low_s, high_s = (seconds * 1.03 + around_s for seconds in (30.0, 120.0))
    music = draft.sources.music.draw(draft.rng, low_s, high_s)
    duration_s = (music.duration_s - around_s) / speed
    _append_distorted(draft, music, speed, degrade.change_speed(speed), duration_s)


def _speeds(draft: Draft) -> None:
    """Play a clip at a random speed or tempo, which is on no grid."""
    is_tempo = draft.spec.row.startswith("tempo")
    speed = draft.factor(*(_TEMPO if is_tempo else _SPEED))
    needed_s = CONTEXT_S + draft.seconds * speed + TAIL_S
    music = draft.sources.music.draw(draft.rng, needed_s, needed_s)
    step = degrade.change_tempo(speed) if is_tempo else degrade.change_speed(speed)
    _append_distorted(draft, music, speed, step, draft.seconds)


def _append_distorted(
    draft: Draft, music: Stretch, speed: float, step: Step, duration_s: float
) -> None:
    distortion = Distortion(name=draft.spec.row, context_steps=(step,), speed=speed)
    query = distortion.query(
        music.waveform, RATE, draft.rng, context_s=CONTEXT_S, duration_s=duration_s, tail_s=TAIL_S
    )
    draft.new().append(query, music.track, music.start_s + CONTEXT_S, speed=speed)


# -- clean clips, and a long recording -----------------------------------------------------------


def _within(draft: Draft) -> None:
    """Cut a clean clip."""
    clip = draft.sources.music.draw(draft.rng, draft.seconds, draft.seconds)
    draft.new().append(clip.waveform, clip.track, clip.start_s)


def _long(draft: Draft) -> None:
    """Mix known and unknown tracks with speech; the row names the length."""
    sources, minutes = draft.sources, draft.seconds
    planned = mix.plan(
        sources.known, sources.absent, round(minutes / MINUTES_PER_N), minutes * 60, sources.seed
    )
    timeline = draft.new()
    mix.write(planned, sources.speech, draft.file(0), sources.seed)
    timeline.waveform = decode.read(draft.file(0), RATE)
    timeline.pieces = [_part_piece(part) for part in planned.parts if part.present]


def _part_piece(part: Part) -> Piece:
    """Return the piece between the middles of the fades."""
    return Piece(
        track=str(part.path),
        query_start_s=part.start_s + part.fade_in_s / 2,
        query_end_s=part.end_s - part.fade_out_s / 2,
        reference_start_s=part.reference_start_s + part.speed * part.fade_in_s / 2,
        speed=part.speed,
    )


# -- what no catalog contains --------------------------------------------------------------------


def _rejects(draft: Draft) -> None:
    """Make sound that is no known music; the row names its kind."""
    timeline, sources = draft.new(), draft.sources
    if draft.spec.row == "reversed":
        clip = sources.music.draw(draft.rng, 10.0, 10.0)
        end_s = clip.start_s + clip.duration_s
        timeline.append(clip.waveform[::-1].copy(), clip.track, end_s, speed=-1.0)
    elif draft.spec.row == "speech":
        timeline.append(SpeechSource(sources.speech_halves[1], draft.rng).read(_N_REJECT))
    elif draft.spec.row == "noise":
        timeline.append(datasets.normalised(np.resize(sources.noises.draw(draft.rng), _N_REJECT)))
    else:
        timeline.append(datasets.normalised(_SIGNALS[draft.spec.row](draft)))


_N_REJECT = round(REJECT_S * RATE)
_TIMES_S = np.arange(_N_REJECT) / RATE


def _tone(draft: Draft) -> Waveform:
    hertz = draft.factor(60.0, 3500.0)
    return np.sin(2 * np.pi * hertz * _TIMES_S).astype(np.float32)


def _sweep(draft: Draft) -> Waveform:
    first_hz, last_hz = draft.factor(60.0, 3500.0), draft.factor(60.0, 3500.0)
    swept = signal.chirp(_TIMES_S, first_hz, REJECT_S, last_hz, method="logarithmic")
    return np.asarray(swept, np.float32)


def _hum(draft: Draft) -> Waveform:
    """Make mains hum: harmonics of 50 or 60 Hz."""
    mains_hz = float(draft.rng.choice([50.0, 60.0]))
    numbers = np.arange(1, 1 + int(draft.rng.integers(5, 20)))
    phases = draft.rng.uniform(0, 2 * np.pi, len(numbers))
    harmonics = np.sin(2 * np.pi * mains_hz * numbers[:, None] * _TIMES_S + phases[:, None])
    return np.asarray((harmonics / numbers[:, None]).sum(axis=0), np.float32)


_SIGNALS: Mapping[str, Callable[[Draft], Waveform]] = {"tone": _tone, "sweep": _sweep, "hum": _hum}


# -- suites ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A kind of cases.

    Parameters
    ----------
    construct : callable
        Fills a draft.
    rows : mapping of float
        Rows of its table, and the number of cases of each for each of N.
    """

    construct: Callable[[Draft], None]
    rows: Mapping[str, float]


def _rows(*names: str, per_n: float = 1.0) -> dict[str, float]:
    return dict.fromkeys(names, per_n)


SUITES: Mapping[str, Suite] = {
    "joins": Suite(construct=_joins, rows=_rows("clean", "noise10")),
    "half-known": Suite(construct=_half_known, rows=_rows("unknown before", "unknown after")),
    "edits": Suite(construct=_edits, rows=_rows("cut out", "repeated", "reordered")),
    "short-pieces": Suite(
        construct=_short_pieces, rows=_rows("clean", "noise10", "in music", per_n=3)
    ),
    "jingles": Suite(construct=_jingles, rows=_rows("2 s", "3 s", "4 s", "6 s")),
    "detuned": Suite(construct=_detuned, rows=_rows("slower", "faster")),
    "speeds": Suite(
        construct=_speeds,
        rows=_rows("speed 5 s", "speed 10 s", "tempo 5 s", "tempo 10 s", per_n=2),
    ),
    "same": Suite(
        construct=_same, rows=_rows("cut out", "repeated", "reordered", "faster", per_n=1 / 2)
    ),
    "repeats": Suite(construct=_repeats, rows=_rows("3 files", per_n=1 / 2)),
    "rejects": Suite(
        construct=_rejects,
        rows=_rows("tone", per_n=5)
        | _rows("sweep", "hum", "noise", "speech")
        | _rows("reversed", per_n=2),
    ),
    "within": Suite(construct=_within, rows=_rows("2 s", "3 s", "5 s", "10 s", per_n=5)),
    "long": Suite(construct=_long, rows={}),
}
"""Suites by name. The one row of `long` is its length, which depends on N."""


def specs(suite: str, n: int) -> list[Spec]:
    """List the cases of a suite for N."""
    if suite == "long":
        return [Spec(suite=suite, row=f"{MINUTES_PER_N * n:g} min", number=0)]
    return [
        Spec(suite=suite, row=row, number=number)
        for row, per_n in SUITES[suite].rows.items()
        for number in range(max(round(per_n * n), 1))
    ]
