from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

import astound
from astound.commands.main import ALIASES, cli

ROOT = Path(__file__).parents[1]
SECTIONS = (ROOT / "docs" / "cli.md").read_text().split("\n## ")
CONTEXT = click.Context(cli)
NAMES = cli.list_commands(CONTEXT)
COMMANDS = {"": cli} | {name: cli.get_command(CONTEXT, name) or cli for name in NAMES}
OPTIONS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]


def _section(command: str) -> str:
    if not command:
        return SECTIONS[0]
    (section,) = [text for text in SECTIONS[1:] if command in text.partition("\n")[0].split(", ")]
    return section


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_documented_with_an_example(name: str) -> None:
    assert f"\n    astound {name}" in _section(name)
    assert all(f"`{alias}`" in _section(name) for alias in ALIASES if ALIASES[alias] == name)


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=lambda x: getattr(x, "name", x))
def test_every_option_is_documented(name: str, option: click.Option) -> None:
    described = [row.split(" | ")[0] for row in _section(name).splitlines() if row[:3] == "| `"]
    for spelling in option.opts:
        assert any(re.search(rf"`{spelling}[` ]", cell) for cell in described), spelling


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert (command.epilog or "").startswith(f"Example: astound {name}") or (
        f"| astound {name}" in (command.epilog or "")
    )


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=lambda x: getattr(x, "name", x))
def test_every_option_has_help(name: str, option: click.Option) -> None:
    assert option.help


def test_no_section_is_about_a_command_that_is_gone() -> None:
    headings = {name for text in SECTIONS[1:] for name in text.partition("\n")[0].split(", ")}
    assert headings == set(NAMES)


def test_changelog_begins_with_this_version_or_unreleased() -> None:
    newest = re.search(r"^## \[?([\w.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] in (astound.__version__, "Unreleased")


def test_model_page_does_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "model.md").read_text()
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/model.md", "exec"), names)


def test_model_page_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "model.md").read_text()
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", page)
    assert len(named) > 20
    for file, test in named:
        texts = [path.read_text() for path in (ROOT / "tests").rglob(file)]
        assert any(f"def {test}" in text for text in texts), (file, test)
