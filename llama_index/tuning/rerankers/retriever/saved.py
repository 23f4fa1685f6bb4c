"""A `TunedRetriever` on disk: settings, BM25 index, re-ranker and, if it owns them, nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.docstore.types import BaseDocumentStore
from numpy.typing import NDArray

from llama_index.tuning import artifacts
from llama_index.tuning._checks import whole_number
from llama_index.tuning._files import read_json
from llama_index.tuning.artifacts import PathLike
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.rerankers.loading import load_reranker
from llama_index.tuning.rerankers.serving import CalibratedReranker, check_words
from llama_index.tuning.text.bm25 import BM25Index
from llama_index.tuning.text.words import Analyzer
from llama_index.tuning.vectors.identity import same_name

KIND = "tuned_retriever"
SETTINGS = ("top_k", "depth", "pool", "rrf_k")
NODES = "nodes.json"
_SERVING = ("top_n", "min_score", "keep_retrieval_score")
_BM25, _IDS, _RERANKER = "bm25.safetensors", "ids.json", "reranker"


@dataclass(frozen=True, eq=False)
class SavedRetriever:
    """What a folder holds."""

    settings: dict[str, Any]
    reranker: CalibratedReranker | None
    index: BM25Index
    docstore: BaseDocumentStore
    signature: Any
    """Of the embedding model; None if the retriever had none."""


def saveable(reranker: BaseNodePostprocessor | None) -> CalibratedReranker | None:
    """The re-ranker, if it can be saved with the retriever.

    Raises:
        TypeError: it is not of this package.
    """
    if reranker is None or isinstance(reranker, CalibratedReranker):
        return reranker
    raise TypeError(
        f"a {type(reranker).__name__} is not saved with the retriever: save it by "
        "itself, and set it after loading with with_reranker()"
    )


def write(
    folder: Path,
    head: Mapping[str, Any],
    analyzer: Analyzer,
    ids: Sequence[str],
    arrays: Mapping[str, NDArray[Any]],
    reranker: CalibratedReranker | None,
) -> None:
    """Write all but the nodes, which must be of the same moment as the index.

    Args:
        folder: exists.
        head: `settings`, `base_model`, its `signature`, and whether there are `nodes`.
        analyzer: of the BM25 index.
        ids, arrays: its parts.
        reranker: saved beside it.
    """
    from safetensors.numpy import save_file

    config = {
        **head,
        "analyzer": analyzer.to_dict(),
        "reranker": reranker and {name: getattr(reranker, name) for name in _SERVING},
    }
    artifacts.write_component(folder, KIND, config, {}, _CARD)
    save_file(dict(arrays), folder / _BM25)
    (folder / _IDS).write_text(json.dumps(ids), encoding="utf-8")
    if reranker is not None:
        reranker.save(folder / _RERANKER)


def read(
    path: PathLike, base_model: str | None, docstore: BaseDocumentStore | None
) -> SavedRetriever:
    """What `write` wrote, checked.

    Args:
        path: the folder.
        base_model: name of the embedding model that the app's retriever has.
        docstore: holds the nodes, unless they were saved too.

    Raises:
        ArtifactError: no tuned retriever, a damaged one, or another embedding model.
        ValueError: the nodes are not there, and `docstore` is not given.
    """
    config = artifacts.read_config(path, KIND)
    if docstore is None and config.get("nodes") is False:
        raise ValueError(f"{path} holds no nodes: pass docstore=, such as index.docstore")
    _check_model(path, config.get("base_model"), base_model)
    try:
        return _read(Path(path), config, docstore)
    except ArtifactError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as exc:
        raise ArtifactError(f"{path} is damaged: {exc}") from exc


def _read(
    path: Path, config: Mapping[str, Any], docstore: BaseDocumentStore | None
) -> SavedRetriever:
    serving = config["reranker"]
    reranker = None if serving is None else load_reranker(path / _RERANKER, **serving)
    ids = read_json(path / _IDS, ArtifactError)
    arrays = artifacts.read_arrays(path, _BM25)
    index = BM25Index.from_arrays(Analyzer(**config["analyzer"]), ids, arrays)
    check_words(reranker, index.analyzer)
    settings = {name: whole_number(name, config["settings"][name], 1) for name in SETTINGS}
    nodes = _saved_nodes(path, index.ids) if docstore is None else docstore
    artifacts.check_intact(path)
    return SavedRetriever(settings, reranker, index, nodes, config.get("signature"))


def _check_model(path: PathLike, saved: str | None, given: str | None) -> None:
    if saved and given and not same_name(saved, given):
        raise ArtifactError(
            f"{path} was saved with a retriever of the embedding model {saved!r}, not {given!r}; "
            "its re-ranker was tuned on that model's scores"
        )


def _saved_nodes(path: Path, ids: Sequence[str]) -> BaseDocumentStore:
    store = SimpleDocumentStore.from_persist_path(str(path / NODES))
    missing = [id_ for id_ in ids if not store.document_exists(id_)]
    if missing:
        raise ArtifactError(f"{path} is damaged: {NODES} has no node {missing[0]!r}")
    return store


_CARD = """# A tuned retriever

Made by llama-index-tuning. Use it with

    from llama_index.tuning import TunedRetriever
    retriever = TunedRetriever.load("this folder", index.as_retriever(similarity_top_k=100))
"""
