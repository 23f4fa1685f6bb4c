"""The engine that tunes an adapter on the vectors of any embedding model."""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import (
    check_options,
    folder_path,
    of_type,
    output_path,
    path_or_none,
    plain_arguments,
    whole_number,
)
from llama_index.tuning.base import BaseEmbeddingFinetuneEngine, Clock, FinetuneEngine
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.tuned_parts import refuse_learnt
from llama_index.tuning.embeddings.adapter.data import SAME, check_data, embed_problem, likeness
from llama_index.tuning.embeddings.adapter.maps import LowRankMap, RememberingMap
from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.saved import Adapter, identity_adapter, run_details
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.identity import base_name, model_signature

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode
    from llama_index.embeddings.adapter import BaseAdapter

    from llama_index.tuning.embeddings.adapter.run import RunFolder


logger = logging.getLogger(__name__)


class EmbeddingAdapterFinetuneEngine(FinetuneEngine, BaseEmbeddingFinetuneEngine):
    """Tunes a small map on the vectors of a frozen embedding model: local, API, any.

    The texts are embedded once; training runs on the vectors. By default queries alone are
    mapped, so an index that is filled already stays as it is. The gain is measured on queries
    that were not trained on, and if none is shown the base model comes back.

    Args:
        dataset: labelled queries, a `RetrievalDataset` or the old package's. `None` learns from
            `unlabelled` alone.
        embed_model: the model to tune.
        batch_size: queries in a step of training by gradient (`options.batch_size`); the default,
            a linear adapter, is solved on all queries at once.
        epochs: largest number of passes over the queries (`options.max_epochs`); no limit by
            default: a linear adapter is solved to its optimum, others stop by themselves.
        adapter_model: a module to train instead of the one `options` names: any
            `llama_index.embeddings.adapter.BaseAdapter`. It is not changed; a copy is trained.
        dim: dimension that the vectors must have; not checked by default.
        device: of torch; the CPU by default, for which the work is small enough.
        model_output_path: folder for the tuned adapter and its report, replaced when the run
            succeeds; `None` writes nothing.
        model_checkpoint_path: folder for checkpoints and for what a killed run resumes from; by
            default one beside the output, removed when the run succeeds.
        checkpoint_save_steps: with `model_checkpoint_path`, a loadable adapter is saved there
            (`step_100`) at the end of a pass of the final training if this many steps were made
            since the last. A linear map that is solved has no steps, and so no checkpoints.
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
        accept: `"gain"`, or `"always"` to take the tuned model whatever was measured.
        num_workers: concurrent calls, for models behind an API.
        show_progress: show bars.
        **train_kwargs: the old package's `optimizer_params` (`lr`, `weight_decay`) and
            `optimizer_class` (AdamW) make it train by gradient, with these options; the others
            are refused by name.

    Example:
        >>> engine = EmbeddingAdapterFinetuneEngine(dataset, embed_model)  # doctest: +SKIP
        >>> print(engine.finetune())  # doctest: +SKIP
        >>> Settings.embed_model = engine.get_finetuned_model()  # doctest: +SKIP
    """

    libraries = ("torch", "numpy")
    reopens = True
    """By the adapter that training begins at."""

    @plain_arguments
    def __init__(
        self,
        dataset: RetrievalDataset | Any | None,
        embed_model: BaseEmbedding,
        batch_size: int | None = None,
        epochs: int | None = None,
        adapter_model: BaseAdapter | None = None,
        dim: int | None = None,
        device: str | None = None,
        model_output_path: str | PathLike[str] | None = "tuned_adapter",
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
        **train_kwargs: Any,
    ) -> None:
        check_accept(accept)
        self.dataset = dataset
        self.embed_model = of_type("embed_model", embed_model, BaseEmbedding, "a BaseEmbedding")
        self.adapter_model = _trainable(adapter_model)
        self.dim = None if dim is None else whole_number("dim", dim, 1)
        self.device = device or "cpu"
        self.model_output_path = output_path(model_output_path)
        self.model_checkpoint_path = (
            None
            if model_checkpoint_path is None
            else folder_path("model_checkpoint_path", model_checkpoint_path)
        )
        self.checkpoint_save_steps = whole_number("checkpoint_save_steps", checkpoint_save_steps, 1)
        given = {"batch_size": batch_size, "max_epochs": epochs, "bias": bias or None}
        given |= _old_arguments(train_kwargs)
        changes: dict[str, Any] = {name: it for name, it in given.items() if it is not None}
        self.options = replace(check_options(options, AdapterOptions), **changes)
        self.val_dataset = val_dataset
        self.unlabelled = unlabelled
        self.vectors = vectors
        self.vector_cache = path_or_none("vector_cache", vector_cache)
        self.accept = accept
        self.num_workers = whole_number("num_workers", num_workers, 1)
        self.show_progress = show_progress or verbose

    @classmethod
    @plain_arguments
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
            model_cls: its class, if it is a custom one.
            **kwargs: the constructor's other arguments.

        If the adapter has learnt questions that are measured, training begins anew from the same
        class, and a warning is logged: on those nothing could be said of what went on from it.
        With a `val_dataset` of other questions it goes on, from its map: single questions are
        remembered only if they are learnt again.
        """
        from llama_index.tuning.embeddings.adapter.modules import module_of_map

        folder_path("model_path", model_path)
        adapter = Adapter.load(model_path, adapter_cls=model_cls)
        start = adapter.map
        tuned_as = adapter.details.get("options", {}).get("adapter")
        if isinstance(start, RememberingMap) or (
            isinstance(start, LowRankMap) and tuned_as == "linear"
        ):
            start = start.merged()  # the linear map, which is saved in the smaller form
        module = module_of_map(start)
        engine = cls(dataset, embed_model, adapter_model=module, **kwargs)
        measured = dataset if engine.val_dataset is None else engine.val_dataset
        asked = list(getattr(measured, "queries", {}).values())
        if adapter.learned is not None and (known := adapter.learned.among(asked)):
            logger.warning(
                "the adapter in %s has learnt %d of the %d questions that are measured: a new one "
                "is trained in its place; val_dataset= with other questions lets it go on",
                model_path,
                len(known),
                len(asked),
            )
            engine.adapter_model = type(module)(**module.get_config_dict())
        return engine

    def _check(self) -> None:
        self._data = check_data(
            self.dataset, self.unlabelled, self.val_dataset, self.options, self.vectors
        )
        measured = list(self._data.measured.queries.values())
        refuse_learnt(self.embed_model, measured)

    @contextlib.contextmanager
    def _output_held(self) -> Iterator[None]:
        """What a killed run goes on from stays until the output is written."""
        with super()._output_held(), self._run_folder() as run, run.held():
            self._run = run
            yield

    @contextlib.contextmanager
    def _run_folder(self) -> Iterator[RunFolder]:
        from llama_index.tuning.embeddings.adapter.run import RunFolder

        if self.model_checkpoint_path is not None:
            yield RunFolder(self.model_checkpoint_path, keep=True)
        elif self.model_output_path is not None:
            yield RunFolder(Path(f"{self.model_output_path}.run"), keep=False)
        else:
            with tempfile.TemporaryDirectory(prefix="tuned_adapter.") as place:
                yield RunFolder(Path(place) / "run", keep=False)

    def _tune(self, clock: Clock) -> FinetuneReport:
        from llama_index.tuning.embeddings.adapter.run import Tuning

        with clock.step("embed"):
            embedder = Embedder(
                self.embed_model,
                cache=self.vector_cache or self._run.path / "vectors.sqlite",
                num_workers=self.num_workers,
                show_progress=self.show_progress,
            )
            problem = embed_problem(self._data, self.vectors, embedder, self.dim)
            told = [] if self.vectors is None else self._foreign(problem.documents, embedder)
            self._signature = model_signature(self.embed_model)
        tuning = Tuning(self._module, problem, self.options, self._run, self.device)
        with clock.step("train"):
            tuning.train(self._served, self.checkpoint_save_steps, self.show_progress)
        with clock.step("measure"):
            report = tuning.report(self._data)
            notes = [*report.notes, *told]
            report = replace(report, model=base_name(self.embed_model), notes=notes)
        served = self._served(tuning.adapter(), problem.dim)
        self._adapter = replace(served, learned=tuning.learned(self._data))
        return report

    def _foreign(self, documents: Float32, embedder: Embedder) -> list[str]:
        """What to say where the stored vectors look like another model's."""
        cosines = likeness(self._data.corpus(), documents, embedder)
        if cosines.max() >= SAME:
            return []
        found = ", ".join(f"{cosine:.2f}" for cosine in cosines)
        note = (
            f"vectors are not those that {base_name(self.embed_model)!r} gives: {len(cosines)} "
            f"documents embedded by it lie at cosine {found} to theirs. Were they made by another "
            "model? Then the base is worth nothing here, and the gain says nothing"
        )
        logger.warning("%s", note)
        return [note]

    def _tuned(self, **model_kwargs: Any) -> AdapterEmbeddingModel:
        """Takes arguments of `AdapterEmbeddingModel`, such as `transform_query`."""
        if not self._in_memory:
            assert self.model_output_path is not None
            if self.adapter_model is not None:
                model_kwargs.setdefault("adapter_cls", type(self.adapter_model))
            return AdapterEmbeddingModel(self.embed_model, self.model_output_path, **model_kwargs)
        adapter = replace(self._adapter, details=run_details(self._finished(), self._signature))
        model = AdapterEmbeddingModel(self.embed_model, adapter, **model_kwargs)
        model.adapter_path = str(self.model_output_path or "")
        return model

    def _base(self, **model_kwargs: Any) -> BaseEmbedding:
        """`embed_model` as it was given; there is nothing to set."""
        return self.embed_model

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        replace(self._adapter, details=run_details(report, self._signature)).write(folder)

    def _write_base(self, folder: Path, report: FinetuneReport) -> None:
        """An adapter that changes nothing: whoever loads the folder gets the base's vectors.

        It is of the trained class if that can be the identity, so that a loader that is told the
        class finds it.
        """
        details = {**run_details(report, self._signature), "kept_base": True}
        dim, name = self._adapter.dim, self._adapter.base_model
        probe = np.random.default_rng(0).standard_normal((4, dim)).astype(np.float32)
        for module in (self._module(dim), _zeroed(self._module(dim))):
            same = self._served(module, dim).map
            if np.allclose(same(probe), probe, atol=1e-6):
                Adapter(same, normalise=False, base_model=name, details=details).write(folder)
                return
        logger.warning(
            "%s holds a linear adapter that changes nothing: no weights of %s do that, so a loader "
            "that is told this class cannot read it",
            self.model_output_path,
            type(self._module(dim)).__name__,
        )
        identity_adapter(dim, name, **details).write(folder)

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


