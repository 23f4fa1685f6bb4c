"""Progress bars, only where asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(
    items: Iterable[T], show: bool, description: str, total: int | None = None
) -> Iterator[T]:
    """Iterate; with `show`, behind a tqdm bar."""
    if not show:
        yield from items
        return
    from tqdm.auto import tqdm

    yield from tqdm(items, desc=description, total=total)
