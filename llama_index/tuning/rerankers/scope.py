"""Whose nodes: which nodes of its indices a retriever may find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.base import BaseIndex
from llama_index.core.indices.vector_store.retrievers import VectorIndexAutoRetriever
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import FilterCondition, MetadataFilters, simple

from llama_index.tuning.datasets.tuned_parts import inside, walk
from llama_index.tuning.errors import StoreError
from llama_index.tuning.vectors.indexed import REMEDY, index_node_ids

Passes = Callable[[BaseNode], bool]

_HARMLESS = frozenset({"mmr_threshold", "mmr_prefetch_factor", "hybrid_fusion_fn"})


class Scope:
    """What a retriever and those inside it may find, as far as that can be read off them.

    Args:
        retriever: the app's.
    """

    def __init__(self, retriever: BaseRetriever) -> None:
        self.retriever = retriever
        self.parts = list(searchers(retriever))
        self._ids: dict[int, frozenset[str]] = {}
        self._chosen = {id(part): chosen_ids(part) for part in self.parts}

    def __reduce__(self) -> tuple[type[Scope], tuple[BaseRetriever]]:
        return Scope, (self.retriever,)

    def node_ids(self) -> list[str]:
        """The ids of all nodes that it may find, filters aside.

        Raises:
            ValueError: one of the retrievers does not say; the remedy is named.
        """
        found: dict[str, None] = {}
        for part in walk(self.retriever):
            if fault := _fault(part):
                raise ValueError(f"BM25 cannot keep to what the retriever may find: {fault}")
        for part in self.parts:
            chosen = self._chosen.get(id(part))
            own = _own_ids(part)
            found.update(dict.fromkeys(own if chosen is None else filter(chosen.__contains__, own)))
            self._ids[id(part)] = frozenset(own)
        return list(found)

    def passes(self) -> Passes | None:
        """Whether a node may be found, by the filters as they are now; None: all may.

        A node that is in one of several indices must pass that one's filters, any other node
        all filters.
        """
        tests = [(part, self._test(part)) for part in searchers(self.retriever)]
        if all(test is None for _, test in tests):
            return None
        if len(tests) == 1:
            return tests[0][1]

        def passes(node: BaseNode) -> bool:
            within = [test for part, test in tests if node.node_id in self._known(part)]
            if not within:
                return all(test is None or test(node) for _, test in tests)
            return any(test is None or test(node) for test in within)

        return passes

    def _known(self, part: BaseRetriever) -> frozenset[str]:
        if id(part) not in self._ids:
            try:
                self._ids[id(part)] = frozenset(_own_ids(part))
            except (StoreError, ValueError):  # it does not say: all filters hold
                self._ids[id(part)] = frozenset()
        return self._ids[id(part)]

    def _test(self, part: BaseRetriever) -> Passes | None:
        names = ("_filters", "_extra_filters")
        filters = [f for name in names if (f := getattr(part, name, None)) and f.filters]
        documents = getattr(part, "_doc_ids", None)
        chosen = self._chosen[id(part)] if id(part) in self._chosen else chosen_ids(part)
        tests = [metadata_test(given) for given in filters]
        if documents:
            tests.append(lambda node: node.ref_doc_id in documents)
        if chosen is not None:
            tests.append(lambda node: node.node_id in chosen)
        return (lambda node: all(test(node) for test in tests)) if tests else None


def metadata_test(filters: Any) -> Passes:
    """Whether a node passes metadata filters, filters within filters too."""
    tests = [
        metadata_test(one) if isinstance(one, MetadataFilters) else _single_test(one)
        for one in filters.filters
    ]
    condition = filters.condition or FilterCondition.AND
    if condition == FilterCondition.AND:
        return lambda node: all(test(node) for test in tests)
    if condition == FilterCondition.OR:
        return lambda node: any(test(node) for test in tests)
    return lambda node: not any(test(node) for test in tests)


def _single_test(one: Any) -> Passes:
    build: Any = getattr(simple, "build_metadata_filter_fn", None)  # its name in newer versions
    build = build or getattr(simple, "_build_metadata_filter_fn")  # noqa: B009
    alone = MetadataFilters(filters=[one])
    return lambda node: bool(build(lambda _: node.metadata, alone)(""))


def searchers(retriever: BaseRetriever) -> Iterator[BaseRetriever]:
    """Those of `walk` that search by themselves."""
    return (one for one in walk(retriever) if not inside(one))


def _own_ids(part: BaseRetriever) -> list[str]:
    index = getattr(part, "_index", None)
    if isinstance(index, BaseIndex):
        return index_node_ids(index)
    return [str(row["node_id"]) for row in getattr(part, "corpus", None) or ()]


def chosen_ids(part: BaseRetriever) -> frozenset[str] | None:
    """The ids that a retriever was given, if they are fewer than its index has.

    By default LlamaIndex gives those that the index had when the retriever was made.
    """
    given, index = getattr(part, "_node_ids", None), getattr(part, "_index", None)
    if not given or not isinstance(index, BaseIndex):
        return None
    chosen = frozenset(map(str, given))
    try:
        return None if chosen.issuperset(index_node_ids(index)) else chosen
    except StoreError:
        return chosen


def _fault(part: BaseRetriever) -> str | None:
    """Why the nodes that a retriever may find cannot be read off it."""
    name = type(part).__name__
    if not type(part).__module__.startswith("llama_index."):
        return f"{name} may leave out what it likes; {REMEDY}"
    if isinstance(part, VectorIndexAutoRetriever):
        return f"{name} makes up filters for each question; {REMEDY}"
    if narrowing := sorted(set(getattr(part, "_kwargs", None) or ()) - _HARMLESS):
        return f"vector_store_kwargs of {name} may narrow it ({', '.join(narrowing)}); {REMEDY}"
    known = isinstance(getattr(part, "_index", None), BaseIndex) or hasattr(part, "corpus")
    if not known and not inside(part):
        return f"{name} does not name an index; {REMEDY}"
    return None
