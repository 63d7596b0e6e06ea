"""The log of a training run: JSON lines, and TensorBoard if it is installed."""

from __future__ import annotations

import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.files import atomic_write

log = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"
_REPORT_EVERY = 20


class RunLog:
    """Logs the numbers of a run in its folder.

    Parameters
    ----------
    out : Path
        Folder of the run.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / LOG_FILE
        self._first_step = 0

    def log_step(self, step: int, **values: float) -> None:
        """Log the numbers of one step."""
        self._write(step, values)
        if step % _REPORT_EVERY == 0:
            log.info("step %d %s", step, " ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def log_validation(self, step: int, rates: dict[str, float]) -> None:
        """Log the hit rates of a validation after a step."""
        self._write(step, {f"validation/{k}": v for k, v in rates.items()})
        log.info(
            "validation after %d steps, %%: %s",
            step + 1,
            ", ".join(f"{k} {100 * v:.0f}" for k, v in rates.items()),
        )
        if self._board is not None:
            self._board.flush()

    def truncate(self, step: int) -> None:
        """Drop what an interrupted run logged from `step` on, the step at which it resumes."""
        self._first_step = step
        if self.path.exists():
            kept = [line for line in self._lines() if line["step"] < step]
            with atomic_write(self.path) as partial:
                partial.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def validations(self) -> list[tuple[int, float]]:
        """Return the mean hit rate of each validation, with the number of steps before it."""
        key = "validation/mean"
        return [(line["step"] + 1, line[key]) for line in self._lines() if key in line]

    def _lines(self) -> list[dict[str, Any]]:
        text = self.path.read_text() if self.path.exists() else ""
        # A line without its end was being written when the run was killed.
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    @cached_property
    def _board(self) -> Any:
        """TensorBoard's writer, opened on first use: only one of several processes logs."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("tensorboard is not installed: the run is logged to %s only", LOG_FILE)
            return None
        return SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=self._first_step)

    def _write(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a") as file:
            rounded = {k: round(v, 6) for k, v in values.items()}
            file.write(json.dumps({"step": step, **rounded}) + "\n")
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(key, value, step)
