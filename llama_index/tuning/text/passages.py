"""Where a passage is among nodes, by its text: ids and chunks change, words last."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode


How = Literal["exact", "contained", "near", "split", "gone"]

SHINGLE = 5
"""Words in a row that are compared."""
NEAR = 0.8
"""Share of a passage's words that one node must hold where they differ here and there."""
SPLIT = 0.6
"""Share of a passage's words that several nodes must hold together."""
PART = 0.25
"""Share of a node's words that must be of the passage, or of the passage's in the node."""

# Scripts that are written without spaces are compared character by character.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
    r"|[^\W_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)


@dataclass(frozen=True)
class Place:
    """Where a passage is now.

    Attributes:
        ids: the nodes that hold it, in their order.
        how: `"exact"`: the same words; `"contained"`: within a longer node; `"near"`: almost the
            same words; `"split"`: spread over several nodes, or only in part in one;
            `"gone"`: nowhere.
    """

    ids: list[str]
    how: How


def find_passages(wanted: Mapping[str, str], nodes: Sequence[BaseNode]) -> dict[str, Place]:
    """Where each passage is among the nodes: in time linear in both.

    Args:
        wanted: any ids → texts, or quotes of them; a head of metadata, as an index embeds it, is
            passed over.
        nodes: of their texts alone, without metadata.
    """
    from llama_index.core.schema import MetadataMode

    keys = {key for node in nodes for key in node.metadata}
    words = {id_: _words(_without_head(text, keys)) for id_, text in wanted.items()}
    index = _index({id_: found for id_, found in words.items() if found})
    shared: dict[str, list[_Overlap]] = defaultdict(list)
    for node in nodes:
        content = _words(node.get_content(MetadataMode.NONE))
        for id_, overlap in _overlaps(node.node_id, content, index, words).items():
            shared[id_].append(overlap)
    return {id_: _place(len(words[id_]), shared[id_]) for id_ in wanted}


@dataclass(frozen=True, slots=True)
class _Overlap:
    node_id: str
    size: int
    of_passage: set[int]
    of_node: set[int]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _without_head(text: str, keys: set[str]) -> str:
    head, _, body = text.partition("\n\n")
    lines = head.splitlines()
    if body.strip() and all(line.partition(": ")[0] in keys for line in lines):
        return body
    return text


_Index = dict[int, dict[tuple[str, ...], list[tuple[str, int]]]]


def _index(words: Mapping[str, list[str]]) -> _Index:
    """Length of a shingle → shingle → the passages and places in which it occurs."""
    index: _Index = {}
    for id_, passage in words.items():
        size = min(SHINGLE, len(passage))
        shingles = index.setdefault(size, defaultdict(list))
        for place in range(len(passage) - size + 1):
            shingles[tuple(passage[place : place + size])].append((id_, place))
    return index


def _overlaps(
    node_id: str, content: list[str], index: _Index, words: Mapping[str, list[str]]
) -> dict[str, _Overlap]:
    found: dict[str, _Overlap] = {}
    for size, shingles in index.items():
        for place in range(len(content) - size + 1):
            for id_, at in shingles.get(tuple(content[place : place + size]), ()):
                if id_ not in found:
                    found[id_] = _Overlap(node_id, len(content), set(), set())
                found[id_].of_passage.update(range(at, at + size))
                found[id_].of_node.update(range(place, place + size))
    return {
        id_: overlap
        for id_, overlap in found.items()
        if len(overlap.of_passage) >= PART * len(words[id_])
        or len(overlap.of_node) >= PART * overlap.size
    }


def _place(size: int, overlaps: list[_Overlap]) -> Place:
    whole = [o for o in overlaps if len(o.of_passage) == size]
    exact = [o.node_id for o in whole if len(o.of_node) == o.size]
    if exact:
        return Place(exact, "exact")
    if whole:
        return Place([o.node_id for o in whole], "contained")
    near = [o.node_id for o in overlaps if len(o.of_passage) >= NEAR * size]
    if near:
        return Place(near, "near")
    together = set().union(*(o.of_passage for o in overlaps)) if overlaps else set()
    if overlaps and len(together) >= SPLIT * size:
        return Place([o.node_id for o in overlaps], "split")
    return Place([], "gone")


def same_text(one: str | None, other: str | None) -> bool:
    """Equal but for space, or for the metadata that a node's text may carry at its head."""
    if one is None or other is None or one == other:
        return one == other
    shorter, longer = sorted((" ".join(one.split()), " ".join(other.split())), key=len)
    return shorter in longer


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
    occur = "text of the corpus occurs" if texts == 1 else "texts of the corpus occur"
    return [f"{texts} {occur} more than once, under {len(copies)} ids: any copy counts as the text"]
