"""The engine that tunes a sentence-transformers model."""

from __future__ import annotations

import contextlib
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
    plain_arguments,
    whole_number,
)
from llama_index.tuning._running import process_count
from llama_index.tuning.artifacts import read_config
from llama_index.tuning.base import BaseEmbeddingFinetuneEngine, Clock, FinetuneEngine
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.datasets.tuned_parts import refuse_learnt_by
from llama_index.tuning.embeddings.adapter.data import check_data
from llama_index.tuning.embeddings.full.data import split
from llama_index.tuning.embeddings.full.model import (
    KIND,
    check_device,
    load_model,
    loading_bars,
    write_model,
)
from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
from llama_index.tuning.embeddings.full.settings import (
    FROM_PAIRS,
    FROM_SCORES,
    Loss,
    Prompts,
    Schedule,
    Settings,
    check_loss,
    loss_name,
    set_prompts,
)
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.hf.checkpoints import beside, held
from llama_index.tuning.hf.processes import wait_for_all
from llama_index.tuning.hf.tracking import named_trackers, trainer_callbacks
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.vectors.learned import remember

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from transformers import TrainerCallback

    from llama_index.tuning.embeddings.full.run import Tuning


class SentenceTransformersFinetuneEngine(FinetuneEngine, BaseEmbeddingFinetuneEngine):
    """Tunes an embedding model's own weights: more gain than an adapter, for a re-indexing.

    Queries are split by relevant document: most are trained on, a tenth decides which checkpoint
    is kept (and how it is merged with the base), and the report is about others: `val_dataset`,
    or a part that is held out. With `options.refit`, the default without `val_dataset`, the model
    that is saved was trained once more on all of them.

    With `torchrun --nproc-per-node N script.py` the same script trains on N GPUs or processes:
    the same batches, one report, one saved model.

    Args:
        dataset: labelled queries. `None` learns from `unlabelled` alone.
        model_id: a sentence-transformers model or encoder, by Hugging Face name or folder.
        model_output_path: folder of the tuned model and its report, replaced when the run
            succeeds; checkpoints lie beside it. If the gate keeps the base, the folder holds a
            copy of the base, so that `HuggingFaceEmbedding(folder)` loads in any case, and the
            tuned model lies in `candidate/`. `None` writes nothing.
        batch_size: pairs in a step, of all processes together; each other pair's document is a
            negative.
        val_dataset: queries to measure on, none of them in `dataset`, over a corpus of their own.
        loss: by name (see `LossName`), as an object, or a function that makes one of the model;
            multiple negatives ranking by default.
        epochs: passes over the training pairs.
        show_progress_bar: the old name of `show_progress`.
        evaluation_steps: steps between two looks at the deciding queries.
        use_all_docs: each relevant document of a query makes a pair, or the first alone.
        trust_remote_code: run code that a model brings along.
        device: where to train; a GPU by default, if there is one.
        save_checkpoints: keep the checkpoints, in `<model_output_path>.checkpoints`.
        resume_from_checkpoint: go on from the last whole one there, if there is any.
        checkpoint_save_steps: with `save_checkpoints`, steps between two more of them.
        checkpoint_save_total_limit: with `save_checkpoints`, how many are kept; 0 is all.
        options: how to train; see `SentenceTransformersOptions`.
        unlabelled: documents of the corpus that the app searches (nodes, or a dictionary
            id → text). Their sentences teach too, without labels and without an LLM.
        scores: a teacher's scores (a cross-encoder's, an LLM's) of candidates for the training
            queries; `MarginMSELoss` and `DistillKLDivLoss` follow them, `CoSENTLoss` may.
        vector_cache: a file that keeps the base's vectors between runs.
        callbacks: of transformers' trainer; with a refit they see both trainings.
        report_to: trackers of transformers that log the training, such as `"tensorboard"` (its
            files lie beside the output folder), `"mlflow"` or `"wandb"`.
        accept: `"gain"`, or `"always"` to take the tuned model whatever was measured.
        show_progress: show bars.

    Example:
        >>> engine = SentenceTransformersFinetuneEngine(
        ...     dataset, "BAAI/bge-small-en-v1.5", "tuned_model", batch_size=16
        ... )  # doctest: +SKIP
        >>> print(engine.finetune())  # doctest: +SKIP
        >>> Settings.embed_model = engine.get_finetuned_model()  # doctest: +SKIP
    """

    libraries = ("sentence-transformers", "transformers", "torch", "peft", "numpy")
    reopens = True

    @plain_arguments
    def __init__(
        self,
        dataset: RetrievalDataset | Any | None,
        model_id: str = "BAAI/bge-small-en",
        model_output_path: str | PathLike[str] | None = "tuned_embedding_model",
        batch_size: int = 10,
        val_dataset: RetrievalDataset | Any | None = None,
        loss: Loss | None = None,
        epochs: int = 2,
        show_progress_bar: bool = False,
        evaluation_steps: int = 50,
        use_all_docs: bool = True,
        trust_remote_code: bool = False,
        device: Any | None = None,
        save_checkpoints: bool = False,
        resume_from_checkpoint: bool = False,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
        *,
        options: SentenceTransformersOptions | None = None,
        unlabelled: Mapping[str, str] | Sequence[BaseNode] | Sequence[str] | None = None,
        scores: RelevanceDataset | Any | None = None,
        vector_cache: str | PathLike[str] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        report_to: str | Sequence[str] = (),
        accept: Accept = "gain",
        show_progress: bool = False,
    ) -> None:
        check_accept(accept)
        check_loss(loss)
        self.dataset, self.val_dataset = dataset, val_dataset
        self.unlabelled, self.scores = unlabelled, scores
        self.model_id = model_id
        self.model_output_path = output_path(model_output_path)
        self.batch_size = whole_number("batch_size", batch_size, 2)
        self.epochs = whole_number("epochs", epochs, 1)
        self.loss = loss
        self.evaluation_steps = whole_number("evaluation_steps", evaluation_steps, 1)
        self.use_all_docs, self.trust_remote_code = use_all_docs, trust_remote_code
        self.device = device_or_none("device", device)
        self.save_checkpoints = save_checkpoints
        self.resume_from_checkpoint = resume_from_checkpoint
        if self.model_output_path is None and (save_checkpoints or resume_from_checkpoint):
            raise ValueError("checkpoints lie beside model_output_path, which is None")
        self.checkpoint_save_steps = whole_number("checkpoint_save_steps", checkpoint_save_steps, 1)
        self.checkpoint_save_total_limit = whole_number(
            "checkpoint_save_total_limit", checkpoint_save_total_limit, 0
        )
        self.options = check_options(options, SentenceTransformersOptions)
        self.vector_cache = vector_cache
        self.callbacks = list(items_of("callbacks", callbacks, "callbacks"))
        self.report_to = named_trackers(report_to)
        self.accept = accept
        self.show_progress = show_progress or show_progress_bar
        self._checkpoints = Path()  # each run says where
        self._callbacks: list[Any] = []

    def _check(self) -> None:
        check_model_id(self.model_id)
        self._check_loss()
        check_device(self.device)
        self._callbacks = trainer_callbacks(self.callbacks, self.report_to, self.model_output_path)
        if self.batch_size % process_count():
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of the {process_count()} "
                "processes that train together"
            )
        if self.model_output_path is None and process_count() > 1:
            raise ValueError("model_output_path must be a folder if several processes train")
        data = check_data(self.dataset, self.unlabelled, self.val_dataset, self.options)
        self._parts = split(data, self.options)
        refuse_learnt_by(self.model_id, self._parts.measured.queries.values())

    @contextlib.contextmanager
    def _output_held(self) -> Iterator[None]:
        """Checkpoints stay until the output is written; then the model in memory may go."""
        with (
            super()._output_held(),
            beside(self.model_output_path, "tuned_embedding_model.") as self._checkpoints,
            held(self._checkpoints, keep=self.save_checkpoints),
            loading_bars(self.show_progress),
        ):
            yield
        wait_for_all()
        if self.model_output_path is not None:
            del self._tuning
            self._in_memory = False

    def _tune(self, clock: Clock) -> FinetuneReport:
        from llama_index.tuning.embeddings.full.run import Tuning

        tuning = Tuning(self._settings(), self._parts, clock)
        tuning.train()
        tuning.merge()
        report = tuning.report()
        self._tuning: Tuning = tuning
        return report

    def _tuned(self, **model_kwargs: Any) -> BaseEmbedding:
        """Takes arguments of `HuggingFaceEmbedding`, such as `embed_batch_size`."""
        if not self._in_memory:
            return self._served(str(self.model_output_path), **model_kwargs)
        with tempfile.TemporaryDirectory() as place:  # it only loads from a folder
            folder = Path(place) / "tuned_embedding_model"
            folder.mkdir()
            self._write(folder, self._finished())
            remember(str(folder), self._tuning.learned("the embedding model tuned in memory"))
            return self._served(str(folder), **model_kwargs)

    def _base(self, **model_kwargs: Any) -> BaseEmbedding:
        """Takes the same."""
        return self._served(self.model_id, **model_kwargs)

    def _served(self, name: str, **model_kwargs: Any) -> BaseEmbedding:
        """A model as the app uses it, with the prompts that it was trained with."""
        if self._in_memory:
            return self._tuning.settings.embedding(name, self._tuning.prompts, **model_kwargs)
        assert self.model_output_path is not None
        config = read_config(self.model_output_path, KIND)
        prompts = Prompts(config["query_prompt"], config["document_prompt"])
        return self._settings().embedding(name, prompts, **model_kwargs)

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        tuning = self._tuning
        write_model(folder, tuning.model, self.model_id, tuning.prompts, report)
        tuning.learned("the embedding model").write(folder)

    def _write_base(self, folder: Path, report: FinetuneReport) -> None:
        base = load_model(self.model_id, self.device, self.trust_remote_code)
        set_prompts(base, self._tuning.prompts)
        write_model(folder, base, self.model_id, self._tuning.prompts, report)

    def _check_loss(self) -> None:
        """The data that the loss learns from is there."""
        name = loss_name(self.loss)
        if name in FROM_SCORES and self.scores is None:
            raise ValueError(f"loss {name} follows a teacher: pass scores=")
        if self.scores is not None and name in FROM_PAIRS:
            raise ValueError(f"loss {name} learns from pairs; scores= would not be used")
        if self.scores is not None and self.unlabelled is not None:
            raise ValueError("scores= says all that is learnt; unlabelled= would not be used")
        needs = name == "TripletLoss" or (name == "CoSENTLoss" and self.scores is None)
        if needs and not self._settings().hard_negatives:
            raise ValueError(f"{name} needs options.hard_negatives >= 1, or a MinedDataset")
        if self.options.guide is not None:
            if not (isinstance(self.loss, str) and "GIST" in self.loss):
                raise ValueError(f"loss {name} asks no guide; options.guide would not be used")
            check_model_id(self.options.guide)

    def _settings(self) -> Settings:
        return Settings(
            model_id=self.model_id,
            checkpoints=self._checkpoints,
            device=str(self.device) if self.device is not None else None,
            trust_remote_code=self.trust_remote_code,
            loss=self.loss,
            use_all_docs=self.use_all_docs,
            scores=None if self.scores is None else RelevanceDataset.coerce(self.scores),
            negatives=getattr(self.dataset, "negatives", None),
            vector_cache=self.vector_cache,
            callbacks=self._callbacks,
            accept=self.accept,
            options=self.options,
            schedule=Schedule(
                batch_size=self.batch_size,
                epochs=self.epochs,
                evaluation_steps=self.evaluation_steps,
                save_checkpoints=self.save_checkpoints,
                resume=self.resume_from_checkpoint,
                save_steps=self.checkpoint_save_steps,
                save_limit=self.checkpoint_save_total_limit,
                show_progress=self.show_progress,
            ),
        )
