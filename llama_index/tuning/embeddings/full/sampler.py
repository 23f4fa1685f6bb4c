"""Batches without false negatives."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Iterator, Sequence

from sentence_transformers.base.sampler import DefaultBatchSampler

from llama_index.tuning.errors import DatasetError

logger = logging.getLogger(__name__)


class ApartBatchSampler(DefaultBatchSampler):
    """Batches in which no row holds a document that is relevant to another row's query.

    A batch is made for all processes together and cut in the order of their ranks, so the rule
    holds across them, and several processes see the batches that one would see. Where fewer fit
    together than a batch has, such as with fewer documents than that, the batch is smaller.

    Args:
        dataset: the rows.
        batch_size: rows of one process.
        shown: for each row the documents in it.
        barred: for each row what must not be shown in another.
        processes: how many processes train together.
        seed: of the order; each epoch has its own.
    """

    def __init__(
        self,
        dataset: object,
        batch_size: int,
        *,
        shown: Sequence[frozenset[bytes]],
        barred: Sequence[frozenset[bytes]],
        processes: int = 1,
        seed: int = 0,
        **_: object,  # what else the trainer hands to a sampler
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=True, seed=seed)
        self.shown, self.barred = shown, barred
        self.processes = processes
        self._said = False

    def __len__(self) -> int:
        return len(self.shown) // self.whole * self.processes

    @property
    def whole(self) -> int:
        """Rows of all processes' batches of one step."""
        return int(self.batch_size) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        draw = random.Random(f"{self.seed}/{self.epoch}")
        waiting: deque[int] = deque()
        for _ in range(len(self.shown) // self.whole):
            batch = self._batch(waiting)
            if len(batch) < self.whole:
                # What is left of a pass need not fit together: a fresh one fills up.
                fresh = list(range(len(self.shown)))
                draw.shuffle(fresh)
                waiting.extendleft(reversed(batch))
                waiting.extend(fresh)
                batch = self._batch(waiting)
            if len(batch) < self.whole:
                self._smaller(len(batch))
                waiting.clear()
            for start in range(0, len(batch), int(self.batch_size)):
                yield batch[start : start + int(self.batch_size)]

    def _smaller(self, size: int) -> None:
        """A batch that holds all that fit together is taken, if it teaches anything.

        Raises:
            DatasetError: it does not, or several processes wait for rows of it.
        """
        if size < 2 or self.processes > 1:
            raise DatasetError(
                f"no {self.whole} training pairs can stand in one batch without sharing relevant "
                f"documents, at most {size} can; choose a smaller batch_size, or add documents"
            )
        if not self._said:
            self._said = True
            logger.warning(
                "batches hold about %d pairs, not %d: others share relevant documents with them",
                size,
                self.whole,
            )

    def _batch(self, waiting: deque[int]) -> list[int]:
        """Take the first rows that fit together; the others keep their order."""
        batch: list[int] = []
        shown: set[bytes] = set()
        barred: set[bytes] = set()
        later: list[int] = []
        while waiting and len(batch) < self.whole:
            row = waiting.popleft()
            if shown.isdisjoint(self.barred[row]) and barred.isdisjoint(self.shown[row]):
                batch.append(row)
                shown |= self.shown[row]
                barred |= self.barred[row]
            else:
                later.append(row)
        waiting.extendleft(reversed(later))
        return batch
