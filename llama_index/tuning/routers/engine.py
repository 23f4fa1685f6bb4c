"""The engine that trains a router.

What can be wrong with a router's data, found before anything is embedded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning.base import BaseSelectorFinetuneEngine
from llama_index.tuning.datasets.routing import RoutingDataset, RoutingExample
from llama_index.tuning.errors import DatasetError, NotFinetunedError
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.core.base.base_selector import BaseSelector
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index.tuning.routers.model import RouterModel
    from llama_index.tuning.routers.report import RouterReport
    from llama_index.tuning.routers.run import Run
    from llama_index.tuning.vectors.embedder import Embedder


logger = logging.getLogger(__name__)


class RouterFinetuneEngine(BaseSelectorFinetuneEngine):
    """Learns which choice a query belongs to, from examples, on vectors embedded once.

    Args:
        dataset: choices and examples.
        embed_model: the model whose vectors are used, in training and in the app;
            `Settings.embed_model` by default.
        val_dataset: examples to measure on, none of them in `dataset`. Without them, cross-fitting
            scores each query by a router that did not see it.
        options: how to train; see `RouterOptions`.
        base_selector: what the app uses now, measured on the same queries; by default the rule of
            `EmbeddingSingleSelector`, the description nearest to the query.
        defer_to: a selector to hand uncertain queries to; it is asked about the
            `max_deferred` least certain held-out queries, to draw the curve of the report.
        max_deferred: how many queries `defer_to` is asked.
        vector_cache: a file that keeps vectors between runs, keyed by model and text.
        num_workers: concurrent calls, for models behind an API.
        show_progress: show progress bars.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.tuning import RoutingDataset
        >>> data = RoutingDataset.from_pairs([("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")])
        >>> report = RouterFinetuneEngine(data, MockEmbedding(embed_dim=3)).finetune()
        >>> report.accepted
        False
    """

    def __init__(
        self,
        dataset: RoutingDataset,
        embed_model: BaseEmbedding | None = None,
        *,
        val_dataset: RoutingDataset | None = None,
        options: RouterOptions | None = None,
        base_selector: BaseSelector | None = None,
        defer_to: BaseSelector | None = None,
        max_deferred: int = 200,
        vector_cache: str | PathLike[str] | None = None,
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        self.dataset = dataset
        self.embed_model = embed_model
        self.val_dataset = val_dataset
        self.options = options or RouterOptions()
        self.base_selector = base_selector
        self.defer_to = defer_to
        self.max_deferred = max_deferred
        self.vector_cache = vector_cache
        self.num_workers = num_workers
        self.show_progress = show_progress
        self.report: RouterReport | None = None
        self._run: Run | None = None
        self._model: RouterModel | None = None
        self._known: dict[tuple[str, str], Any] = {}

    def finetune(self) -> RouterReport:
        """Embed, cross-fit, fit, calibrate, measure, decide.

        Returns:
            The report; `print(report)` shows the table and the verdict.
        """
        return self._tune(None)

    def update(self, examples: RoutingDataset | Iterable[RoutingExample]) -> RouterReport:
        """Go on with more examples, and new choices where a dataset brings them.

        Only the new texts are embedded, the settings are kept, and the fit starts from the last
        solution.

        Raises:
            NotFinetunedError: `finetune()` has not run.
        """
        if self._run is None:
            raise NotFinetunedError("call finetune() before update()")
        before, old = self._run, self.dataset
        self.dataset = old.extend(examples)
        try:
            return self._tune(before)
        except BaseException:
            self.dataset = old
            raise

    def get_finetuned_model(self, **model_kwargs: Any) -> BaseSelector:
        """The tuned selector, or the base one where the gate kept it.

        Args:
            **model_kwargs: arguments of `TunedSelector`: `multi`, `clauses`, `fallback`,
                `defer_to`.

        Raises:
            NotFinetunedError: `finetune()` has not run.
        """
        if self.report is None or self._model is None:
            raise NotFinetunedError("call finetune() before get_finetuned_model()")
        if not self.report.accepted:
            logger.warning(
                'the base selector is returned: %s; accept="always" would override',
                self.report.reason,
            )
            return self._base()
        from llama_index.tuning.routers.selector import TunedSelector

        model_kwargs.setdefault("defer_to", self.defer_to)
        return TunedSelector(self._model, self._embed_model(), **model_kwargs)

    def _tune(self, before: Run | None) -> RouterReport:
        from llama_index.tuning.routers.report import write_report
        from llama_index.tuning.routers.run import Clock, measure, train
        from llama_index.tuning.vectors.identity import base_name, model_signature

        check_datasets(self.dataset, self.val_dataset, self.max_deferred, self.num_workers)
        clock = Clock()
        with clock.step("embed"):
            material = self._material(self.dataset)
            held_out = None if self.val_dataset is None else self._material(self.val_dataset)
        run = train(
            material,
            self.options,
            clock,
            base_model=base_name(self._embed_model()),
            before=before,
            show_progress=self.show_progress,
        )
        with clock.step("measure"):
            measured = run.measured if held_out is None else measure(run, held_out)
            report, margin = write_report(
                run,
                material,
                held_out,
                measured,
                self.options,
                clock,
                base_scores=self._base_scores(measured),
                deferred=None
                if self.defer_to is None
                else measured.deferred(self.defer_to, self.max_deferred),
            )
        details = {
            "accepted": report.accepted,
            "reason": report.reason,
            "options": asdict(self.options),
            "data": report.data,
            "versions": report.versions,
            "signature": model_signature(self._embed_model()),
        }
        self._model = replace(run.model, margin=margin, details=details)
        self._run, self.report = run, report
        logger.info("%s", report.reason)
        return report

    def _material(self, dataset: RoutingDataset) -> Any:
        from llama_index.tuning.routers.data import RouterData, embed
        from llama_index.tuning.vectors.embedder import Embedder

        embedder = Embedder(
            self._embed_model(),
            cache=self.vector_cache,
            num_workers=self.num_workers,
            show_progress=self.show_progress,
        )
        return RouterData.of(dataset, *embed(dataset, _Remembering(embedder, self._known)))

    def _base_scores(self, measured: Any) -> Any:
        """The base selector's score of each choice, shape `(n, choices)`."""
        from llama_index.tuning.evaluate.routing import evaluate_selector
        from llama_index.tuning.vectors.search import unit_rows

        material = measured.material
        if self.base_selector is not None:
            asked = material.dataset.subset(measured.examples.tolist())
            found = evaluate_selector(self.base_selector, asked, show_progress=self.show_progress)
            number = {name: row for row, name in enumerate(material.dataset.choices)}
            scores = np.zeros((len(asked), material.choices), dtype=np.float32)
            for row, chosen in enumerate(found.selected):
                for rank, name in enumerate(chosen):
                    scores[row, number[name]] = 1 / (rank + 1)
            return scores
        described = material.described.copy()
        names = list(material.dataset.choices)
        blank = np.setdiff1d(np.arange(material.choices), material.has_description)
        if len(blank):
            vectors = self._embed_model().get_text_embedding_batch([names[row] for row in blank])
            described[blank] = unit_rows(np.asarray(vectors, dtype=np.float32))
        return material.vectors[measured.examples] @ described.T

    def _base(self) -> BaseSelector:
        if self.base_selector is not None:
            return self.base_selector
        from llama_index.core.selectors import EmbeddingSingleSelector

        return EmbeddingSingleSelector(self._embed_model())

    def _embed_model(self) -> BaseEmbedding:
        from llama_index.core.base.embeddings.base import BaseEmbedding

        if self.embed_model is None:
            from llama_index.core import Settings

            self.embed_model = Settings.embed_model
        if not isinstance(self.embed_model, BaseEmbedding):
            raise TypeError(
                f"embed_model must be a BaseEmbedding, got {type(self.embed_model).__name__}"
            )
        return self.embed_model