def _zeroed(module: BaseAdapter) -> BaseAdapter:
    """With all weights 0: the identity, if the module adds what it computes to its input."""
    for parameter in module.parameters():
        parameter.data.zero_()
    return module


def _trainable(module: BaseAdapter | None) -> BaseAdapter | None:
    if module is None:
        return None
    from llama_index.embeddings.adapter import BaseAdapter

    kind = "a llama_index.embeddings.adapter.BaseAdapter"
    of_type("adapter_model", module, BaseAdapter, kind)
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError("adapter_model has no parameter that can be trained")
    return module


_OLD = {
    "max_grad_norm": "gradients are not clipped",
    "steps_per_epoch": "a pass takes every query; epochs= and AdapterOptions(max_steps=…) limit it",
    "warmup_steps": "options=AdapterOptions(learning_rate=…) sets the rate, with no warm-up",
    "show_progress_bar": "show_progress= shows bars",
    "output_path": "model_output_path= names the folder",
    "checkpoint_path": "model_checkpoint_path= names the folder",
}


def _old_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options in place of the arguments that the old engine handed to its training loop."""
    for name in given:
        if name in _OLD:
            raise TypeError(f"{name} is not taken any more: {_OLD[name]}")
        if name not in ("optimizer_class", "optimizer_params"):
            raise TypeError(f"unexpected argument {name!r}")
    kind = given.get("optimizer_class")
    if kind is not None and getattr(kind, "__name__", "") != "AdamW":
        raise ValueError(f"optimizer_class: adapters are trained with AdamW, got {kind!r}")
    names = {"lr": "learning_rate", "weight_decay": "weight_decay"}
    values = dict(given.get("optimizer_params") or {})
    if unknown := values.keys() - names.keys():
        raise ValueError(
            f"optimizer_params: lr and weight_decay can be set, got {', '.join(sorted(unknown))}"
        )
    solver = {"solver": "gradient"} if kind is not None or values else {}
    return {**solver, **{names[name]: value for name, value in values.items()}}
