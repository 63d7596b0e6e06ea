"""Decode files in several child processes, ahead of one consumer and in order."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from engine.audio.child import Decoder
from engine.audio.report import ReadReport
from engine.errors import AudioError
from engine.records import Content, Tags, Waveform
from indexer.discover import FoundFile

BLOCKS_AHEAD = 8
"""Blocks of a minute that each decoder may be ahead; it bounds memory for files of any length."""


@dataclass(frozen=True)
class Recording:
    """A file being decoded.

    Parameters
    ----------
    file : FoundFile
    content : Content
    tags : Tags
    blocks : iterator of float32 arrays of shape (n_samples,), or None
        None if the file was skipped. Read it to its end before the next recording. It raises
        AudioError when decoding fails.
    report : ReadReport
        Complete after the last block.
    """

    file: FoundFile
    content: Content
    tags: Tags
    blocks: Iterator[Waveform] | None
    report: ReadReport = field(default_factory=ReadReport)


class DecoderPool:
    """Decodes files in child processes, ahead of the consumer.

    It is a context manager, and an iterator over the recordings in the order of the files.

    Parameters
    ----------
    files : sequence of FoundFile
    sample_rate : int
    n_jobs : int or None
        Number of child processes; one for each core by default.
    is_wanted : callable
        Called with the content of a file; returns whether to decode it. Called from several
        threads.
    """

    def __init__(
        self,
        files: Sequence[FoundFile],
        sample_rate: int,
        n_jobs: int | None,
        is_wanted: Callable[[Content], bool],
    ) -> None:
        n = max(1, min(n_jobs or os.cpu_count() or 1, len(files)))
        self._n_files = len(files)
        self._workers = [_Worker(files[i::n], sample_rate, is_wanted) for i in range(n)]

    def __enter__(self) -> DecoderPool:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def __iter__(self) -> Iterator[Recording | AudioError]:
        """Yield a recording for each file, or the error of one that cannot be opened."""
        for number in range(self._n_files):
            yield self._workers[number % len(self._workers)].take()


_Item = Recording | AudioError | Waveform | None


class _Worker(threading.Thread):
    """One decoder, and the thread that reads its output."""

    def __init__(
        self, files: Sequence[FoundFile], sample_rate: int, is_wanted: Callable[[Content], bool]
    ) -> None:
        super().__init__(daemon=True)
        self._files, self._is_wanted = files, is_wanted
        self._decoder, self._sample_rate = Decoder(), sample_rate
        self._items: queue.Queue[_Item] = queue.Queue(BLOCKS_AHEAD)
        self._stopped = threading.Event()

    def take(self) -> Recording | AudioError:
        item = self._items.get()
        assert isinstance(item, (Recording, AudioError))
        return item

    def stop(self) -> None:
        self._stopped.set()
        while self.is_alive():  # it may be about to start a child, so one close is not enough
            self._decoder.close()
            self.join(0.05)

    def run(self) -> None:
        for file in self._files:
            if self._stopped.is_set():
                break
            self._decode(file)
        self._decoder.close()

    def _decode(self, file: FoundFile) -> None:
        try:
            content, tags = self._decoder.inspect(file.path)
            if not self._is_wanted(content):
                self._put(Recording(file, content, tags, None))
                return
            report = ReadReport()
            self._put(Recording(file, content, tags, self._blocks(), report))
            for block in self._decoder.blocks(file.path, self._sample_rate, report):
                self._put(block)
            self._put(None)
        except AudioError as error:
            self._put(error)
        except Exception as error:  # noqa: BLE001 - the consumer would wait forever
            self._decoder.close()  # the child may be in the middle of an answer
            self._put(AudioError(file.path, f"{type(error).__name__}: {error}"))

    def _blocks(self) -> Iterator[Waveform]:
        while (item := self._items.get()) is not None:
            if isinstance(item, AudioError):
                raise item
            assert not isinstance(item, Recording)
            yield item

    def _put(self, item: _Item) -> None:
        while not self._stopped.is_set():
            try:
                self._items.put(item, timeout=0.2)
            except queue.Full:
                continue
            return
