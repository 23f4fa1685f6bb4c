"""A cross-encoder as an app's re-ranker: fused with the retriever's score, and calibrated."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore
from numpy.typing import ArrayLike

from llama_index.tuning import artifacts
from llama_index.tuning._arrays import Float64
from llama_index.tuning._checks import number, plain_arguments, whole_number
from llama_index.tuning.artifacts import PathLike
from llama_index.tuning.datasets.records import RelevanceList
from llama_index.tuning.errors import ArtifactError, TuningError
from llama_index.tuning.hf.cross_encoders import load_cross_encoder, predict
from llama_index.tuning.hf.processes import no_bars
from llama_index.tuning.rerankers.light.features import FEATURES, LinearRanker, standard_scores
from llama_index.tuning.rerankers.light.model import LightReranker
from llama_index.tuning.rerankers.serving import CalibratedReranker, node_scores, node_text
from llama_index.tuning.text.statistics import Statistics
from llama_index.tuning.text.words import Analyzer
from llama_index.tuning.vectors.learned import Learned

logger = logging.getLogger(__name__)

KIND = "cross_encoder"
PARTNER = "light_reranker"
CALIBRATION = ("calibration", "thresholds", "precisions", "errors")


class TunedReranker(CalibratedReranker):
    """Orders nodes by a cross-encoder, mixed with a light re-ranker or the retriever's score.

    Made by `CrossEncoderFinetuneEngine`; the folder that it saves also loads in LlamaIndex's own
    `SentenceTransformerRerank`. A new score is the probability that a node is relevant, where
    the re-ranker was calibrated.

    Args:
        model: a folder or name of a cross-encoder, or anything with its `predict`.
        top_n: nodes to return; all by default.
        min_score: leave out nodes with a lower probability.
        fusion_weight: share of the other score, 0 (none) to 1 (nothing else), both in standard
            deviations of the list; what was learnt by default.
        partner: the light re-ranker that gives the other score; the retriever's score by default.
        batch_size: pairs a batch.
        device: what the model runs on; chosen by sentence-transformers by default.
        trust_remote_code: run code that a model brings along.
        keep_retrieval_score: write the retriever's score to the metadata as `retrieval_score`;
            not inside a `TunedRetriever`.
        callback_manager: for LlamaIndex's callbacks.

    Raises:
        MissingExtraError: sentence-transformers is not installed.

    Example:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> class Length:
        ...     def predict(self, pairs, **_):
        ...         return [len(text) for _, text in pairs]
        >>> nodes = [NodeWithScore(node=TextNode(text=t), score=0.5) for t in ("a", "longer")]
        >>> TunedReranker(Length(), top_n=1).postprocess_nodes(nodes, query_str="?")[0].text
        'longer'
    """

    fusion_weight: float = Field(default=0.0, description="Share of the other score.")
    batch_size: int = Field(default=32, description="Pairs a batch.")

    _model: Any = PrivateAttr()
    _partner: LightReranker | None = PrivateAttr()
    _details: dict[str, Any] = PrivateAttr()

    @plain_arguments
    def __init__(
        self,
        model: Any,
        *,
        top_n: int | None = None,
        min_score: float | None = None,
        fusion_weight: float | None = None,
        partner: LightReranker | None = None,
        batch_size: int = 32,
        device: str | None = None,
        trust_remote_code: bool = False,
        keep_retrieval_score: bool = True,
        callback_manager: CallbackManager | None = None,
        calibration: LinearRanker | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        if fusion_weight is not None:
            number("fusion_weight", fusion_weight, 0, 1)
        batch_size = whole_number("batch_size", batch_size, 1)
        if partner is not None and not isinstance(partner, LightReranker):
            raise TypeError(f"partner must be a LightReranker, got {type(partner).__name__}")
        super().__init__(
            calibration or LinearRanker.fixed("not calibrated"),
            top_n=top_n,
            min_score=min_score,
            keep_retrieval_score=keep_retrieval_score,
            callback_manager=callback_manager,
            fusion_weight=fusion_weight or 0.0,
            batch_size=batch_size,
        )
        self._model = (
            model
            if hasattr(model, "predict")
            else load_cross_encoder(model, device=device, trust_remote_code=trust_remote_code)
        )
        self._partner = partner
        self._details = details or {}

    @classmethod
    def class_name(cls) -> str:
        return "TunedReranker"

    def _origin(self) -> Iterator[tuple[str, Any]]:
        yield "model", str(self._details.get("model_id", type(self._model).__name__))
        if self.fusion_weight:
            yield "fusion_weight", round(self.fusion_weight, 3)

    @property
    def model(self) -> Any:
        """The cross-encoder."""
        return self._model

    @property
    def partner(self) -> LightReranker | None:
        """The light re-ranker whose score is mixed in."""
        return self._partner

    @property
    def analyzer(self) -> Analyzer | None:
        """What splits texts into words for the light re-ranker."""
        return None if self._partner is None else self._partner.analyzer

    @property
    def details(self) -> dict[str, Any]:
        """How it came about, as the engine noted it."""
        return dict(self._details)

    @property
    def learned(self) -> Learned | None:
        """The questions that it has learnt, if it knows them."""
        return Learned.of_details("the cross-encoder", self._details)

    def raw_scores(
        self, query: str, nodes: Sequence[NodeWithScore], *, statistics: Statistics | None = None
    ) -> Float64:
        weight = self.fusion_weight
        if weight == 0:
            return self._logits(query, nodes)
        if self._partner is None:
            others = np.array(node_scores(nodes))
        else:
            others = self._partner.raw_scores(query, nodes, statistics=statistics)
        if weight == 1 and np.isfinite(others).any():  # the transformer would change nothing
            return fuse(np.zeros(len(nodes)), others, weight)
        return fuse(self._logits(query, nodes), others, weight)

    def _logits(self, query: str, nodes: Sequence[NodeWithScore]) -> Float64:
        return predict(self._model, [(query, node_text(item)) for item in nodes], self.batch_size)

    def write(self, folder: Path) -> None:
        if not hasattr(self._model, "save_pretrained"):
            kind = type(self._model).__name__
            raise TuningError(f"a TunedReranker of {kind} is not saved: it has no save_pretrained")
        arrays = {name: array.tolist() for name, array in self._calibration.tensors().items()}
        kept = {name: arrays[name] for name in CALIBRATION}
        config = {
            "fusion_weight": self.fusion_weight,
            "partner": self._partner is not None,
            "details": self._details,
            **kept,
        }
        artifacts.write_component(folder, KIND, config, {}, "")
        with no_bars():
            self._model.save_pretrained(str(folder))
        card = _CARD.format(reason=self._details.get("reason", ""))
        artifacts.write_card(folder, card, "sentence-transformers", pipeline_tag="text-ranking")
        if self._partner is not None:
            self._partner.save(folder / PARTNER)

    @classmethod
    @plain_arguments
    def load(cls, path: PathLike, **arguments: Any) -> TunedReranker:
        """Load what `save` wrote.

        Args:
            path: the folder.
            **arguments: those of the constructor, such as `top_n` and `device`.

        Raises:
            ArtifactError: no cross-encoder of this package, or a damaged one.
        """
        config = artifacts.read_config(path, KIND)
        try:
            saved = {name: np.asarray(config[name], np.float32) for name in CALIBRATION}
            learnt = float(config["fusion_weight"])
        except (KeyError, TypeError, ValueError) as exc:
            raise ArtifactError(f"{path}: the settings are damaged: {exc!r}") from exc
        details = config.get("details") or {}
        if not isinstance(details, dict):
            raise ArtifactError(f"{path}: details must be a JSON object, got {details!r}")
        if details.get("accepted") is False:
            logger.warning(
                "%s holds the cross-encoder, but the gate kept the base: %s",
                path,
                details.get("reason", "no reason recorded"),
            )
        plain = LinearRanker.fixed("calibration")
        partner = LightReranker.load(Path(path) / PARTNER) if config.get("partner") else None
        calibration = LinearRanker.from_tensors(FEATURES, {**plain.tensors(), **saved}, {})
        artifacts.check_intact(path)
        return cls(
            str(Path(path)),
            calibration=calibration,
            details=details,
            **{"fusion_weight": learnt, "partner": partner, **arguments},
        )


def list_logits(model: Any, lists: Sequence[RelevanceList], batch_size: int) -> list[Float64]:
    """The model's outputs for each candidate of each list."""
    pairs = [(item.query, c.text) for item in lists for c in item.candidates]
    scores = predict(model, pairs, batch_size) if pairs else np.zeros(0)
    ends = np.cumsum([len(item.candidates) for item in lists])
    return np.split(scores, ends[:-1])


def fuse(logits: Float64, retrieval: ArrayLike, weight: float) -> Float64:
    """Both scores in standard deviations of the list, mixed; a missing one counts as the least."""
    given = np.asarray(retrieval, dtype=np.float64)
    known = np.isfinite(given)
    if not known.any() or weight == 0:
        return logits
    given = np.where(known, given, given[known].min())
    return (1 - weight) * standard_scores(logits) + weight * standard_scores(given)


_CARD = """# A tuned cross-encoder

It orders what a retriever of LlamaIndex found, fused with that order as far as it helped.

{reason}

```python
from llama_index.tuning import TunedReranker

reranker = TunedReranker.load("this/folder", top_n=5)
```

Written by llama-index-tuning; `tuning.json` holds options, data fingerprint and scores.
Its scores alone: `CrossEncoder("this/folder")` of sentence-transformers.
"""
