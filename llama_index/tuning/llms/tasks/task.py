"""One task, from its rows to what an engine takes; nothing is learnt from what is held out.

A row that a task's dataset left out, and why.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.asking.results import Dropped
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


def kept_or_error(
    argument: str, kept: list[ChatExample], dropped: list[Dropped]
) -> tuple[ChatDataset, list[Dropped]]:
    """What a task's dataset function returns; an error with every reason if no row is left."""
    if not kept:
        raise DatasetError(
            f"{argument}: no row can be learnt from",
            [f"row {row.number}: {row.reason}" for row in dropped],
        )
    return ChatDataset(kept), dropped


Scorer = Callable[["LLM"], NDArray[np.float64]]
HeldOut = float | Sequence[Any]
"""The share of the requests to measure on, or the rows to measure on themselves."""


@dataclass(frozen=True)
class LLMTask:
    """What an engine needs to tune an LLM for a task, and to measure base against tuned.

    Made by `sql_task`, `check_task`, `call_task`, `style_task`, `knowledge_task` and
    `distillation_task`.

    Attributes:
        dataset: the verified conversations, to train on.
        evaluate: LLM → one score from 0 to 1 for each held-out item.
        held_out: the rows that `evaluate` scores; no request among them is trained on.
        dropped: rows that are not learnt from, and why.
        peers: what else a tuned LLM is compared with, such as the teacher's own scores.

    Example:
        engine = HuggingFaceFinetuneEngine(
            task.dataset, model, evaluate=task.evaluate, peers=task.peers
        )
        print(engine.finetune())
    """

    dataset: ChatDataset
    evaluate: Scorer
    held_out: list[Any]
    dropped: list[Dropped]
    peers: dict[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sides:
    """Which rows are trained on, and what is measured on.

    Attributes:
        train: places of the rows to train on.
        held_out: the rows to measure on.
        dropped: rows whose request is among those held out by the caller.
    """

    train: list[int]
    held_out: list[Any]
    dropped: list[Dropped]


def task_of(
    rows: Iterable[Any],
    build: Callable[[Sequence[Any]], tuple[ChatDataset, list[Dropped]]],
    scorer: Callable[[Sequence[Any]], Scorer],
    *,
    request: Callable[[Any], Hashable],
    held_out: HeldOut,
    seed: int,
) -> LLMTask:
    """The task of rows that are verified first: no score is spoilt by a faulty row.

    Args:
        rows: of the task.
        build: rows → the sound conversations and the rows left out.
        scorer: held-out rows → their score.
        request: what a row asks; rows that ask the same stay on one side.
        held_out: a share, or rows.
        seed: of the split.
    """
    given = rows_of(rows)
    check_share(held_out)
    dataset, dropped = build(given)
    gone = {one.number for one in dropped}
    places = [n for n in range(len(given)) if n not in gone]
    sides = split([given[n] for n in places], request, held_out, seed)
    refused = [Dropped(places[one.number], one.reason) for one in sides.dropped]
    return LLMTask(
        dataset.subset(sides.train),
        scorer(sides.held_out),
        sides.held_out,
        sorted([*dropped, *refused], key=lambda one: one.number),
    )


def split(
    rows: Sequence[Any], request: Callable[[Any], Hashable], held_out: HeldOut, seed: int
) -> Sides:
    """Rows to train on and to measure on; no request is on both sides.

    Raises:
        DatasetError: nothing is left on one of them.
    """
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    keys = [request(row) for row in rows]
    if isinstance(held_out, float):
        groups: dict[Hashable, list[int]] = {}
        for number, key in enumerate(keys):
            groups.setdefault(key, []).append(number)
        if len(groups) < 2:
            raise DatasetError(
                f"held_out: {len(groups)} different requests cannot be split; give more rows, or "
                "the rows to measure on"
            )
        shuffled = list(groups.values())
        random.Random(int(seed)).shuffle(shuffled)
        test: list[int] = []
        while len(shuffled) > 1 and len(test) < held_out * len(rows):
            test += shuffled.pop()
        train = sorted(number for group in shuffled for number in group)
        # A row that is there twice is measured on once: it would count as two that agree.
        measured = {repr(rows[n]): rows[n] for n in sorted(test)}
        return Sides(train, list(measured.values()), [])
    asked = {request(row) for row in held_out}
    train = [n for n, key in enumerate(keys) if key not in asked]
    if not train:
        raise DatasetError("held_out: it asks all that the rows ask; nothing is left to learn from")
    dropped = [Dropped(n, "its request is held out") for n, key in enumerate(keys) if key in asked]
    return Sides(train, list(held_out), dropped)


def check_share(held_out: Any) -> None:
    """A share between 0 and 1, or rows."""
    if isinstance(held_out, bool | int) or (isinstance(held_out, float) and not 0 < held_out < 1):
        raise ValueError(f"held_out must be a share between 0 and 1, or rows, got {held_out!r}")
    if isinstance(held_out, float):
        return
    if isinstance(held_out, str) or not isinstance(held_out, Sequence):
        raise TypeError(f"held_out must be a share or a list of rows, got {held_out!r}")
    if not held_out:
        raise DatasetError("held_out: there are no rows to measure on")


def rows_of(rows: Any) -> list[Any]:
    """The rows as a list, to go over more than once."""
    return list(rows)


def asked_alike(text: Any) -> Hashable:
    """A question as a key: the same whatever its case and spaces."""
    return " ".join(text.lower().split()) if isinstance(text, str) else repr(text)
