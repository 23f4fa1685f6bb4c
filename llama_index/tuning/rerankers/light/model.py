"""The light re-ranker that an app uses: no transformer, milliseconds, NumPy alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from llama_index.tuning import artifacts
from llama_index.tuning._arrays import Float64
from llama_index.tuning._checks import plain_arguments
from llama_index.tuning.artifacts import PathLike
from llama_index.tuning.datasets.checks import check_nodes
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.rerankers.light.features import LinearRanker, candidate_features
from llama_index.tuning.rerankers.serving import (
    CalibratedReranker,
    metadata_text,
    node_scores,
    node_text,
)
from llama_index.tuning.text.statistics import CodesMemory, Statistics, WordStatistics
from llama_index.tuning.text.words import Analyzer
from llama_index.tuning.vectors.learned import Learned

logger = logging.getLogger(__name__)

KIND = "light_reranker"
STATISTICS = "words.safetensors"
DEFAULT = Path(__file__).parent / "_default"
CACHED_TEXTS = 20_000


class LightReranker(CalibratedReranker):
    """Orders an app's nodes anew by what it already has: scores, ranks and shared words.

    Works untuned (`LightReranker()`), with weights that come with the package; better tuned on
    the app's own questions by `LightRerankerFinetuneEngine`. Each node's new score is the
    probability that it is relevant. The retriever's score moves to its metadata.

    Args:
        ranker: the weights; those that come with the package by default.
        analyzer: splits texts into words; English by default.
        statistics: how common each word is in the app's corpus (`with_nodes` finds out); by
            default the nodes at hand are counted.
        top_n: nodes to return; all by default.
        min_score: leave out nodes with a lower probability (`min_score_for` finds one).
        keep_retrieval_score: write the retriever's score to the metadata as `retrieval_score`;
            not inside a `TunedRetriever`.
        callback_manager: for LlamaIndex's callbacks.

    Example:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> nodes = [NodeWithScore(node=TextNode(text=t), score=0.5) for t in ("Fees", "Refunds")]
        >>> reranker = LightReranker(top_n=1)
        >>> reranker.postprocess_nodes(nodes, query_str="How do I get a refund?")[0].text
        'Refunds'
    """

    fingerprint: str = Field(description="Changes with the weights.")

    _analyzer: Analyzer = PrivateAttr()
    _statistics: WordStatistics | None = PrivateAttr()
    _codes: CodesMemory = PrivateAttr()

    @plain_arguments
    def __init__(
        self,
        ranker: LinearRanker | None = None,
        analyzer: Analyzer | None = None,
        statistics: WordStatistics | None = None,
        *,
        top_n: int | None = None,
        min_score: float | None = None,
        keep_retrieval_score: bool = True,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if ranker is not None and not isinstance(ranker, LinearRanker):
            raise TypeError(
                f"ranker must be a LinearRanker, got {ranker!r}; a saved re-ranker is read by "
                "LightReranker.load(path), and top_n= goes by name"
            )
        if analyzer is not None and not isinstance(analyzer, Analyzer):
            raise TypeError(f"analyzer must be an Analyzer, got {analyzer!r}; Analyzer('german')")
        _checked(statistics)
        ranker = ranker or default_ranker()
        super().__init__(
            ranker,
            top_n=top_n,
            min_score=min_score,
            keep_retrieval_score=keep_retrieval_score,
            callback_manager=callback_manager,
            fingerprint=ranker.fingerprint,
        )
        self._analyzer = analyzer or Analyzer()
        self._statistics = statistics
        self._codes = CodesMemory(self._analyzer.codes, CACHED_TEXTS)

    @classmethod
    def class_name(cls) -> str:
        return "LightReranker"

    def _origin(self) -> Iterator[tuple[str, Any]]:
        yield "weights", str(self.details.get("name", "unnamed"))
        yield "language", self._analyzer.language

    @property
    def ranker(self) -> LinearRanker:
        """The weights."""
        return self._calibration

    @property
    def analyzer(self) -> Analyzer:
        """What splits texts into words."""
        return self._analyzer

    @property
    def statistics(self) -> WordStatistics | None:
        """How common each word is; where None, the nodes at hand are counted."""
        return self._statistics

    @property
    def details(self) -> dict[str, Any]:
        """How it came about, as the engine noted it."""
        return dict(self.ranker.details)

    @property
    def learned(self) -> Learned | None:
        """The questions that it has learnt, if it knows them."""
        return Learned.of_details("the light re-ranker", self.ranker.details)

    def with_nodes(self, nodes: Sequence[BaseNode]) -> LightReranker:
        """The same re-ranker with the words of this corpus counted; it needs no labels."""
        check_nodes(nodes)
        texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
        return self.with_statistics(WordStatistics.of(self._analyzer.codes(texts)))

    def with_statistics(self, statistics: WordStatistics) -> LightReranker:
        """The same re-ranker with these word counts."""
        other = self.model_copy()
        other._statistics = _checked(statistics)
        return other

    def raw_scores(
        self, query: str, nodes: Sequence[NodeWithScore], *, statistics: Statistics | None = None
    ) -> Float64:
        documents = self._codes([node_text(item) for item in nodes])
        metadata = [
            self._codes([metadata_text(item.metadata.get(key)) for item in nodes])
            for key in self.ranker.metadata_keys
        ]
        known = self._statistics if statistics is None else statistics
        if known is None:
            known = WordStatistics.of(documents)
        words = self._analyzer.query(query)
        features = candidate_features(words, documents, node_scores(nodes), known, metadata)
        return self.ranker.scores(features)

    def write(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        statistics = self._statistics
        counted = statistics and {
            "documents": statistics.documents,
            "mean_length": statistics.mean_length,
        }
        config = {
            "features": list(self.ranker.features),
            "analyzer": self._analyzer.to_dict(),
            "statistics": counted,
            "details": dict(self.ranker.details),
        }
        card = _CARD.format(reason=self.ranker.details.get("reason", ""))
        artifacts.write_component(folder, KIND, config, self.ranker.tensors(), card)
        if statistics is not None:
            save_file(statistics.to_arrays(), folder / STATISTICS)

    @classmethod
    @plain_arguments
    def load(cls, path: PathLike, **arguments: Any) -> LightReranker:
        """Load what `save` wrote.

        Args:
            path: the folder.
            **arguments: those of the constructor after `statistics`, such as `top_n`.

        Raises:
            ArtifactError: no light re-ranker, a damaged one, or one of another version.
        """
        config = artifacts.read_config(path, KIND)
        details = config.get("details") or {}
        if not isinstance(details, dict):
            raise ArtifactError(f"{path}: details must be a JSON object, got {details!r}")
        ranker = LinearRanker.from_tensors(
            config.get("features"), artifacts.read_tensors(path), details
        )
        try:
            analyzer = Analyzer(**(config.get("analyzer") or {}))
        except (TypeError, ValueError) as exc:
            raise ArtifactError(f"{path}: the analyzer's settings are damaged: {exc}") from exc
        statistics = None
        if config.get("statistics"):
            arrays = artifacts.read_arrays(path, STATISTICS)
            statistics = WordStatistics.from_arrays(config["statistics"], arrays)
        artifacts.check_intact(path)
        if details.get("accepted") is False:
            logger.warning(
                "%s holds the base, which the gate kept when it was tuned: %s",
                path,
                details.get("reason", "no reason recorded"),
            )
        return cls(ranker, analyzer, statistics, **arguments)


def _checked(statistics: WordStatistics | None) -> WordStatistics | None:
    if statistics is not None and not isinstance(statistics, WordStatistics):
        raise TypeError(
            f"statistics must be WordStatistics, got {statistics!r}; with_nodes(nodes) counts them"
        )
    return statistics


@lru_cache(maxsize=1)
def default_ranker() -> LinearRanker:
    """The weights that come with the package."""
    config = artifacts.read_config(DEFAULT, KIND)
    return LinearRanker.from_tensors(
        config["features"], artifacts.read_tensors(DEFAULT), config["details"]
    )


_CARD = """# A light re-ranker

It orders what a retriever of LlamaIndex found, from the words that question and documents share.

{reason}

```python
from llama_index.tuning import LightReranker

reranker = LightReranker.load("this/folder", top_n=5)
```

Written by llama-index-tuning; `tuning.json` holds options, data fingerprint and scores.
`words.safetensors`, where it is, counts how many documents hold each word, by hashes of words.
"""
