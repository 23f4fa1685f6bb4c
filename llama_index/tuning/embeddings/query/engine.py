"""The engine that tunes the query side of a sentence-transformers model."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import (
    check_model_id,
    check_options,
    device_or_none,
    items_of,
    output_path,
    path_or_none,
    plain_arguments,
    whole_number,
)
from llama_index.tuning._running import process_count
from llama_index.tuning.base import BaseEmbeddingFinetuneEngine, Clock, FinetuneEngine
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.tuned_parts import refuse_learnt_by
from llama_index.tuning.embeddings.adapter.data import check_data
from llama_index.tuning.embeddings.full.model import (
    check_device,
    load_model,
    loading_bars,
)
from llama_index.tuning.embeddings.full.settings import Prompts, Schedule, Settings, prompts_of
from llama_index.tuning.embeddings.query.data import embed_questions
from llama_index.tuning.embeddings.query.model import QueryEncoderEmbeddingModel, write_encoder
from llama_index.tuning.embeddings.query.options import QueryEncoderOptions
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.hf.checkpoints import beside, held
from llama_index.tuning.hf.tracking import named_trackers, trainer_callbacks
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.identity import model_signature

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from transformers import TrainerCallback

    from llama_index.tuning.embeddings.query.run import Tuning


class QueryEncoderFinetuneEngine(FinetuneEngine, BaseEmbeddingFinetuneEngine):
    """Tunes the model that embeds questions, over stored vectors that stay as they are.

    Between an adapter and tuning the whole model: the model's own layers learn (low-rank updates
    by default), but only for questions. No document is embedded again, no index rebuilt, and every
    stored vector is a negative of every question. Training on short texts alone costs a fraction of
    full tuning (arXiv 2601.04646 finds it close in quality).

    The gain is measured on questions that were not trained on: by cross-fitting, or on
    `val_dataset`. Within each fold a part of its questions decides when to stop, at which learning
    rate and how the result is merged with the base; the last training, on all questions, follows
    the middle of what the folds decided.

    Args:
        dataset: labelled questions. `None` learns from `unlabelled` alone.
        model_id: the sentence-transformers model that the stored vectors are of, by Hugging Face
            name or folder.
        vectors: where they are: an index, a vector store, a dictionary id → vector, an array or
            `.npy` file in the corpus' order. What an index or store holds beside the dataset's
            documents is searched too. Only what is missing is embedded.
        model_output_path: folder for the tuned query encoder and its report, replaced when the run
            succeeds; checkpoints lie beside it. `None` writes nothing.
        batch_size: questions in a step.
        epochs: passes over the questions, at most.
        val_dataset: questions to measure on, none of them in `dataset`, over a corpus of their own.
        options: how to train; see `QueryEncoderOptions`.
        unlabelled: documents of the corpus that the app searches (nodes, or a dictionary
            id → text). Their sentences teach too, without labels and without an LLM.
        vector_cache: a file that keeps the base's vectors between runs.
        trust_remote_code: run code that a model brings along.
        device: where to train; a GPU by default, if there is one.
        resume_from_checkpoint: go on from the last whole checkpoint of a run that was stopped.
        callbacks: of transformers' trainer; they see every training.
        report_to: trackers of transformers that log every training, such as `"tensorboard"` (its
            files lie beside the output folder), `"mlflow"` or `"wandb"`.
        accept: `"gain"`, or `"always"` to take the tuned model whatever was measured.
        show_progress: show bars.

    Example:
        >>> engine = QueryEncoderFinetuneEngine(
        ...     dataset, "BAAI/bge-small-en-v1.5", vectors=index
        ... )  # doctest: +SKIP
        >>> print(engine.finetune())  # doctest: +SKIP
        >>> retriever = index.as_retriever(
        ...     embed_model=engine.get_finetuned_model()
        ... )  # doctest: +SKIP
    """

    libraries = ("sentence-transformers", "transformers", "torch", "peft", "numpy")
    reopens = True

    @plain_arguments
    def __init__(
        self,
        dataset: RetrievalDataset | Any | None,
        model_id: str = "BAAI/bge-small-en",
        *,
        vectors: Any = None,
        model_output_path: str | PathLike[str] | None = "tuned_query_encoder",
        batch_size: int = 32,
        epochs: int = 8,
        val_dataset: RetrievalDataset | Any | None = None,
        options: QueryEncoderOptions | None = None,
        unlabelled: Mapping[str, str] | Sequence[BaseNode] | Sequence[str] | None = None,
        vector_cache: str | PathLike[str] | None = None,
        trust_remote_code: bool = False,
        device: Any | None = None,
        resume_from_checkpoint: bool = False,
        callbacks: Sequence[TrainerCallback] = (),
        report_to: str | Sequence[str] = (),
        accept: Accept = "gain",
        show_progress: bool = False,
    ) -> None:
        check_accept(accept)
        self.dataset, self.val_dataset, self.unlabelled = dataset, val_dataset, unlabelled
        self.model_id, self.vectors = model_id, vectors
        self.model_output_path = output_path(model_output_path)
        self.batch_size = whole_number("batch_size", batch_size, 2)
        self.epochs = whole_number("epochs", epochs, 1)
        self.options = check_options(options, QueryEncoderOptions)
        self.vector_cache = path_or_none("vector_cache", vector_cache)
        self.trust_remote_code, self.device = trust_remote_code, device_or_none("device", device)
        self.resume_from_checkpoint = resume_from_checkpoint
        if self.model_output_path is None and resume_from_checkpoint:
            raise ValueError("checkpoints lie beside model_output_path, which is None")
        self.callbacks = list(items_of("callbacks", callbacks, "callbacks"))
        self.report_to = named_trackers(report_to)
        self.accept, self.show_progress = accept, show_progress
        self._callbacks: list[Any] = []
        self._checkpoints = Path()  # each run says where
        self._prompts: Prompts | None = None

    def _check(self) -> None:
        check_model_id(self.model_id)
        check_device(self.device)
        self._callbacks = trainer_callbacks(self.callbacks, self.report_to, self.model_output_path)
        if process_count() > 1:
            raise ValueError(
                f"a query encoder is trained by one process, not by {process_count()}: questions "
                "are short; start the script without torchrun"
            )
        self._data = check_data(
            self.dataset, self.unlabelled, self.val_dataset, self.options, self.vectors
        )
        refuse_learnt_by(self.model_id, self._data.measured.queries.values())

    @contextlib.contextmanager
    def _output_held(self) -> Iterator[None]:
        """Checkpoints stay until the output is written; then the model in memory may go."""
        with (
            super()._output_held(),
            beside(self.model_output_path, "tuned_query_encoder.") as self._checkpoints,
            held(self._checkpoints, keep=False),
            loading_bars(self.show_progress),
        ):
            yield
        if self.model_output_path is not None:
            del self._tuning
            self._in_memory = False

    def _tune(self, clock: Clock) -> FinetuneReport:
        from llama_index.tuning.embeddings.query.run import Tuning

        settings = self._settings()
        with clock.step("embed"):
            model = load_model(self.model_id, self.device, self.trust_remote_code)
            prompts = prompts_of(model, self.model_id, settings.options)
            base = settings.embedding(self.model_id, prompts, embed_batch_size=32)
            embedder = Embedder(base, cache=self.vector_cache, show_progress=self.show_progress)
            problem = embed_questions(self._data, self.vectors, embedder)
            self._signature, self._prompts = model_signature(base), prompts
        tuning: Tuning = Tuning(settings, self._data, problem, self.options, prompts)
        with clock.step("train"):
            tuning.train()
        self._tuning = tuning
        return tuning.report(clock)

    def _tuned(self, **model_kwargs: Any) -> QueryEncoderEmbeddingModel:
        """Takes arguments of `QueryEncoderEmbeddingModel`, such as `base_embed_model`."""
        base = model_kwargs.pop("base_embed_model", None) or self._base()
        arguments = {"device": self._device(), **model_kwargs}
        if not self._in_memory:
            assert self.model_output_path is not None
            return QueryEncoderEmbeddingModel(base, self.model_output_path, **arguments)
        with tempfile.TemporaryDirectory() as place:  # it only loads from a folder
            self._write(Path(place), self._finished())
            model = QueryEncoderEmbeddingModel(base, place, **arguments)
        model.encoder_path = ""
        return model

    def _base(self, **model_kwargs: Any) -> BaseEmbedding:
        """`base_embed_model` if it is given; else takes arguments of `HuggingFaceEmbedding`."""
        given: BaseEmbedding | None = model_kwargs.pop("base_embed_model", None)
        if given is not None:
            return given
        settings = self._settings()
        if self._prompts is None:  # another session's run
            model = load_model(self.model_id, self.device, self.trust_remote_code)
            self._prompts = prompts_of(model, self.model_id, settings.options)
        return settings.embedding(self.model_id, self._prompts, **model_kwargs)

    def _device(self) -> str | None:
        return str(self.device) if self.device is not None else None

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        tuning = self._tuning
        assert self._prompts is not None
        digest = hashlib.sha256()
        for name, tensor in sorted(tuning.model.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
        config = {
            "accepted": report.accepted,
            "reason": report.reason,
            "base_model": report.model,
            "query_prompt": self._prompts.query,
            "document_prompt": self._prompts.document,
            "signature": self._signature,
            "fingerprint": digest.hexdigest()[:16],
            "options": report.options,
            "data": report.data,
            "versions": report.versions,
        }
        write_encoder(folder, tuning.model, config, tuning.learned())

    def _settings(self) -> Settings:
        return Settings(
            model_id=self.model_id,
            checkpoints=self._checkpoints,
            device=self._device(),
            trust_remote_code=self.trust_remote_code,
            loss=None,  # each training has one of its own
            use_all_docs=True,
            scores=None,
            negatives=None,
            vector_cache=self.vector_cache,
            callbacks=self._callbacks,
            accept=self.accept,
            options=self.options.trainings()[0],
            schedule=Schedule(
                batch_size=self.batch_size,
                epochs=self.epochs,
                evaluation_steps=1,  # each training says how often
                save_checkpoints=False,
                resume=self.resume_from_checkpoint,
                save_steps=1,
                save_limit=0,
                show_progress=self.show_progress,
            ),
        )
