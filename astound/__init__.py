"""Astound finds which known recording an unknown clip comes from, and where in it.

``astound.open`` returns a :class:`~astound.catalog.Catalog`, ``astound.connect`` that of a service;
importing this package loads neither torch nor faiss.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from astound.catalog import Catalog
    from astound.remote import RemoteCatalog
    from engine.errors import AstoundError
    from engine.model.ast_model import ASTModel
    from engine.recipe import ASTConfig
    from engine.records import Match, QueryResult, Track

_HOMES = {
    "ASTConfig": "engine.recipe",
    "ASTModel": "engine.model.ast_model",
    "Catalog": "astound.catalog",
    "AstoundError": "engine.errors",
    "Match": "engine.records",
    "QueryResult": "engine.records",
    "Track": "engine.records",
}

__all__ = [
    "ASTConfig",
    "ASTModel",
    "AstoundError",
    "Catalog",
    "Match",
    "QueryResult",
    "Track",
    "__version__",
    "connect",
    "open",
]


def open(folder: str | os.PathLike[str] = "catalog", **options: Any) -> Catalog:  # noqa: A001
    """Open a catalog; create it if there is none.

    Parameters
    ----------
    folder : path-like
    options
        Those of :class:`~astound.catalog.Catalog`: device, create, database.

    Examples
    --------
    >>> import astound
    >>> catalog = astound.open("catalog")        # doctest: +SKIP
    >>> catalog.add("music")                     # doctest: +SKIP
    >>> catalog.query("clip.wav").best.title     # doctest: +SKIP
    """
    from astound.catalog import Catalog

    return Catalog(folder, **options)


def connect(url: str, key: str | None = None, **options: Any) -> RemoteCatalog:
    """Use the catalog of a service, which `astound serve` runs.

    Parameters
    ----------
    url : str
    key : str, optional
        One that `astound key create` made, if the service needs one.
    options
        Those of :class:`~astound.remote.RemoteCatalog`: sends_audio, model, device.

    Examples
    --------
    >>> catalog = astound.connect("http://127.0.0.1:8765")    # doctest: +SKIP
    >>> catalog.query("clip.wav").best.title                  # doctest: +SKIP
    """
    from astound.remote import RemoteCatalog

    return RemoteCatalog(url, key, **options)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'astound' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
