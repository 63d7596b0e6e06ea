"""Writers on a disk without room: an error, nothing lost, and the next run succeeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from astound.catalog import Catalog
from benchmarks.runs.disks import fill
from engine.errors import AstoundError
from tests.catalogs import add, contents, open_catalog
from tests.disks import mounted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as disk:
        yield disk


def test_full_disk_loses_nothing_and_the_next_run_succeeds(small_disk: Path, tunes: Path) -> None:
    with open_catalog(small_disk / "catalog") as catalog:
        add(catalog, tunes, range(3))
        before = contents(catalog)
        changes: list[Callable[[Catalog], object]] = [
            lambda one: add(one, tunes, [4]),
            lambda one: one.compact(),
            lambda one: one.delete([1]),
            lambda one: one.export(small_disk / "exported"),
        ]
        for change in changes:
            filler = fill(small_disk)
            with pytest.raises((AstoundError, OSError)):
                change(catalog)
            filler.unlink()
            assert (contents(catalog), catalog.verify()) == (before, [])
        for change in changes:
            change(catalog)
        assert (catalog.stats().n_tracks, catalog.verify()) == (3, [])
