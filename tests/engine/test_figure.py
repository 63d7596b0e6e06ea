from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.errors import AstoundError, ConfigError
from engine.figure import FIGURE_SUFFIXES, new_figure, save_figure


@pytest.mark.parametrize("suffix", FIGURE_SUFFIXES)
def test_save_figure_writes_every_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"plot{suffix.upper()}"
    figure = new_figure(path, width=2.0, height=1.0)
    figure.suptitle("曲")  # no warning, though the font has no such glyph
    save_figure(figure, path)
    assert path.stat().st_size > 100


def test_new_figure_other_suffix_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"invalid path='plot.txt': must end in one of .png"):
        new_figure(Path("folder") / "plot.txt")


def test_new_figure_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(AstoundError, match=r"pip install 'astound\[plot\]'"):
        new_figure(Path("plot.png"))


def test_save_figure_to_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "plot.png"
    with pytest.raises(AstoundError, match=r"plot.png: No such file or directory$"):
        save_figure(new_figure(path), path)
