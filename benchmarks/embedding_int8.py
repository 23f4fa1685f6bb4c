"""What int8 costs an embedding model: OpenVINO's weights and activations against torch's.

    python -m venv int8
    int8/bin/pip install -e '.[demo]' 'sentence-transformers[openvino]>=6,<7'
    int8/bin/python benchmarks/embedding_int8.py [--model FOLDER]

An environment of its own: the exporter holds transformers back. Calibrated on Lyft's chunks,
measured on Uber's 790 questions: nDCG@10 of both with the paired gain and its 90 % interval, how
far the chunks' vectors and the first ten agree, and CPU seconds of embedding.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _data import arguments, lyft_and_uber
from _retrievers import retriever_for
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index.tuning import RetrievalDataset, evaluate_retriever
from llama_index.tuning.demo import minilm_folder
from llama_index.tuning.evaluate import paired_gain

FILE = "openvino/openvino_model_qint8_quantized.xml"


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=minilm_folder())
    args = parser.parse_args()
    train, test = lyft_and_uber(args.data)
    with tempfile.TemporaryDirectory() as made:
        small = Path(made) / "int8"
        exported(args.model, small, list(train.corpus.values())[:300])
        full, before, seconds = searched(
            test, Path(made) / "a", HuggingFaceEmbedding(str(args.model))
        )
        backend = {"backend": "openvino", "model_kwargs": {"file_name": FILE}}
        int8, after, fewer = searched(
            test, Path(made) / "b", HuggingFaceEmbedding(str(small), **backend)
        )
    gain = paired_gain(before.values["ndcg@10"], after.values["ndcg@10"])
    cosines = (full.matrix * int8.matrix).sum(1)
    same = [len(ids(full, query) & ids(int8, query)) / 10 for query in test.queries.values()]
    print(
        f"nDCG@10 {gain.base:.3f} → {gain.tuned:.3f} ({gain.low:+.3f} to {gain.high:+.3f}); "
        f"cosine of vectors {cosines.mean():.3f}, at least {cosines.min():.3f}; "
        f"{np.mean(same):.1%} of the first ten are the same; CPU s {seconds:.0f} → {fewer:.0f}"
    )


def exported(model: Path, out: Path, texts: list[str]) -> None:
    """The model as OpenVINO's, with an int8 copy calibrated on texts."""
    from sentence_transformers import SentenceTransformer, export_static_quantized_openvino_model

    loaded = SentenceTransformer(str(model), backend="openvino")
    loaded.save_pretrained(str(out))
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (Path(folder) / "train.jsonl").write_text("".join(lines), encoding="utf-8")
        export_static_quantized_openvino_model(
            loaded,
            None,
            str(out),
            dataset_name=folder,
            dataset_config_name="default",
            dataset_split="train",
            column_name="text",
        )


def searched(test: RetrievalDataset, cache: Path, model: Any) -> tuple[Any, Any, float]:
    """A retriever of these vectors, its scores, and CPU seconds of embedding."""
    began = time.process_time()
    retriever = retriever_for(test, model, cache, 10)
    seconds = time.process_time() - began
    return retriever, evaluate_retriever(retriever, test), seconds


def ids(retriever: Any, query: str) -> set[str]:
    return {found.node.node_id for found in retriever.retrieve(query)}


if __name__ == "__main__":
    main()
