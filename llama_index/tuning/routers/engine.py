"""The engine that trains a router, and what it refuses before anything is embedded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning._checks import (
    check_options,
    of_type,
    output_path,
    path_or_none,
    plain_arguments,
    whole_number,
)
from llama_index.tuning.base import BaseSelectorFinetuneEngine, Clock, FinetuneEngine
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.datasets.routing import RoutingDataset
from llama_index.tuning.datasets.tuned_parts import base_notes, refuse_learnt
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.text.words import normalise
from llama_index.tuning.vectors.learned import Learned, question_codes

if TYPE_CHECKING:
    from llama_index.tuning.report import FinetuneReport
    from llama_index.tuning.routers.data import RouterData
    from llama_index.tuning.routers.report import RouterReport
    from llama_index.tuning.routers.run import Run
    from llama_index.tuning.routers.serving.model import RouterModel
    from llama_index.tuning.routers.serving.selector import TunedSelector


class RouterFinetuneEngine(FinetuneEngine, BaseSelectorFinetuneEngine):
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
        accept: `"gain"` keeps the base selector if no gain is shown; `"always"` does not.
        model_output_path: folder for the router and its report; nothing is written by default. A
            refused router lies in `candidate/` there.
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

    kept = "base selector"
    libraries = ("numpy", "scipy", "scikit-learn")
    report: RouterReport | None

    @plain_arguments
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
        accept: Accept = "gain",
        model_output_path: str | PathLike[str] | None = None,
        vector_cache: str | PathLike[str] | None = None,
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        check_accept(accept)
        if embed_model is not None:
            of_type("embed_model", embed_model, BaseEmbedding, "a BaseEmbedding")
        for name, selector in (("base_selector", base_selector), ("defer_to", defer_to)):
            if selector is not None:
                of_type(name, selector, BaseSelector, "a BaseSelector")
        self.dataset = dataset
        self.embed_model = embed_model
        self.val_dataset = val_dataset
        self.options = check_options(options, RouterOptions)
        self.base_selector = base_selector
        self.defer_to = defer_to
        self.max_deferred = whole_number("max_deferred", max_deferred, 1)
        self.accept = accept
        self.model_output_path = output_path(model_output_path)
        self.vector_cache = path_or_none("vector_cache", vector_cache)
        self.num_workers = whole_number("num_workers", num_workers, 1)
        self.show_progress = show_progress
        self._before: Run | None = None
        self._run: Run | None = None
        self._model: RouterModel | None = None
        self._known: dict[tuple[str, str], Any] = {}

    def finetune(self) -> RouterReport:
        """Check, embed, cross-fit, fit, calibrate, measure, decide, write.

        Returns:
            The report; `print(report)` shows the table and the verdict.

        Raises:
            DatasetError: examples that cannot be learnt from, every fault named.
            ArtifactError: something else lies at `model_output_path`, or another run writes there.
        """
        return cast("RouterReport", super().finetune())

    def update(self, examples: RoutingDataset | Iterable[RoutingExample]) -> RouterReport:
        """Go on with more examples, and new choices if a dataset brings them.

        Only the new texts are embedded, the settings are kept, and the fit starts from the last
        solution. A folder at `model_output_path` is written anew.

        Raises:
            NotFinetunedError: `finetune()` has not run.
        """
        self._finished()
        before = self.dataset, self._run, self._model
        self.dataset, self._before = self.dataset.extend(examples), self._run
        try:
            return self.finetune()
        except BaseException:
            self.dataset, self._run, self._model = before
            raise
        finally:
            self._before = None

    def _check(self) -> None:
        check_datasets(self.dataset, self.val_dataset)
        if self.embed_model is None:
            from llama_index.core import Settings

            self.embed_model = Settings.embed_model
        for data in (self.dataset, self.val_dataset):
            refuse_learnt(self.embed_model, () if data is None else data.queries)

    def _tune(self, clock: Clock) -> RouterReport:
        from llama_index.tuning.routers.measure import base_scores
        from llama_index.tuning.routers.report import write_report
        from llama_index.tuning.routers.run import measure, train
        from llama_index.tuning.vectors.identity import base_name, model_signature

        model = self._embedder()
        with clock.step("embed"):
            data = self._embedded(self.dataset)
            held_out = None if self.val_dataset is None else self._embedded(self.val_dataset)
        run = train(
            data,
            self.options,
            clock,
            base_model=base_name(model),
            before=self._before,
            show_progress=self.show_progress,
        )
        with clock.step("measure"):
            measured = run.measured if held_out is None else measure(run, held_out)
            base = base_scores(measured, model, self.base_selector, self.show_progress)
            deferred = (
                None
                if self.defer_to is None
                else measured.deferred(self.defer_to, self.max_deferred)
            )
            report, margin = write_report(
                run, data, held_out, measured, self.options, base_scores=base, deferred=deferred
            )
            asked = (self.val_dataset or self.dataset).queries
            report = replace(report, notes=[*report.notes, *base_notes(self.base_selector, asked)])
        self._run = run
        details = {"signature": model_signature(model)}
        self._model = replace(run.model, margin=margin, details=details)
        return report

    def _tuned(self, **model_kwargs: Any) -> TunedSelector:
        """Takes arguments of `TunedSelector`: `multi`, `clauses`, `fallback`, `defer_to`."""
        model_kwargs.setdefault("defer_to", self.defer_to)
        return self._selector(self._finished(), **model_kwargs)

    def _base(self, **model_kwargs: Any) -> BaseSelector:
        """`base_selector` as it was given, or the stock selector; the arguments are the tuned's."""
        if self.base_selector is not None:
            return self.base_selector
        from llama_index.core.selectors import EmbeddingSingleSelector

        return EmbeddingSingleSelector(self._embedder())

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        self._selector(report).write(folder)

    def _selector(self, report: FinetuneReport, **arguments: Any) -> TunedSelector:
        """What was learnt, and how it came about."""
        from llama_index.tuning.routers.serving.selector import TunedSelector

        assert self._model is not None
        details = {
            "accepted": report.accepted,
            "reason": report.reason,
            "options": report.options,
            "data": report.data,
            "versions": report.versions,
            "questions": Learned("", question_codes(self.dataset.queries)).to_hex(),
            **self._model.details,
        }
        return TunedSelector(replace(self._model, details=details), self._embedder(), **arguments)

    def _embedded(self, dataset: RoutingDataset) -> RouterData:
        from llama_index.tuning.routers.data import RouterData, embed
        from llama_index.tuning.vectors.embedder import Embedder

        embedder = Embedder(
            self._embedder(),
            cache=self.vector_cache,
            num_workers=self.num_workers,
            show_progress=self.show_progress,
            known=self._known,
        )
        return RouterData.of(dataset, *embed(dataset, embedder))

    def _embedder(self) -> BaseEmbedding:
        assert self.embed_model is not None
        return self.embed_model


MIN_EXAMPLES = 4


def check_datasets(dataset: Any, val_dataset: Any) -> None:
    """Everything that can be known without a vector.

    Raises:
        DatasetError: naming every fault.
    """
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
        faults += _validation_faults(data, RoutingDataset.coerce(val_dataset, "val_dataset"))
    if faults:
        raise DatasetError("the router cannot be trained:", faults)


def _validation_faults(data: RoutingDataset, held_out: RoutingDataset) -> list[str]:
    if list(held_out.choices) != list(data.choices):
        return ["val_dataset must have the dataset's choices, in the same order"]
    seen = {normalise(query) for query in data.queries}
    shared = [query for query in held_out.queries if normalise(query) in seen]
    faults = [f"val_dataset shares the query {query[:60]!r} with the dataset" for query in shared]
    if not any(example.choices for example in held_out.examples):
        faults.append("val_dataset has no example of any choice")
    return faults
