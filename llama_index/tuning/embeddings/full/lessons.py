"""From queries and their documents to training rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.embeddings.full.data import Lessons
from llama_index.tuning.embeddings.full.losses import loss_name
from llama_index.tuning.embeddings.full.rows import (
    Rows,
    binary_rows,
    list_rows,
    margin_rows,
    pair_rows,
    scored_pairs,
    teaching_lists,
)
from llama_index.tuning.embeddings.full.settings import Settings
from llama_index.tuning.errors import DatasetError

Negatives = Mapping[str, Sequence[str]]

_FROM_SCORES = {"MarginMSELoss": margin_rows, "DistillKLDivLoss": list_rows}


def training_rows(
    lessons: Lessons, settings: Settings, mine: Callable[[RetrievalDataset], Negatives]
) -> Rows:
    """Rows as the loss wants them.

    Args:
        lessons: what is learnt.
        settings: of the run.
        mine: finds hard negatives of queries, where the dataset brought none.

    Raises:
        DatasetError: they do not fill a batch.
    """
    name, count = loss_name(settings.loss), settings.hard_negatives
    if settings.scores is not None:
        lists = teaching_lists(settings.scores, lessons.queries, lessons.unseen)
        rows = _FROM_SCORES.get(name, scored_pairs)(lists)
    else:
        rows = pair_rows(
            lessons.datasets,
            _negatives(lessons.queries, settings, mine) if count else {},
            count,
            all_docs=settings.use_all_docs,
            seed=settings.options.seed,
        )
        rows = binary_rows(rows) if name == "CoSENTLoss" else rows
    if len(rows) < settings.schedule.batch_size:
        raise DatasetError(
            f"batch_size is {settings.schedule.batch_size}, but only {len(rows)} training "
            "pairs are left beside those that decide and measure; choose a smaller one, "
            "or add data"
        )
    return rows


def _negatives(
    queries: RetrievalDataset, settings: Settings, mine: Callable[[RetrievalDataset], Negatives]
) -> Negatives:
    return mine(queries) if settings.negatives is None else settings.negatives
