"""Change speed or tempo of whole batches of waveforms."""

from __future__ import annotations

import torch
from torch import Tensor

_N_FFT = 512
_HOP = 128
_QUIETEST = 1e-35  # quieter bins have no phase in float32
_CHUNK_SIZE = {"cpu": 2}  # intermediate results stay in the cache of the core
_DEFAULT_CHUNK_SIZE = 512


def change_speed(waveforms: Tensor, speeds: Tensor, starts: Tensor, n_samples: int) -> Tensor:
    """Change the speed of waveforms by cubic (Catmull-Rom) interpolation.

    Parameters
    ----------
    waveforms : float32 tensor of shape (n, n_source_samples)
    speeds, starts : float tensors of shape (n,)
        Source samples per sample of the result, and the source sample to start at.
    n_samples : int
        Length of the result.

    Returns
    -------
    float32 tensor of shape (n, n_samples)
    """
    size = _CHUNK_SIZE.get(waveforms.device.type, _DEFAULT_CHUNK_SIZE)
    chunks = (values.split(size) for values in (waveforms, speeds, starts))
    return torch.cat(
        [_interpolate(w, speed, start, n_samples) for w, speed, start in zip(*chunks, strict=True)]
    )


def _interpolate(waveforms: Tensor, speeds: Tensor, starts: Tensor, n_samples: int) -> Tensor:
    at = starts[:, None] + speeds[:, None] * torch.arange(n_samples, device=waveforms.device)
    low = at.floor().long().clamp(1, waveforms.shape[1] - 3)
    f = (at - low).float()
    a, b, c, d = (waveforms.gather(1, low + k) for k in (-1, 0, 1, 2))
    return b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))


def change_tempo(waveforms: Tensor, tempos: Tensor, fixed: float) -> Tensor:
    """Change the tempo of waveforms around one of their samples at the same pitch.

    A phase vocoder (Flanagan and Golden 1966) reads the magnitudes of a short-time spectrum at
    another tempo and advances the phases as in the source.

    Parameters
    ----------
    waveforms : float32 tensor of shape (n, n_samples)
    tempos : float tensor of shape (n,)
        Seconds of the source in one second of the result.
    fixed : float
        Sample that stays in place.

    Returns
    -------
    float32 tensor of shape (n, n_samples)
        Beyond the ends of the source, its first and last frames are held.
    """
    window = torch.hann_window(_N_FFT, device=waveforms.device)
    spectra = torch.stft(waveforms, _N_FFT, _HOP, window=window, return_complex=True)
    spectra = spectra.transpose(1, 2)  # a frame is contiguous
    n_frames = spectra.shape[1]
    at_fixed = fixed / _HOP
    offsets = torch.arange(n_frames, device=waveforms.device) - at_fixed
    at = at_fixed + tempos[:, None].float() * offsets
    low = at.floor().clamp(0, n_frames - 2).long()
    loudness = spectra.abs()
    phases = torch.where(loudness > _QUIETEST, spectra / loudness.clamp(min=_QUIETEST), 1.0)
    f = (at - low).clamp(0, 1)[..., None]
    magnitude = torch.lerp(_frames(loudness, low), _frames(loudness, low + 1), f)
    # Each frame turns the phase by as much as the source does from one frame to the next.
    turns = _frames(phases[:, 1:] * phases[:, :-1].conj(), low[:, :-1])
    phase = torch.cat([_frames(phases, low[:, :1]), turns], dim=1).cumprod(dim=1)
    changed = (magnitude * phase).transpose(1, 2)
    return torch.istft(changed, _N_FFT, _HOP, window=window, length=waveforms.shape[1])


def _frames(spectra: Tensor, numbers: Tensor) -> Tensor:
    """Select frames of each example: (n, n_frames, n_bins) and (n, k) to (n, k, n_bins)."""
    n, n_frames, n_bins = spectra.shape
    rows = numbers + n_frames * torch.arange(n, device=spectra.device)[:, None]
    selected = spectra.reshape(-1, n_bins).index_select(0, rows.flatten())
    return selected.reshape(n, -1, n_bins)
