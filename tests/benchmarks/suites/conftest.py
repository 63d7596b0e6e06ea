from __future__ import annotations

from tests.training.conftest import brief, sources

__all__ = ["brief", "sources"]
