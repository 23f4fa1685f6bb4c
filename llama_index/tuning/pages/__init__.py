"""Pages for people: HTML from Jinja2 templates, without JavaScript or any other file.

`page.html.j2` is what every page extends, `parts.html.j2` holds the parts that pages share (a table
of gains, a plot of intervals, folded details), `page.css` the colours: light, dark and print. A
template lies beside the code that fills it; its name starts at the package's root.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning.pages.figures import FEW, direction, scale_of, signed, value

if TYPE_CHECKING:
    from jinja2 import Environment

_PACKAGE = Path(__file__).parent.parent


def render(template: str, *, whole: bool = True, **context: Any) -> str:
    """Fill a template; every text is escaped.

    Args:
        template: its path from the package's root, such as `"pages/report.html.j2"`.
        whole: a page of its own; else the part that a notebook shows.
        **context: what the template names; a name it lacks is an error.

    Example:
        >>> "&lt;b&gt;" in render("pages/page.html.j2", title="<b>")
        True
    """
    return _environment().get_template(template).render(whole=whole, **context)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )
    found.filters.update(
        value=value,
        signed=signed,
        metric=metric_name,
        words=words,
        duration=duration,
        capitalize_first=lambda text: text[:1].upper() + text[1:],
    )
    found.globals.update(scale_of=scale_of, direction=direction, FEW=FEW, meaning=meaning)
    return found


_UNPRINTABLE = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
_UNPRINTABLE |= dict.fromkeys(range(0x202A, 0x202F))  # turn the direction of what follows


def printable(item: Any) -> Any:
    """Text without control characters, halves of characters and turned directions."""
    if type(item) is not str:  # numbers, and markup that is escaped already
        return item
    return item.encode("utf-8", "replace").decode("utf-8").translate(_UNPRINTABLE)


_NAMES = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP", "auroc": "AUROC"}

_MEANINGS = {
    "ndcg": "how high the right documents stand in the list, 1 is best",
    "mrr": "1 divided by the rank of the first right document",
    "map": "precision at each right document, averaged",
    "hit_rate": "share of queries with a right document in the list",
    "recall": "share of what is right that is found",
    "precision": "share of what is found that is right",
    "accuracy": "share of right answers",
    "balanced accuracy": "share of right answers, of each verdict by itself, averaged",
    "kappa": "agreement beyond chance (Cohen 1960): 0 is chance, 1 is perfect",
    "macro_f1": "F1 of each choice, averaged",
    "calibration_error": "how far the stated probabilities are off, 0 is best",
    "auroc": "how often a right one is ranked above a wrong one; 0.5 is chance",
}


def metric_name(name: str) -> str:
    """`ndcg@10` as people write it."""
    head, at, depth = name.partition("@")
    return _NAMES.get(head, head.replace("_", " ")) + at + depth


def meaning(name: str) -> str:
    """A metric in a few words; empty where it is the caller's own."""
    head, at, depth = name.partition("@")
    found = _MEANINGS.get(head, "")
    return f"{found}; of the first {depth}" if found and at else found


def words(name: str) -> str:
    """An identifier as words."""
    return name.replace("_", " ")


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if not minutes:
        return f"{left} s"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min {left} s"


def readable_date(text: str) -> str:
    """`29 November 2026, 09:25 UTC`; what is no date, as it is."""
    try:
        when = datetime.fromisoformat(text).astimezone(timezone.utc)
    except ValueError:
        return text
    return f"{when.day} {when:%B %Y, %H:%M} UTC"
