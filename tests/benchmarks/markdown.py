from __future__ import annotations


def rows(table: str) -> list[list[str]]:
    """Return the cells of a Markdown table: the head, then the rows, without the rule."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [lines[0], *lines[2:]]
