"""What a run has to tell: a log of JSON lines, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.files import atomic_write

log = logging.getLogger(__name__)

LOG = "log.jsonl"
_SAY_EVERY = 20


class Journal:
    """Notes the numbers of a run in its folder.

    Parameters
    ----------
    out : Path
    """

    def __init__(self, out: Path) -> None:
        self.path = out / LOG
        self._first_step = 0

    def note(self, step: int, **values: float) -> None:
        """Note the numbers of one step."""
        self._write(step, values)
        if step % _SAY_EVERY == 0:
            log.info("step %d %s", step, " ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def note_validation(self, step: int, rates: dict[str, float]) -> None:
        """Note the hit rates of a validation after a step."""
        self._write(step, {f"validation/{k}": v for k, v in rates.items()})
        log.info(
            "validation after %d steps, %%: %s",
            step + 1,
            ", ".join(f"{k} {100 * v:.0f}" for k, v in rates.items()),
        )
        if self._board is not None:
            self._board.flush()

    def forget_from(self, step: int) -> None:
        """Drop what an interrupted run noted after the checkpoint it goes on from."""
        self._first_step = step
        if self.path.exists():
            kept = [line for line in self._lines() if line["step"] < step]
            with atomic_write(self.path) as partial:
                partial.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def validations(self) -> list[tuple[int, float]]:
        """Mean hit rates noted so far, with the steps taken before each."""
        key = "validation/mean"
        return [(line["step"] + 1, line[key]) for line in self._lines() if key in line]

    def _lines(self) -> list[dict[str, Any]]:
        text = self.path.read_text() if self.path.exists() else ""
        # Without its end a line was being written when the run was killed.
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    @cached_property
    def _board(self) -> Any:
        """Opened when there is something to show: of several processes only one has."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("tensorboard is not installed: the run is logged to %s only", LOG)
            return None
        return SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=self._first_step)

    def _write(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a") as file:
            rounded = {k: round(v, 6) for k, v in values.items()}
            file.write(json.dumps({"step": step, **rounded}) + "\n")
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(key, value, step)
