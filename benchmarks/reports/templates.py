"""Pages from Jinja templates, which stand beside this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def render(name: str, **values: Any) -> str:
    """Render a template.

    Parameters
    ----------
    name : str
        File name; values are escaped in ``*.html.j2`` only.
    **values
        Variables of the template. A missing one is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda file: file is not None and file.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(**values)
