"""Passages of a folder of documents, with ids that are the same in every process.

How far generated queries are from real ones.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Ints
from llama_index.tuning._checks import check_counts, folder_path, plain_arguments, whole_number
from llama_index.tuning._files import PathLike, read_text
from llama_index.tuning.errors import DatasetError, MissingExtraError
from llama_index.tuning.evaluate.bootstrap import auroc_of, intervals
from llama_index.tuning.text.sentences import question_key
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode, Document


_PLAIN = (".txt", ".md", ".markdown", ".rst", ".text", "")


@plain_arguments
def read_passages(
    path: PathLike, *, chunk_size: int = 512, chunk_overlap: int = 0
) -> list[BaseNode]:
    """The passages of a file or folder, ready to generate questions for and to index.

    Args:
        path: a file, or a folder that is read with its subfolders; hidden files are left out.
            Text and Markdown are read as they are, other kinds by `SimpleDirectoryReader`.
        chunk_size: tokens of a passage.
        chunk_overlap: tokens that neighbours share.

    Returns:
        Nodes with ids like `guide/fees.md#2`, so that a run started again finds its nodes.

    Raises:
        DatasetError: there is no text.
    """
    from llama_index.core.node_parser import SentenceSplitter

    check_counts(chunk_size=chunk_size)
    if not whole_number("chunk_overlap", chunk_overlap, 0) < chunk_size:
        raise ValueError(
            f"chunk_overlap must be from 0 to below chunk_size, got {chunk_overlap} of {chunk_size}"
        )
    root = folder_path("path", path)
    if not root.exists():
        raise FileNotFoundError(f"{path} does not exist")
    documents = [
        document
        for file in _files(root)
        for document in _read(file, file.name if root.is_file() else str(file.relative_to(root)))
    ]
    splitter = SentenceSplitter(
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        include_metadata=False,
        id_func=lambda number, document: f"{document.node_id}#{number}",
    )
    nodes = [n for n in splitter.get_nodes_from_documents(documents) if n.get_content().strip()]
    if not nodes:
        raise DatasetError(f"{path} holds no text in {len(documents)} documents")
    return nodes


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _read(file: Path, name: str) -> list[Document]:
    from llama_index.core import Document, SimpleDirectoryReader

    name = name.replace(os.sep, "/")
    if file.suffix.lower() in _PLAIN:
        return [Document(id_=name, text=read_text(file))]
    parts = SimpleDirectoryReader(input_files=[file], raise_on_error=True).load_data()
    for number, part in enumerate(parts):
        part.id_ = f"{name}/{number}"
        part.metadata = {}
    return parts


_LEAST = 10


@dataclass(frozen=True)
class QueryComparison:
    """The answer of a two-sample classifier (Lopez-Paz and Oquab 2017).

    Args:
        auc: how well a classifier that never saw a query tells whether it was generated: 0.5 is
            not at all, 1 always.
        low: lower end of its 90 % interval.
        high: upper end.
        n_generated: queries compared.
        n_real: queries compared.
        most_artificial: the generated queries that are easiest to tell, for reading.
    """

    auc: float
    low: float
    high: float
    n_generated: int
    n_real: int
    most_artificial: list[str]

    @property
    def told_apart(self) -> bool:
        """Whether the two samples are shown to differ: the interval lies above 0.5."""
        return self.low > 0.5

    def __str__(self) -> str:
        """One line for people."""
        word = "are told apart" if self.told_apart else "are not told apart"
        return (
            f"generated and real queries {word}: AUC {self.auc:.3f} (90 % interval "
            f"{self.low:.3f} to {self.high:.3f}; {self.n_generated} generated, {self.n_real} real)"
        )


@plain_arguments
def compare_queries(
    generated: Sequence[str],
    real: Sequence[str],
    embed_model: BaseEmbedding,
    *,
    folds: int = 5,
    seed: int = 0,
) -> QueryComparison:
    """Whether generated queries look like the users': a classifier on their embeddings, held out.

    Args:
        generated: query texts, at least 10.
        real: a sample of the app's own queries, at least 10.
        embed_model: of the app.
        folds: of the cross-validation; one text is always in one fold.
        seed: of folds and half-samples.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> one, two = [f"Fee {i}?" for i in range(20)], [f"Cost {i}?" for i in range(20)]
        >>> compare_queries(one, two, MockEmbedding(embed_dim=4)).told_apart
        False
    """
    check_counts(folds=folds)
    for name, texts in (("generated", generated), ("real", real)):
        if isinstance(texts, str) or len(texts) < _LEAST:
            raise DatasetError(f"{name} must hold at least {_LEAST} query texts")
    folds = whole_number("folds", folds, 2)
    from llama_index.tuning.vectors.embedder import Embedder

    texts = [*generated, *real]
    vectors = unit_rows(Embedder(embed_model).queries(texts))
    labels = np.repeat([1, 0], [len(generated), len(real)])
    groups = np.unique(list(map(question_key, texts)), return_inverse=True)[1]
    scores = _held_out_scores(vectors, labels, groups, folds, seed)
    area = {"auc": auroc_of(labels.astype(np.float64), scores)}
    low, high = intervals(area, groups, seed=seed)["auc"]
    order = np.argsort(-scores[: len(generated)], kind="stable")
    return QueryComparison(
        auc=_auc(labels, scores),
        low=low,
        high=high,
        n_generated=len(generated),
        n_real=len(real),
        most_artificial=[generated[row] for row in order[:10]],
    )


def _held_out_scores(
    vectors: NDArray[np.float32], labels: NDArray[Any], groups: Ints, folds: int, seed: int
) -> NDArray[np.float64]:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as exc:
        raise MissingExtraError("compare_queries", "scikit-learn", "generate") from exc

    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    )
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    scores: NDArray[np.float64] = cross_val_predict(
        classifier, vectors, labels, groups=groups, cv=split, method="decision_function"
    )
    return scores


def _auc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))
