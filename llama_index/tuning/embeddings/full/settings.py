"""What a run was called with: prompts, the loss, and all other arguments as one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
from llama_index.tuning.gate import Accept

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding


class Prompts(NamedTuple):
    """Put before each query and each document; empty for nothing."""

    query: str
    document: str

    def columns(self, names: list[str]) -> dict[str, str]:
        """Column of the training rows → its prompt, if it has one."""
        found = {name: self.query if name == "anchor" else self.document for name in names}
        return {name: prompt for name, prompt in found.items() if prompt and name != "label"}


def prompts_of(model: Any, model_id: str, options: SentenceTransformersOptions) -> Prompts:
    """The options', else the model's own, else those that LlamaIndex knows for its name."""
    from llama_index.embeddings.huggingface.utils import (
        get_query_instruct_for_model_name,
        get_text_instruct_for_model_name,
    )

    own = {name: text for name, text in model.prompts.items() if text}
    query = options.query_prompt
    if query is None:
        query = own.get("query") or get_query_instruct_for_model_name(model_id) or ""
    document = options.document_prompt
    if document is None:
        named = (own[name] for name in ("document", "passage", "text") if name in own)
        document = next(named, "") or get_text_instruct_for_model_name(model_id) or ""
    return Prompts(query, document)


def set_prompts(model: Any, prompts: Prompts) -> None:
    """Under the names that sentence-transformers and LlamaIndex look for."""
    model.prompts = {
        **model.prompts,
        "query": prompts.query,
        "document": prompts.document,
        "text": prompts.document,
    }


LossName = Literal[
    "MultipleNegativesRankingLoss",
    "CachedMultipleNegativesRankingLoss",
    "GISTEmbedLoss",
    "CachedGISTEmbedLoss",
    "TripletLoss",
    "CoSENTLoss",
    "MarginMSELoss",
    "DistillKLDivLoss",
]
Loss = LossName | Callable[[Any], Any]
"""A name, a loss object, or a function that makes one of the model."""

DEFAULT: LossName = "MultipleNegativesRankingLoss"
FROM_SCORES = ("MarginMSELoss", "DistillKLDivLoss")
FROM_PAIRS = tuple(name for name in get_args(LossName) if name not in (*FROM_SCORES, "CoSENTLoss"))
TEMPERATURE = 0.05
"""Of the softmax over cosines, and over scores from 0 to 1: the ranking losses' scale of 20."""


def loss_name(loss: Loss | None) -> str:
    """The name by which rows are chosen and reports speak of it."""
    if loss is None:
        return DEFAULT
    if isinstance(loss, str):
        return loss
    if _is_object(loss):
        wrapped = getattr(loss, "loss", None)  # of a MatryoshkaLoss or AdaptiveLayerLoss
        return loss_name(wrapped) if _is_object(wrapped) else type(loss).__name__
    return getattr(loss, "__name__", type(loss).__name__)


def check_loss(loss: Loss | None) -> None:
    """A known name, or something that can be called.

    Raises:
        ValueError: an unknown name.
        TypeError: something else.
    """
    if loss is None or (isinstance(loss, str) and loss in get_args(LossName)):
        return
    if isinstance(loss, str):
        known = ", ".join(get_args(LossName))
        raise ValueError(f"unknown loss {loss!r}; choose one of: {known}")
    if not callable(loss):
        raise TypeError(
            "loss must be a name, a loss object or a function that makes one of the model, "
            f"got {type(loss).__name__}"
        )


def make_loss(
    model: Any,
    loss: Loss | None,
    options: SentenceTransformersOptions,
    guide: Callable[[], Any],
    *,
    together: bool = False,
) -> Any:
    """The loss on this model, within a Matryoshka loss if dimensions are asked for.

    Args:
        model: the SentenceTransformer that is trained.
        loss: see `Loss`.
        options: mini-batch size of cached losses, Matryoshka dimensions.
        guide: makes the guide of a GIST loss.
        together: whether several processes train, whose batches are then one for the loss.
    """
    from sentence_transformers.sentence_transformer import losses

    from llama_index.tuning.hf.trainer import on_model

    if isinstance(loss, str) or loss is None:
        made = _named(loss or DEFAULT, model, options, guide, together)
    elif _is_object(loss):
        made = on_model(loss, model)
    else:
        made = loss(model)
        if not _is_object(made):
            raise TypeError(f"loss gave a {type(made).__name__} for the model, not a loss")
    if options.matryoshka_dims and not isinstance(made, losses.MatryoshkaLoss):
        made = losses.MatryoshkaLoss(model, made, matryoshka_dims=list(options.matryoshka_dims))
    return made


def _named(
    name: str,
    model: Any,
    options: SentenceTransformersOptions,
    guide: Callable[[], Any],
    together: bool,
) -> Any:
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import pairwise_cos_sim

    arguments: dict[str, Any] = {}
    if name.startswith("Cached"):
        arguments["mini_batch_size"] = options.mini_batch_size
    if "GIST" in name:
        arguments["guide"] = guide()
    if together and ("GIST" in name or "Ranking" in name):
        arguments["gather_across_devices"] = True
    if name in FROM_SCORES:
        arguments["similarity_fct"] = pairwise_cos_sim
    if name == "DistillKLDivLoss":
        arguments["temperature"] = TEMPERATURE
    if name == "TripletLoss":
        arguments["distance_metric"] = losses.TripletDistanceMetric.COSINE
        arguments["triplet_margin"] = 0.3  # of a distance between 0 and 2
    return getattr(losses, name)(model, **arguments)


def _is_object(loss: Any) -> bool:
    """A torch module, not a class of them; told without importing torch."""
    return hasattr(loss, "forward") and not isinstance(loss, type)


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
        checkpoints: the folder for the run's checkpoints.
        negatives: hard negatives that the dataset brought along, by query id.
    """

    model_id: str
    checkpoints: Path
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
    def refit_checkpoints(self) -> Path:
        """The folder for checkpoints of the training on all pairs."""
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
