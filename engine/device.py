"""The device that networks run on."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from engine.errors import ModelError

_DRIVERS = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1",)
_AMD_DEVICE = Path("/dev/kfd")


def resolve_device(device: str) -> str:
    """Replace "auto" by "cuda" or "cpu"; ModelError for "cuda" without a CUDA device.

    torch is imported only for "cuda", and for "auto" where there is a GPU's driver.
    """
    if device == "cuda" and not torch_has_cuda():
        raise ModelError("cuda", "no CUDA device, or no torch with CUDA; use --device cpu")
    if device == "auto":
        return "cuda" if _has_driver() and torch_has_cuda() else "cpu"
    return device


def torch_has_cuda() -> bool:
    """Whether torch is installed and finds a CUDA device."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available()


def has_fast_bfloat16(device: str) -> bool:
    """Whether "cuda" or "cpu" computes bfloat16 faster than float32."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())  # torch has no public test for it


def _has_driver() -> bool:
    """Whether the driver of an NVIDIA or AMD GPU is installed, the ones that torch calls "cuda"."""
    if _AMD_DEVICE.exists():
        return True
    for name in _DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
