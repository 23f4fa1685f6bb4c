"""The engine that tunes an adapter on the vectors of any embedding model."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning import artifacts
from llama_index.tuning.base import BaseEmbeddingFinetuneEngine
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.embeddings.adapter.data import (
    Data,
    EmbeddedDataset,
    check_data,
    embed_problem,
)
from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.saved import Adapter, identity_adapter
from llama_index.tuning.errors import NotFinetunedError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.stores import base_name, model_signature

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode
    from llama_index.embeddings.adapter import BaseAdapter

logger = logging.getLogger(__name__)


class EmbeddingAdapterFinetuneEngine(BaseEmbeddingFinetuneEngine):
    """Tunes a small map on the vectors of a frozen embedding model: local, API, any.

    The texts are embedded once; training runs on the vectors. By default queries alone are
    mapped, so an index that is filled already stays as it is. The gain is measured on queries
    that were not trained on, and where none is shown the base model comes back.

    Args:
        dataset: labelled queries, a `RetrievalDataset` or the old package's. `None` learns from
            `unlabelled` alone.
        embed_model: the model to tune.
        batch_size: queries in a training step; `options.batch_size` by default.
        epochs: largest number of passes over the queries; `options.max_epochs` by default.
        adapter_model: a module to train instead of the one `options` names: any
            `llama_index.embeddings.adapter.BaseAdapter`. It is not changed; a copy is trained.
        dim: dimension of the vectors, where they are to be checked against it.
        device: of torch; the CPU by default, for which the work is small enough.
        model_output_path: folder for the tuned adapter, replaced when the run succeeds.
        model_checkpoint_path: folder for checkpoints and for what a killed run resumes from; by
            default one beside the output, removed when the run succeeds.
        checkpoint_save_steps: with `model_checkpoint_path`, a loadable adapter is saved there
            at the end of a pass when at least so many steps were made since the last.
        verbose: the old name of `show_progress`.
        bias: whether a linear adapter adds a constant vector.
        options: how to train; see `AdapterOptions`.
        val_dataset: queries to measure on, none of them in `dataset`. Without them, cross-fitting
            scores each query by an adapter that did not see it.
        unlabelled: documents of the corpus that the app searches (nodes, or a dictionary
            id → text). Their sentences teach too, without labels and without an LLM.
        vectors: where document vectors are already: an index, a vector store, a dictionary
            id → vector, an array or `.npy` file in the corpus' order. Only the rest is embedded.
        vector_cache: a file that keeps vectors between runs, keyed by model and text.
        accept: `"gain"` returns the tuned model only where its gain is shown; `"always"` does
            so whatever was measured.
        num_workers: concurrent calls, for models behind an API.
        show_progress: show progress bars.

    Raises:
        DatasetError, VectorError, ValueError, TypeError: at `finetune()`, before anything is
            embedded wherever that can be known.

    Example:
        >>> engine = EmbeddingAdapterFinetuneEngine(dataset, embed_model)  # doctest: +SKIP
        >>> print(engine.finetune())  # doctest: +SKIP
        >>> Settings.embed_model = engine.get_finetuned_model()  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: RetrievalDataset | Any | None,
        embed_model: BaseEmbedding,
        batch_size: int | None = None,
        epochs: int | None = None,
        adapter_model: BaseAdapter | None = None,
        dim: int | None = None,
        device: str | None = None,
        model_output_path: str | PathLike[str] = "model_output",
        model_checkpoint_path: str | PathLike[str] | None = None,
        checkpoint_save_steps: int = 100,
        verbose: bool = False,
        bias: bool = False,
        *,
        options: AdapterOptions | None = None,
        val_dataset: RetrievalDataset | Any | None = None,
        unlabelled: Mapping[str, str] | Sequence[BaseNode] | Sequence[str] | None = None,
        vectors: Any = None,
        vector_cache: str | PathLike[str] | None = None,
        accept: Accept = "gain",
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        self.dataset = dataset
        self.embed_model = embed_model
        self.adapter_model = adapter_model
        self.dim = dim
        self.device = device or "cpu"
        self.model_output_path = Path(model_output_path)
        self.model_checkpoint_path = model_checkpoint_path
        self.checkpoint_save_steps = checkpoint_save_steps
        self.options = _options(options, batch_size, epochs, bias)
        self.val_dataset = val_dataset
        self.unlabelled = unlabelled
        self.vectors = vectors
        self.vector_cache = vector_cache
        self.accept: Accept = accept
        self.num_workers = num_workers
        self.show_progress = show_progress or verbose
        self.report: FinetuneReport | None = None
        self._tuned: Adapter | None = None

    @classmethod
    def from_model_path(
        cls,
        dataset: RetrievalDataset | Any,
        embed_model: BaseEmbedding,
        model_path: str,
        model_cls: type[Any] | None = None,
        **kwargs: Any,
    ) -> EmbeddingAdapterFinetuneEngine:
        """Go on from a saved adapter, of this package or the old one.

        Args:
            dataset: as in the constructor.
            embed_model: as in the constructor.
            model_path: the adapter's folder.
            model_cls: its class, where it is a custom one.
            **kwargs: the constructor's other arguments.
        """
        from llama_index.tuning.embeddings.adapter.modules import module_of_map

        adapter = Adapter.load(model_path, adapter_cls=model_cls)
        return cls(dataset, embed_model, adapter_model=module_of_map(adapter.map), **kwargs)

    def finetune(self) -> FinetuneReport:
        """Embed, train, measure, decide, save.

        Returns:
            The report; `print(report)` shows the table and the verdict.
        """
        data = self._check()
        from llama_index.tuning.embeddings.adapter.run import RunFolder, Tuning

        folder = self.model_checkpoint_path or f"{self.model_output_path}.run"
        run = RunFolder(Path(folder), keep=self.model_checkpoint_path is not None)
        clock = _Clock()
        with run.held():
            with clock.step("embed"):
                problem = self._embed(data, run.path)
            tuning = Tuning(self._module, problem, self.options, run, self.device)
            with clock.step("train"):
                tuning.train(self._served, self.checkpoint_save_steps, self.show_progress)
            with clock.step("measure"):
                report = tuning.report(data, self.accept, clock.seconds)
            self._tuned = self._save(tuning.adapter(), report, problem.dim)
        self.report = report
        logger.info("%s", report.reason)
        return report

    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """The tuned model, or the base model where the gate kept it.

        Args:
            **model_kwargs: arguments of `AdapterEmbeddingModel`, such as `transform_query`.

        Raises:
            NotFinetunedError: `finetune()` has not run.
        """
        if self.report is None or self._tuned is None:
            raise NotFinetunedError("call finetune() before get_finetuned_model()")
        if not self.report.accepted:
            logger.warning(
                'the base model is returned: %s; accept="always" would override', self.report.reason
            )
            return self.embed_model
        model = AdapterEmbeddingModel(self.embed_model, self._tuned, **model_kwargs)
        model.adapter_path = str(self.model_output_path)
        return model

    def _check(self) -> Data:
        """All that can be wrong before any work or cost."""
        if not isinstance(self.embed_model, BaseEmbedding):
            raise TypeError(
                f"embed_model must be a BaseEmbedding, got {type(self.embed_model).__name__}"
            )
        check_accept(self.accept)
        for name in ("num_workers", "checkpoint_save_steps", "dim"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be >= 1, got {value}")
        artifacts.check_writable(self.model_output_path)
        self._check_module()
        return check_data(self.dataset, self.unlabelled, self.val_dataset, self.options)

    def _check_module(self) -> None:
        if self.adapter_model is None:
            return
        from llama_index.embeddings.adapter import BaseAdapter

        if not isinstance(self.adapter_model, BaseAdapter):
            raise TypeError(
                "adapter_model must be a llama_index.embeddings.adapter.BaseAdapter, "
                f"got {type(self.adapter_model).__name__}"
            )
        if not any(p.requires_grad for p in self.adapter_model.parameters()):
            raise ValueError("adapter_model has no parameter that can be trained")

    def _embed(self, data: Data, run: Path) -> EmbeddedDataset:
        embedder = Embedder(
            self.embed_model,
            cache=self.vector_cache or run / "vectors.sqlite",
            num_workers=self.num_workers,
            show_progress=self.show_progress,
        )
        return embed_problem(data, self.vectors, embedder, self.dim)

    def _module(self, dim: int) -> BaseAdapter:
        """A fresh module at its starting weights."""
        if self.adapter_model is not None:
            return copy.deepcopy(self.adapter_model)
        from llama_index.tuning.embeddings.adapter.fit import make_adapter

        return make_adapter(dim, self.options)

    def _served(self, module: Any, dim: int, **details: Any) -> Adapter:
        from llama_index.tuning.embeddings.adapter.modules import map_of_module

        served = map_of_module(copy.deepcopy(module), dim=dim)
        name = base_name(self.embed_model)
        return Adapter(served, self.options.side, base_model=name, details=details)

    def _save(self, module: Any, report: FinetuneReport, dim: int) -> Adapter:
        """Write the output folder: what the gate chose, and the report.

        Where it kept the base, the folder's adapter is the identity, so that whoever loads it
        gets the base's vectors; the trained one lies in `candidate/`.
        """
        details = {
            "accepted": report.accepted,
            "reason": report.reason,
            "options": asdict(self.options),
            "data": report.data,
            "signature": model_signature(self.embed_model),
        }
        tuned = self._served(module, dim, **details)
        with artifacts.replacing_folder(self.model_output_path) as folder:
            if report.accepted:
                tuned.write(folder)
            else:
                identity_adapter(dim, tuned.base_model, **details).write(folder)
                (folder / "candidate").mkdir()
                tuned.write(folder / "candidate")
            report.save_json(folder / "report.json")
        return tuned


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def _options(
    options: AdapterOptions | None, batch_size: int | None, epochs: int | None, bias: bool
) -> AdapterOptions:
    if options is not None and not isinstance(options, AdapterOptions):
        raise TypeError(f"options must be an AdapterOptions, got {type(options).__name__}")
    given = {"batch_size": batch_size, "max_epochs": epochs, "bias": bias or None}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(options or AdapterOptions(), **changes)
