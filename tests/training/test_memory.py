from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import engine

_FAULTS = """
import resource
import numpy as np
from training.memory import keep_freed_memory

def n_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(1 << 20, np.uint8) for _ in range(64)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
n_faults()
print(n_faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_used_again_without_a_fault() -> None:
    root = Path(engine.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100  # of 16,384 pages