class _Remembering:
    """An `Embedder` that also remembers within the process: `update` embeds what is new."""

    def __init__(self, embedder: Embedder, known: dict[tuple[str, str], Any]) -> None:
        self._embedder, self._known = embedder, known

    def documents(self, texts: list[str]) -> Any:
        return self._all("text", texts, self._embedder.documents)

    def queries(self, texts: list[str]) -> Any:
        return self._all("query", texts, self._embedder.queries)

    def _all(self, kind: str, texts: list[str], embed: Any) -> Any:
        missing = [t for t in dict.fromkeys(texts) if (kind, t) not in self._known]
        if missing:
            keys = [(kind, text) for text in missing]
            self._known.update(zip(keys, embed(missing), strict=True))
        return np.stack([self._known[kind, text] for text in texts])


MIN_EXAMPLES = 4


def check_datasets(dataset: Any, val_dataset: Any, max_deferred: Any, num_workers: Any) -> None:
    """Everything that can be known without a vector."""
    data = RoutingDataset.coerce(dataset)
    faults = []
    if len(data.choices) < 2:
        faults.append(f"a router needs at least 2 choices, got {len(data.choices)}")
    counts = data.class_counts()
    for name, description in data.choices.items():
        if not counts[name] and not description.strip():
            faults.append(f"choice {name!r} has neither an example nor a description")
    inside = sum(bool(example.choices) for example in data.examples)
    if inside < MIN_EXAMPLES:
        faults.append(f"at least {MIN_EXAMPLES} examples of choices are needed, got {inside}")
    elif sum(count > 0 for count in counts.values()) < 2:
        faults.append("all examples belong to one choice; at least 2 need examples")
    if len(data.groups()) < MIN_EXAMPLES and inside >= MIN_EXAMPLES:
        faults.append(f"the examples hold only {len(data.groups())} different queries")
    if val_dataset is not None:
        faults += _validation_faults(data, RoutingDataset.coerce(val_dataset))
    if faults:
        raise DatasetError("the router cannot be trained:", faults)
    for name, value in (("max_deferred", max_deferred), ("num_workers", num_workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")


def _validation_faults(data: RoutingDataset, held_out: RoutingDataset) -> list[str]:
    if list(held_out.choices) != list(data.choices):
        return ["val_dataset must have the dataset's choices, in the same order"]
    seen = {normalise(query) for query in data.queries}
    shared = [query for query in held_out.queries if normalise(query) in seen]
    faults = [f"val_dataset shares the query {query[:60]!r} with the dataset" for query in shared]
    if not any(example.choices for example in held_out.examples):
        faults.append("val_dataset has no example of any choice")
    return faults
