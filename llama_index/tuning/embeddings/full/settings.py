"""The engine's arguments as one object that its parts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.embeddings.full.losses import Loss, loss_name
from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
from llama_index.tuning.embeddings.full.prompts import Prompts
from llama_index.tuning.gate import Accept

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Time and checkpoints; see the engine's arguments."""

    batch_size: int
    epochs: int
    evaluation_steps: int
    save_checkpoints: bool
    resume: bool
    save_steps: int
    save_limit: int
    show_progress: bool


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything but the data; see the engine's arguments.

    Attributes:
        negatives: hard negatives that the dataset brought along, by query id.
    """

    model_id: str
    output: Path
    device: str | None
    trust_remote_code: bool
    loss: Loss | None
    use_all_docs: bool
    scores: RelevanceDataset | None
    negatives: Mapping[str, Sequence[str]] | None
    vector_cache: str | PathLike[str] | None
    callbacks: Sequence[Any]
    accept: Accept
    options: SentenceTransformersOptions
    schedule: Schedule

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return Path(f"{self.output}.checkpoints")

    @property
    def refit_checkpoints(self) -> Path:
        """Those of the training on all pairs."""
        return self.checkpoints / "refit"

    @property
    def hard_negatives(self) -> int:
        """For each query."""
        if self.options.hard_negatives is None:
            return int(self.negatives is not None)
        return self.options.hard_negatives

    def embedding(self, name: str, prompts: Prompts, **arguments: Any) -> HuggingFaceEmbedding:
        """A model as the app uses it, with the prompts that it was trained with."""
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding

        settings = {
            "query_instruction": prompts.query or None,
            "text_instruction": prompts.document or None,
            "device": self.device,
            "trust_remote_code": self.trust_remote_code,
        }
        return HuggingFaceEmbedding(name, **{**settings, **arguments})

    def described(self) -> dict[str, Any]:
        """What decides the weights, as plain values."""
        return {
            **asdict(self.options),
            "loss": loss_name(self.loss),
            "batch_size": self.schedule.batch_size,
            "epochs": self.schedule.epochs,
            "evaluation_steps": self.schedule.evaluation_steps,
            "use_all_docs": self.use_all_docs,
        }
