"""Blocks of HTML that the cards of the page are made of; all text in them is escaped."""

from collections.abc import Iterable
from html import escape


def tiles(figures: Iterable[tuple[str, str, str]]) -> str:
    """Figures side by side: what each is, its value, and a note or ""."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
        + (f"<small>{escape(note)}</small>" if note else "") + "</dd></div>"
        for name, value, note in figures
    )
    return f'<dl class="tiles">{cells}</dl>'


def sentences(lines: Iterable[str], warning: bool = False) -> str:
    """A list of sentences; nothing where there are none."""
    kind, mark = ("answers warnings", ' class="warning"') if warning else ("answers", "")
    items = "".join(f"<li{mark}>{escape(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def facts(summary: str, rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values that opens below its summary."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows
    )
    return (
        f"<details><summary>{escape(summary)}</summary><div class=\"scroll\" tabindex=\"0\" "
        f'role="region" aria-label="{escape(summary)}"><table class="facts">'
        f"<tbody>{body}</tbody></table></div>"
        "</details>"
    )
