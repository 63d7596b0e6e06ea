"""Speak invented words in several languages with eSpeak NG, as speech to train on.

The words follow no dictionary, but the rules of each language give them its sounds and its rhythm.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
from numpy.random import Generator

from engine.errors import ConfigError
from engine.files import atomic_write

log = logging.getLogger(__name__)

PROGRAM = "espeak-ng"
LANGUAGES = (
    *("ar", "cs", "cy", "da", "de", "el", "en-gb", "en-gb-scotland", "en-us", "es", "es-419", "et"),
    *("fi", "fr-fr", "ga", "hi", "hu", "id", "is", "it", "ko", "lv", "nb", "nl", "pl"),
    *("pt-br", "ro", "ru", "sv", "sw", "tr", "vi"),
)
SPEAKERS = (
    *(f"m{n}" for n in range(1, 9)),
    *(f"f{n}" for n in range(1, 6)),
    *("Andrea", "Alicia", "Antonio", "Belinda", "Caleb", "Diogo", "Gene", "Hugo", "Jacky", "Lee"),
    *("Mario", "Michel", "Pablo", "Steph", "Tweaky", "Zac", "anika", "grandma", "grandpa"),
    *("iven", "klatt2", "linda", "norbert", "sandro", "shelby", "travis", "victor", "croak"),
)
UTTERANCE_S = 8.0
"""Mean length of an utterance, approximately."""

_ONSETS = (*"bcdfghjklmnprstvz", "", "br", "ch", "dr", "fl", "gr", "kl", "pl", "sh", "st", "tr")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ou", "ei")
_ENDS = ("", "", "", "n", "r", "s", "l", "t", "m", "k")
_ENDINGS = (".", ".", "?", "!")
_WORDS_PER_S = 1.7


def write_voices(folder: Path, hours: float) -> list[Path]:
    """Write utterances as WAV files; those that exist are kept.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    hours : float
        Approximate length of all utterances together. Languages take turns; speaker, speed, pitch
        and words are random, but the same in every call.

    Returns
    -------
    list of Path

    Raises
    ------
    ConfigError
        eSpeak NG is not installed, or fails.
    """
    if shutil.which(PROGRAM) is None:
        raise ConfigError("voices", f"needs {PROGRAM} (Debian: apt install {PROGRAM})")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(int(np.ceil(3600 * hours / UTTERANCE_S))):
        language = LANGUAGES[number % len(LANGUAGES)]
        paths.append(folder / f"{language}-{number:05}.wav")
        if not paths[-1].exists():
            _speak(np.random.default_rng(number), language, paths[-1])
    log.info("%d utterances in %s", len(paths), folder)
    return paths


def _speak(rng: Generator, language: str, path: Path) -> None:
    options = {
        "-v": f"{language}+{rng.choice(SPEAKERS)}",
        "-s": str(rng.integers(120, 230)),  # words per minute
        "-p": str(rng.integers(20, 80)),  # pitch
    }
    arguments = [part for pair in options.items() for part in pair]
    with atomic_write(path) as partial:
        command = [PROGRAM, *arguments, "-w", str(partial), _text(rng)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError("voices", f"{PROGRAM} failed: {done.stderr.strip()}")


def _text(rng: Generator) -> str:
    """Invent sentences of a few words."""
    text, n_words = "", int(rng.uniform(0.5, 1.5) * UTTERANCE_S * _WORDS_PER_S)
    for n_left in range(n_words, 0, -1):
        text += " " + "".join(_syllable(rng) for _ in range(int(rng.integers(1, 4))))
        if n_left == 1 or rng.random() < 0.15:
            text += str(rng.choice(_ENDINGS))
        elif rng.random() < 0.12:
            text += ","
    return text.strip()


def _syllable(rng: Generator) -> str:
    return "".join(str(rng.choice(part)) for part in (_ONSETS, _VOWELS, _ENDS))
