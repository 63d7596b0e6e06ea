from __future__ import annotations

import click
import pytest

from astound.commands.options import time_option


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        ("0", 0.0),
        ("62.5", 62.5),
        (".5", 0.5),
        ("90", 90.0),
        ("1:02.5", 62.5),
        ("90:00", 5400.0),
        ("1:02:03.25", 3723.25),
        ("12:00:00", 43200.0),
    ],
)
def test_time_is_read_in_each_form(text: str, time_s: float) -> None:
    assert time_option(text) == time_s


@pytest.mark.parametrize(
    "text",
    ["", "-1", "nan", "inf", "1e3", "1:60", "1:60:00", "1:2:3:4", "1:", ":30", "1.5:00", "1m", "٣"],
)
def test_bad_time_is_one_sentence(text: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        time_option(text)
    reason = f"invalid time {text!r}: must be seconds, m:ss or h:mm:ss"
    assert caught.value.format_message() == f"Invalid value: {reason}"
