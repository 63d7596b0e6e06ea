"""How well a model in training retrieves music it has not been trained on."""

from __future__ import annotations

import numpy as np
import torch

from engine import spectrogram
from engine.config import SpectrogramConfig
from engine.encoder import ASTModel
from training.dataset import PairSampler

N_PAIRS = 1024
SEED = 20_210_719


@torch.inference_mode()
def hit_rate(model: ASTModel, held_out: PairSampler, config: SpectrogramConfig) -> float:
    """Share of degraded segments whose nearest clean segment is their own, among 1,024.

    Parameters
    ----------
    model : ASTModel
    held_out : PairSampler
        Over tracks that are in no training batch; the same pairs are drawn every time.
    config : SpectrogramConfig
    """
    rng = np.random.default_rng(SEED)
    model.eval()
    embedded: list[list[torch.Tensor]] = [[], []]
    for _ in range(N_PAIRS // 128):
        for views, out in zip(
            held_out.draw(rng, 128, config.samples_per_segment), embedded, strict=True
        ):
            features = spectrogram.normalise(spectrogram.log_mel(views, config), config)
            out.append(model.embed(features))
    model.train()
    clean, degraded = (torch.cat(views) for views in embedded)
    nearest = (degraded @ clean.T).argmax(dim=1)
    return float((nearest == torch.arange(N_PAIRS)).float().mean())
