"""Ablation of the recipe: short training runs that differ in one choice, at equal compute.

Compute is processor time, which does not depend on other load. The runs are much shorter than a
real training: they show what learns fast, not what is best in the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.reports.report import table
from engine.files import atomic_write
from engine.model.network import new_models
from engine.recipe import FINGERPRINT_AST, Recipe, SpectrogramConfig
from training.augment.config import AugmentConfig
from training.augment.rng import Rng
from training.config import TrainConfig
from training.learner import Learner
from training.memory import keep_freed_memory
from training.sources import Sources
from training.train import Samplers, open_samplers
from training.validate import retrieval_hit_rates

log = logging.getLogger(__name__)

BASE = TrainConfig(n_pairs=64, n_warmup_steps=20, n_steps=1_000_000, optimizer="adamw")


class Variant(NamedTuple):
    """One changed choice; `synthetic` names the folders of tunes or voices that it adds."""

    config: TrainConfig = BASE
    recipe: Recipe = Recipe()
    synthetic: tuple[str, ...] = ()


def _with_config(**changes: Any) -> Variant:
    return Variant(dataclasses.replace(BASE, **changes))


def _with_augmentation(**changes: Any) -> Variant:
    return _with_config(augment=dataclasses.replace(AugmentConfig(), **changes))


def _with_recipe(spectrogram: dict[str, Any] | None = None, **encoder: Any) -> Variant:
    return Variant(
        recipe=Recipe(
            spectrogram=SpectrogramConfig(**(spectrogram or {})),
            encoder=dataclasses.replace(FINGERPRINT_AST, **encoder),
        )
    )


VARIANTS = {
    "base": Variant(),
    "patch stride 10": _with_recipe(stride=10),
    "patch stride 8": _with_recipe(stride=8),
    "window 64 ms": _with_recipe({"n_fft": 512}),
    "window 256 ms": _with_recipe({"n_fft": 2048, "hop_length": 80}),
    "segment 2 s": _with_recipe({"hop_length": 200}),
    "embedding 64": _with_recipe(fingerprint_dim=64),
    "embedding 256": _with_recipe(fingerprint_dim=256),
    "width 128": _with_recipe(embedding_dim=128, num_heads=2),
    "width 256": _with_recipe(embedding_dim=256, num_heads=4),
    "8 layers": _with_recipe(num_layers=8),
    "width 256, 8 layers": _with_recipe(embedding_dim=256, num_heads=4, num_layers=8),
    "temperature 0.02": _with_config(temperature=0.02),
    "temperature 0.1": _with_config(temperature=0.1),
    "decoupled loss": _with_config(loss="decoupled"),
    "triplet loss": _with_config(loss="triplet"),
    "256 pairs": _with_config(n_pairs=256),
    "Muon": _with_config(optimizer="muon"),
    "Muon, rate 0.003": _with_config(optimizer="muon", learning_rate=3e-3),
    "rate 0.003": _with_config(learning_rate=3e-3),
    "256 pairs, cached gradient": _with_config(n_pairs=256, n_pairs_per_chunk=64),
    "no transposition": _with_augmentation(transpose_prob=0.0),
    "no mixing": _with_augmentation(mix_prob=0.0),
    "no music in reverse": _with_augmentation(reverse_prob=0.0),
    "tunes": Variant(synthetic=("tunes",)),
    "voices": Variant(synthetic=("voices",)),
    "no past context": _with_augmentation(context_s=0.0),
    "no composed noise": _with_augmentation(composed_noise_prob=0.0),
    "narrow speed and pitch": _with_augmentation(wide_speed_prob=0.0, wide_pitch_prob=0.0),
    "no microphones or lost packets": _with_augmentation(
        gain_control_prob=0.0, suppress_prob=0.0, packet_loss_prob=0.0
    ),
    "noise from 0 dB": _with_augmentation(snr_db=(0.0, 15.0)),
}


def run(variant: Variant, samplers: Samplers, budget_s: float) -> dict[str, float]:
    """Train a variant from scratch until its processor time is used up, then validate it.

    Parameters
    ----------
    variant : Variant
    samplers : Samplers
        With the variant's tunes and voices.
    budget_s : float
        Processor seconds, summed over cores. The learning rate falls over the last 40 %.

    Returns
    -------
    dict of float
        n_steps, the last loss, and the hit rates of :func:`training.validate.retrieval_hit_rates`.
    """
    config, recipe, _ = variant
    n_samples = recipe.spectrogram.samples_per_segment
    training = dataclasses.replace(samplers.training, config=config.augment)
    torch.manual_seed(config.seed)
    learner = Learner(new_models(recipe)[0], config, recipe)
    learner.model.train()
    start, step, loss = time.process_time(), 0, 0.0
    while (used := (time.process_time() - start) / budget_s) < 1:
        rng = Rng((config.seed, step))
        pairs = training.draw(rng, config.n_pairs, n_samples)
        rising, falling = (step + 1) / config.n_warmup_steps, (1 - used) / config.cooldown_fraction
        rate = config.learning_rate * min(1.0, rising, falling)
        loss = learner.step(learner.features(pairs, rng), rate).loss
        step += 1
    rates = retrieval_hit_rates(learner.model, samplers.held_out, samplers.training, recipe)
    return {"n_steps": step, "loss": loss} | rates


def main(arguments: list[str] | None = None) -> None:
    """Run the variants that are missing in the results, and print all as a table."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    keep_freed_memory()
    recorded = Sources(options.music, options.noise, options.speech, options.rooms)

    @cache
    def opened(sources: Sources) -> Samplers:
        return open_samplers(sources, options.cache, BASE, Recipe())

    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.only or VARIANTS:
        if name not in results:
            folders = {kind: getattr(options, kind) for kind in VARIANTS[name].synthetic}
            if missing := [kind for kind, folder in folders.items() if folder is None]:
                log.warning("%s: left out, needs --%s", name, missing[0])
                continue
            samplers = opened(recorded._replace(**folders))
            results[name] = run(VARIANTS[name], samplers, options.budget_s)
            with atomic_write(options.out) as partial:
                partial.write_text(json.dumps(results, indent=1) + "\n")
            log.info("%s: %s", name, results[name])
    sys.stdout.write(results_table(results) + "\n")


def results_table(results: dict[str, dict[str, float]]) -> str:
    """Format results as a Markdown table, hit rates in per cent."""
    rates = list(next(iter(results.values())))[2:]
    rows = [
        [name, str(result["n_steps"]), *(f"{100 * result[key]:.0f}" for key in rates)]
        for name, result in results.items()
    ]
    return table(["", "steps", *rates], rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suites.ablation", description=__doc__
    )
    for folder in ("music", "noise", "speech", "rooms", "cache"):
        parser.add_argument(f"--{folder}", type=Path, required=True, metavar="DIR")
    for folder in ("tunes", "voices"):
        parser.add_argument(f"--{folder}", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--budget-s", type=float, default=240.0, metavar="S")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME")
    return parser


if __name__ == "__main__":
    main()
