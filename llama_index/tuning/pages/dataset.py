"""A dataset for people: its first rows, as a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from itertools import islice

from llama_index.tuning.pages import render

_ROWS = 5
_LONGEST = 300


def dataset_html(dataset: Sized, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The first rows below what the dataset's repr says.

    Args:
        dataset: its length is the number of rows.
        columns: their names.
        rows: one value for each column; `None` is left blank.
    """
    shown = [tuple(map(_cell, row)) for row in islice(rows, _ROWS)]
    left = len(dataset) - len(shown)
    return render(
        "pages/dataset.html.j2",
        whole=False,
        title=repr(dataset),
        columns=columns,
        rows=shown,
        left=left,
    )


def _cell(value: object) -> str:
    text = "" if value is None else " ".join(str(value)[: 4 * _LONGEST].split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
