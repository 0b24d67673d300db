"""How an object of ours looks in a notebook: one small card of HTML, plain and escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = (
    "display:inline-block;box-sizing:border-box;max-width:min(60em,100%);font:13px/1.45 system-ui,sans-serif;"
    "border:1px solid #8886;border-radius:8px;padding:10px 14px;margin:4px 0"
)
_NAME = "text-align:left;padding:1px 14px 1px 0;opacity:.7;vertical-align:top;white-space:nowrap"


def card(
    title: str,
    facts: Mapping[str, Any],
    *,
    text: str = "",
    header: Sequence[str] = (),
    rows: Sequence[Sequence[Any]] = (),
    most: int = 12,
) -> str:
    """One object as HTML: a title, its facts, a text as it is (a program), and a table of at most `most` rows.

    It sets no colours of its own but half-transparent lines, so that it reads on a light and on a dark page alike.
    """
    parts = [f"<div style='font-weight:600;margin-bottom:4px'>{escape(title)}</div>"]
    if facts:
        lines = "".join(
            f"<tr><td style='{_NAME}'>{escape(str(name))}</td>"
            f"<td style='text-align:left;padding:1px 0'>{escape(str(value))}</td></tr>"
            for name, value in facts.items()
        )
        parts.append(f"<table style='border-collapse:collapse;margin:0;font:inherit'>{lines}</table>")
    if text:
        parts.append(f"<pre style='margin:6px 0 0;overflow-x:auto;background:none'>{escape(text)}</pre>")
    if rows:
        cell = "text-align:left;padding:2px 14px 2px 0;border-top:1px solid #8884"
        over = "text-align:left;padding:2px 14px 2px 0"
        head = "".join(f"<th style='{over}'>{escape(str(name))}</th>" for name in header)
        body = "".join(
            "<tr>" + "".join(f"<td style='{cell}'>{escape(str(value))}</td>" for value in row) + "</tr>"
            for row in rows[:most]
        )
        rest = f"<div style='opacity:.7'>and {len(rows) - most:,} more</div>" if len(rows) > most else ""
        table = "<table style='border-collapse:collapse;margin:6px 0 0;font:inherit'>"
        parts.append(f"<div style='overflow-x:auto'>{table}<tr>{head}</tr>{body}</table></div>{rest}")
    return f"<div style='{_STYLE}'>{''.join(parts)}</div>"
