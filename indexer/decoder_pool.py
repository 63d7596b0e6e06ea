"""Several decoders at work ahead of one consumer, in the order of the files."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engine.audio.decode import Waveform
from engine.errors import AudioError
from engine.records import Tags
from indexer.decoder import Decoder
from indexer.discover import FoundFile

# Blocks of a minute each that a lane may be ahead: what bounds memory whatever the files are.
BLOCKS_AHEAD = 8


@dataclass(frozen=True)
class Recording:
    """A file being decoded.

    Parameters
    ----------
    file : FoundFile
    content_hash : str
    tags : Tags
    blocks : iterator of float32 arrays of shape (n_samples,), or None
        None where the content is not wanted. Must be used up before the next recording is taken;
        raises AudioError where decoding fails.
    """

    file: FoundFile
    content_hash: str
    tags: Tags
    blocks: Iterator[Waveform] | None


class Lanes:
    """Decodes files in child processes, some way ahead of whoever iterates.

    Parameters
    ----------
    files : sequence of FoundFile
    sample_rate : int
    n_jobs : int or None
        Child processes; one for each core by default.
    wanted : callable
        Given a content hash, tells whether to decode that file. Called from several threads.
    """

    def __init__(
        self,
        files: Sequence[FoundFile],
        sample_rate: int,
        n_jobs: int | None,
        wanted: Callable[[str], bool],
    ) -> None:
        n_lanes = max(1, min(n_jobs or os.cpu_count() or 1, len(files)))
        self._n_files = len(files)
        self._lanes = [_Lane(files[i::n_lanes], sample_rate, wanted) for i in range(n_lanes)]

    def __enter__(self) -> Lanes:
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self._lanes:
            lane.stop()

    def __iter__(self) -> Iterator[Recording | AudioError]:
        """Yield a recording for each file, or the error that kept it from being opened."""
        for number in range(self._n_files):
            yield self._lanes[number % len(self._lanes)].take()


_Item = Recording | AudioError | Waveform | None


class _Lane(threading.Thread):
    """One decoder and the thread that empties its pipe."""

    def __init__(
        self, files: Sequence[FoundFile], sample_rate: int, wanted: Callable[[str], bool]
    ) -> None:
        super().__init__(daemon=True)
        self._files, self._wanted = files, wanted
        self._decoder = Decoder(sample_rate)
        self._items: queue.Queue[_Item] = queue.Queue(BLOCKS_AHEAD)
        self._stopped = threading.Event()

    def take(self) -> Recording | AudioError:
        item = self._items.get()
        assert isinstance(item, (Recording, AudioError))
        return item

    def stop(self) -> None:
        self._stopped.set()
        while self.is_alive():  # again and again: it may be just about to start a child
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
            content_hash, tags = self._decoder.open(file.path)
            if not self._wanted(content_hash):
                self._decoder.skip()
                self._put(Recording(file, content_hash, tags, None))
                return
            self._put(Recording(file, content_hash, tags, self._blocks()))
            for block in self._decoder.blocks():
                self._put(block)
            self._put(None)
        except AudioError as error:
            self._put(error)
        except Exception as error:  # noqa: BLE001 - a lane that dies silently would hang its consumer
            self._decoder.close()  # it may wait for an answer that never comes
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
