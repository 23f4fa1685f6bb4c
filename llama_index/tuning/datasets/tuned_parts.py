"""The tuned components inside a retriever, and questions that they have learnt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import warn
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.vectors.learned import Learned, learned_of

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever


_PLAIN = (str, bytes, int, float, type(None))


def walk(retriever: BaseRetriever) -> Iterator[BaseRetriever]:
    """The retriever and all those inside it, each once."""
    seen: dict[int, BaseRetriever] = {}
    waiting = [retriever]
    while waiting:
        one = waiting.pop(0)
        if id(one) not in seen:
            seen[id(one)] = one
            yield one
            waiting += inside(one)


def inside(retriever: BaseRetriever) -> list[BaseRetriever]:
    """The retrievers that it holds itself."""
    from llama_index.core.base.base_retriever import BaseRetriever

    found: list[BaseRetriever] = []
    for item in _held(retriever):
        if isinstance(item, BaseRetriever):
            found.append(item)
        elif isinstance(inner := getattr(item, "retriever", None), BaseRetriever):
            found.append(inner)
    return found


def _held(holder: Any) -> Iterator[Any]:
    """What lies in an object's attributes, by itself or in a list; plain values aside."""
    for name, value in getattr(holder, "__dict__", {}).items():
        if name.endswith("object_map"):  # what index nodes stand for
            continue
        values: Iterable[Any] = [value]
        if isinstance(value, Mapping):
            values = value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            values = value
        yield from (item for item in values if not isinstance(item, _PLAIN))


def tuned_parts(retriever: Any) -> list[tuple[Any, Learned]]:
    """The components inside that know what they have learnt: embedding models and re-rankers."""
    found: dict[int, tuple[Any, Learned]] = {}
    for part in walk(retriever):
        for item in _held(part):
            for component in _with_base(item):
                if (learned := learned_of(component)) is not None:
                    found[id(component)] = component, learned
    return list(found.values())


def _with_base(component: Any) -> Iterator[Any]:
    """A component, and the embedding model under an adapter."""
    while component is not None:
        yield component
        component = getattr(component, "base_embed_model", None)


def finder_notes(retriever: Any, texts: Sequence[str]) -> list[str]:
    """What a report says of the tuned parts that find candidates and have learnt its questions."""
    return [
        f"{learned.name} has learnt {len(known)} of these {len(texts)} questions: their candidates "
        "are those of adapters that had not seen them"
        for part, learned in _finding(retriever)
        if (known := learned.among(texts))
    ]


def base_notes(base: Any, texts: Sequence[str]) -> list[str]:
    """What a report says where the component that the tuned one has to beat has learnt them."""
    learned = learned_of(base)
    if learned is None or not (known := learned.among(texts)):
        return []
    return [
        f"the base, {learned.name} of the app, has learnt {len(known)} of these {len(texts)} "
        "questions: its figures here are too good, and the gain over it is too small"
    ]


@contextmanager
def unseen(retriever: Any, texts: Sequence[str]) -> Iterator[None]:
    """Within the block, what finds nodes answers these questions as if it had not learnt them.

    A cross-fitted embedding adapter has kept their vectors, each by an adapter that was tuned
    without that question (stacking on cross-fitted predictions: Wolpert 1992).

    Args:
        retriever: that asks.
        texts: the questions that are asked.

    Raises:
        DatasetError: a part has learnt some of them and has nothing of that kind, or was not
            asked within the block, so that another's answers came from somewhere else.
    """
    with ExitStack() as stack:
        asked: list[tuple[Learned, set[str], set[str]]] = []
        for part, learned in _finding(retriever):
            known = learned.among(texts)
            if not known:
                continue
            before = learned.before(known)
            if len(before) < len(set(known)) or not hasattr(part, "answering"):
                raise DatasetError(refusal(learned, texts))
            asked.append((learned, set(before), stack.enter_context(part.answering(before))))
        yield
        for learned, wanted, answered in asked:
            if answered < wanted:
                raise DatasetError(
                    f"{learned.name} has learnt {len(wanted)} of the questions and was asked for "
                    f"{len(answered)} of them only: vectors of the others came from elsewhere, "
                    "such as a cache of the retriever's. Use questions that it has not learnt"
                )


def refusal(learned: Learned, texts: Sequence[str]) -> str:
    """Why nothing is measured over a component on these questions, and what to do."""
    known = learned.among(texts)
    return (
        f"{learned.name} has learnt {len(known)} of these {len(texts)} questions, such as "
        f"{known[0]!r}: whatever is measured over it on them is too good. Use questions that it "
        "has not learnt, or what the app had before it; an embedding adapter that was tuned by "
        "cross-fitting (without val_dataset, query side) can be re-ranked on its own questions"
    )


def refuse_learnt(component: Any, texts: Iterable[str]) -> None:
    """Nothing is measured over a component on questions that it has learnt.

    Raises:
        DatasetError: it has learnt some of them.
    """
    asked = list(texts)
    for part in _with_base(component):
        learned = learned_of(part)
        if learned is not None and learned.among(asked):
            raise DatasetError(refusal(learned, asked))


def refuse_learnt_by(model_id: str, texts: Iterable[str]) -> None:
    """The same of a model by its folder.

    Raises:
        DatasetError: it has learnt some of them.
    """
    asked = list(texts)
    learned = Learned.read(Path(model_id), f"the model {model_id}")
    if learned is not None and learned.among(asked):
        raise DatasetError(refusal(learned, asked))


def warn_of_learnt(component: Any, texts: Iterable[str]) -> None:
    """Warn that a score is too good: a part of what is scored has learnt these questions.

    Args:
        component: a retriever, or one component.
        texts: the questions.
    """
    asked = list(texts)
    parts = [learned for _, learned in tuned_parts(component)]
    if (own := learned_of(component)) is not None:
        parts.append(own)
    for learned in parts:
        if known := learned.among(asked):
            warn(
                f"{learned.name} has learnt {len(known)} of these {len(asked)} questions: the "
                "scores are too good; measure on questions that it has not learnt, or read the "
                "report of its engine"
            )


def _finding(retriever: Any) -> list[tuple[Any, Learned]]:
    """The tuned parts that decide which nodes are found: those that embed."""
    from llama_index.core.base.embeddings.base import BaseEmbedding

    return [
        (part, learned)
        for part, learned in tuned_parts(retriever)
        if isinstance(part, BaseEmbedding)
    ]
