"""Exact search: every stored segment is compared with the query, as an oracle for other searches.

It reads the vectors that candidates are rescored on, so that only the search differs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engine.records import NO_ADDRESS, Addresses, Hits, Vectors, address
from engine.vectors.index import Index

_BLOCK = 1 << 16


class ExactIndex(Index):
    """An index that compares a query with every stored segment."""

    hits: Hits
    """Result of the last search."""

    def search(
        self, queries: Vectors, k: int, *, n_rescored: int = 0, nprobe: int | None = None
    ) -> Hits:
        """Find the nearest segments of all tracks.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        k : int
        n_rescored, nprobe : int, int or None
            Ignored: there are no codes and no lists.

        Returns
        -------
        Hits
            Of shape (n_queries, k).
        """
        hits = Hits(
            addresses=np.full((len(queries), k), NO_ADDRESS, np.int64),
            cosines=np.full((len(queries), k), -np.inf, np.float32),
        )
        for addresses, vectors in self._blocks():
            hits = _merged(hits, addresses, queries @ vectors.T)
        order = np.argsort(-hits.cosines, axis=1, kind="stable")
        self.hits = _chosen(hits.addresses, hits.cosines, order)
        return self.hits

    def _blocks(self) -> Iterator[tuple[Addresses, Vectors]]:
        """Yield addresses and vectors of several tracks at a time, in bounded memory."""
        addresses: list[Addresses] = []
        vectors: list[Vectors] = []
        for track_id in self.track_ids:
            n_segments = self.n_positions(track_id)
            addresses.append(address(track_id, 0) + np.arange(n_segments))
            vectors.append(self.vectors(track_id, 0, n_segments))
            if sum(map(len, vectors)) >= _BLOCK:
                yield np.concatenate(addresses), np.concatenate(vectors)
                addresses, vectors = [], []
        if vectors:
            yield np.concatenate(addresses), np.concatenate(vectors)


def _merged(hits: Hits, addresses: Addresses, cosines: NDArray[np.float32]) -> Hits:
    """Merge the hits so far with a block of segments; keep the nearest, in any order."""
    block_addresses = np.broadcast_to(addresses, cosines.shape)
    both = np.concatenate([hits.addresses, block_addresses], axis=1)
    values = np.concatenate([hits.cosines, cosines], axis=1)
    k = hits.cosines.shape[1]
    return _chosen(both, values, np.argpartition(-values, k - 1, axis=1)[:, :k])


def _chosen(addresses: Addresses, cosines: NDArray[np.float32], columns: NDArray[np.intp]) -> Hits:
    return Hits(
        addresses=np.take_along_axis(addresses, columns, axis=1),
        cosines=np.take_along_axis(cosines, columns, axis=1),
    )


def share_found(exact: Hits, found: Hits) -> float:
    """Return the share of the exact neighbours that another search found too, in [0, 1]."""
    pairs = zip(exact.addresses, found.addresses, strict=True)
    n_found = sum(len(np.intersect1d(row[row != NO_ADDRESS], other)) for row, other in pairs)
    return n_found / max(int((exact.addresses != NO_ADDRESS).sum()), 1)
