from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from astound.catalog import Catalog
from astound.storage import DATABASE_FILE, local_shards
from benchmarks.metrics.exact import ExactIndex, share_found
from engine.records import NO_ADDRESS
from engine.store.store import Store


def exact_index(catalog: Catalog) -> ExactIndex:
    with Store.open(catalog.folder / DATABASE_FILE) as store:
        return ExactIndex(local_shards(catalog.folder), store.placements(), catalog.recipe_id)


def test_exact_search_equals_brute_force(padded: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.metrics.exact._BLOCK", 300)
    padded.delete([max(track.id for track in padded.tracks())])
    exact = exact_index(padded)
    queries = exact.vectors(1, 3, 8) + np.float32(0.05)
    stored = np.concatenate(
        [exact.vectors(one, 0, exact.n_positions(one)) for one in exact.track_ids]
    )
    hits = exact.search(queries, 20)
    np.testing.assert_allclose(
        hits.cosines, -np.sort(-(queries @ stored.T), axis=1)[:, :20], rtol=1e-5
    )
    flat = padded.index.search(queries, 20)
    assert share_found(hits, flat) == 1.0
    assert (hits.addresses != NO_ADDRESS).all()


def test_share_found_counts_missing_neighbours(padded: Catalog) -> None:
    exact = exact_index(padded)
    queries = exact.vectors(1, 0, 4)
    hits = exact.search(queries, 10)
    half = replace(hits, addresses=np.where(np.arange(10) < 5, hits.addresses, NO_ADDRESS))
    assert share_found(hits, half) == 0.5
    more = exact.search(queries, exact.n_segments + 5)
    assert share_found(more, more) == 1.0
