"""``python -m benchmarks ...`` is ``astound bench ...``."""

from __future__ import annotations

import sys

from astound.commands.main import cli
from benchmarks.cli import bench

if __name__ == "__main__":
    cli.add_command(bench)
    cli(["bench", *sys.argv[1:]], prog_name="astound")
