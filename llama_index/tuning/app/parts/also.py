"""What `also=` names: re-rankers that are there, and parts that are tuned on demand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import check_model_id, listed
from llama_index.tuning.app.ladder.adapters import Adapters
from llama_index.tuning.app.ladder.search import Search
from llama_index.tuning.app.parts.learn import (
    CROSS_ENCODER_BASE,
    CorpusSide,
    Train,
    TrainedPart,
    train_cross_encoder,
    train_embedding_model,
    train_query_encoder,
)
from llama_index.tuning.app.parts.served import (
    CORPUS_SIDE,
    CROSS_ENCODER,
    EMBEDDING_MODEL,
    NAMES,
    QUERY_ENCODER,
    REINDEXED,
)
from llama_index.tuning.app.questions import LEAST, Questions
from llama_index.tuning.app.see import SeenApp
from llama_index.tuning.hf.cross_encoders import cross_encoder_class

Part = CorpusSide | TrainedPart


@dataclass(frozen=True, eq=False)
class Also:
    """What is tried besides the usual steps.

    Attributes:
        rerankers: name → a re-ranker that was given.
        names: optional part → the model that it starts from; empty for the usual one.
        keep_index: whether parts that give the documents other vectors are left out.
    """

    rerankers: dict[str, BaseNodePostprocessor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    keep_index: bool = False

    @classmethod
    def of(cls, also: Iterable[str | BaseNodePostprocessor], *, keep_index: bool) -> Also:
        """Re-rankers by the name of their class, and parts as `name` or `name=model`."""
        rerankers: dict[str, BaseNodePostprocessor] = {}
        names: dict[str, str] = {}
        for item in listed("also", also, "names and node postprocessors"):
            if isinstance(item, BaseNodePostprocessor):
                name = type(item).__name__
                alike = sum(type(other).__name__ == name for other in rerankers.values())
                rerankers[f"{name} {alike + 1}" if alike else name] = item
                continue
            if not isinstance(item, str):
                kind = type(item).__name__
                raise TypeError(f"also must be names and node postprocessors, got a {kind}")
            name, _, model = item.partition("=")
            if name not in NAMES:
                raise ValueError(f"unknown part {name!r} in also; choose of: {', '.join(NAMES)}")
            if model and name != CROSS_ENCODER:
                raise ValueError(f"also: {name} starts from the app's own model, got {model!r}")
            names[name] = model
        return cls(rerankers, names, keep_index)

    def check(self, seen: SeenApp) -> None:
        """The app has what a named part is tuned from.

        Raises:
            TypeError: it has not.
            ArtifactError: the folder of the model to start from is not there.
            MissingExtraError: sentence-transformers is not installed.
        """
        for name in self.names:
            if name == CROSS_ENCODER:
                cross_encoder_class()  # may not be installed
                check_model_id(self.names[name] or CROSS_ENCODER_BASE)
                continue
            retriever, model = seen.retriever, seen.embed_model
            mode = getattr(retriever, "_vector_store_query_mode", None)
            if not isinstance(retriever, VectorIndexRetriever) or model is None:
                kind = type(retriever).__name__
                raise TypeError(f"also={name!r} needs a retriever of vectors, got a {kind}")
            if mode != VectorStoreQueryMode.DEFAULT:
                raise TypeError(f"also={name!r} needs a search by similarity alone, got {mode}")
            local = model.class_name() == "HuggingFaceEmbedding"
            if name in (EMBEDDING_MODEL, QUERY_ENCODER) and not local:
                raise TypeError(
                    f"also={name!r} needs a model of this machine (HuggingFaceEmbedding), the app "
                    f"embeds with {model.class_name()}"
                )

    def parts(
        self,
        seen: SeenApp,
        asked: Questions,
        search: Search,
        adapters: Adapters | None,
        vectors: Float32 | None,
        folder: Path | None,
        *,
        seed: int,
        show_progress: bool,
    ) -> tuple[list[Part], list[str]]:
        """The parts to try, the cheapest first; and what is left out, and why."""
        if self.names and not asked.teach:
            names = ", ".join(self.names)
            return [], [f"{names}: not tried, that takes {LEAST} questions or more"]
        found: list[Part] = []
        notes = []
        for name in (each for each in NAMES if each in self.names):
            if self.keep_index and name in REINDEXED:
                notes.append(f"keep_index: {name} was not tried, the documents' vectors stay")
                continue
            if name == CORPUS_SIDE:
                assert adapters is not None
                found.append(CorpusSide(seen, adapters, asked))
                continue
            train = self._train(name, seen, search, seed, show_progress=show_progress)
            found.append(TrainedPart(name, train, seen, asked, folder, search, vectors))
        return found, notes

    def _train(
        self, name: str, seen: SeenApp, search: Search, seed: int, *, show_progress: bool
    ) -> Train:
        if name == CROSS_ENCODER:
            model = self.names[name] or CROSS_ENCODER_BASE
            return train_cross_encoder(model, search, seed, show_progress=show_progress)
        if name == EMBEDDING_MODEL:
            return train_embedding_model(seen.embed_model, show_progress=show_progress)
        return train_query_encoder(seen.embed_model, seen, seed, show_progress=show_progress)
