"""Texts that lie in a corpus under several ids: any copy answers as well as another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

Copies = Mapping[str, Sequence[str]]
"""Id → all ids of the same text, its own among them; of texts that occur more than once."""


def copies_in(corpus: Mapping[str, str]) -> dict[str, list[str]]:
    """The ids of a corpus whose texts occur more than once, space aside.

    Example:
        >>> copies_in({"a": "The fee.", "b": "Another.", "c": "The  fee."})
        {'a': ['a', 'c'], 'c': ['a', 'c']}
    """
    holders: dict[str, list[str]] = defaultdict(list)
    for id_, text in corpus.items():
        holders[" ".join(text.split())].append(id_)
    return {id_: ids for ids in holders.values() if len(ids) > 1 for id_ in ids}


def with_copies(ids: Iterable[str], copies: Copies) -> list[str]:
    """The ids and all their copies, each once."""
    return list(dict.fromkeys(copy for id_ in ids for copy in copies.get(id_, (id_,))))


def first_copies(ids: Iterable[str], copies: Copies) -> list[str]:
    """Each text of these ids once, by the first of its ids."""
    return list(dict.fromkeys(copies.get(id_, (id_,))[0] for id_ in ids))


def credited(ranking: Iterable[str], copies: Copies) -> list[str]:
    """A ranking by the first id of each text; a text's later copies keep their places, unnamed.

    So whichever copy comes first counts, once, and copies still take up room.

    Example:
        >>> credited(["c", "b", "a"], {"a": ["a", "c"], "c": ["a", "c"]})
        ['a', 'b', 'copy 2 of a']
    """
    seen: set[str] = set()
    named = []
    for place, id_ in enumerate(ranking):
        first = copies.get(id_, (id_,))[0]
        named.append(f"copy {place} of {first}" if first in seen else first)
        seen.add(first)
    return named


def copies_notes(copies: Copies) -> list[str]:
    """What a report says of them."""
    if not copies:
        return []
    texts = len({ids[0] for ids in copies.values()})
    return [
        f"{texts} texts of the corpus occur more than once, under {len(copies)} ids: any copy "
        "counts as the text"
    ]
