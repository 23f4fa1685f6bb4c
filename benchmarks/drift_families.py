"""A drift adapter across families of models: what is kept, and does the report say so before?

For each pair of an old and a new model: recall@10 of test questions by the old model on its own
vectors, by the new one on documents embedded anew, and by its mapped queries on the old vectors;
what is kept of the second; and what the engine's report told before anything is deployed: by a
sentence of each text, and by the questions; of each all, and those whose texts the map was not
fitted to.

Models: MiniLM; MiniLM cut to 96 dimensions; a static model in the manner of model2vec (MiniLM's
vector of each token by itself, 256 principal components, weighted by rarity); LSA of the corpus
(TF-IDF, 128 dimensions); with `--tuned FOLDER` a Sentence Transformer tuned from MiniLM.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _data import arguments, dataset, lyft_and_uber, model
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from llama_index.tuning import DriftAdapterFinetuneEngine
from llama_index.tuning.cli.models import embedding_model
from llama_index.tuning.demo import minilm_folder
from llama_index.tuning.embeddings.adapter.measure import measure_adapter
from llama_index.tuning.embeddings.drift.fit import KEPT, KEPT_OF_OTHERS
from llama_index.tuning.vectors.embedder import Embedder


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tuned", type=Path, help="a Sentence Transformer tuned from MiniLM")
    parser.add_argument("--sets", nargs="*", default=["Uber", "chunking_eval", "xquad_en"])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'set: old → new':<34}{'old':>6}{'anew':>6}{'mapped':>7}{'kept':>7}  told beforehand")
    for name in args.sets:
        test = lyft_and_uber(args.data)[1] if name == "Uber" else dataset(args.data, name, "test")
        texts, asked = list(test.corpus.values()), list(test.queries.values())
        base = model()  # from the cache: the others are made of its vectors
        embedder = Embedder(base, cache=args.cache)
        known = dict(zip(texts, embedder.documents(texts), strict=True))
        known |= dict(zip(asked, embedder.queries(asked), strict=True))
        models: dict[str, BaseEmbedding] = {
            "MiniLM": Derived("MiniLM", known, base, lambda v: v),
            "MiniLM-96": Derived("MiniLM-96", known, base, lambda v: v[:, :96]),
            "static": static([*texts, *asked]),
            "LSA": lsa(texts),
        }
        pairs = [("static", "MiniLM"), ("LSA", "MiniLM"), ("MiniLM-96", "MiniLM")]
        pairs += [("MiniLM", "static"), ("MiniLM", "LSA"), ("MiniLM", "MiniLM-96")]
        if args.tuned:
            tuned = embedding_model(str(args.tuned))
            models["tuned"] = Derived("tuned", {}, tuned, lambda v: v)
            pairs += [("MiniLM", "tuned"), ("static", "tuned"), ("LSA", "tuned")]
        for old, new in pairs:
            show(f"{name}: {old} → {new}", test, models[old], models[new])


def show(label: str, test: Any, old: BaseEmbedding, new: BaseEmbedding) -> None:
    """One migration."""
    anew = measure_adapter(test, new)[0]["base"].mean()["recall@10"]
    told = []
    for questions in (None, test):
        with tempfile.TemporaryDirectory() as folder:
            report = DriftAdapterFinetuneEngine(
                test.corpus,
                new,
                old,
                val_dataset=questions,
                model_output_path=Path(folder) / "drift",
                accept="always",
            ).finetune()
        told += [report.slices[name]["recall@10"] for name in (KEPT, KEPT_OF_OTHERS)]
    gain = report.gains["recall@10"]
    promised = "  ".join(f"{one.tuned / one.base:>6.1%} (n={one.n})" for one in told)
    print(
        f"{label:<34}{gain.base:>6.3f}{anew:>6.3f}{gain.tuned:>7.3f}{gain.tuned / anew:>7.1%}  "
        f"{promised}  {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) against old, "
        f"{report.options['chosen']['kind']}",
        flush=True,
    )


class Derived(BaseEmbedding):
    """A model made of another's vectors, or of anything that embeds a list of texts."""

    _known: dict[str, Any] = PrivateAttr()
    _base: Any = PrivateAttr()
    _change: Any = PrivateAttr()

    def __init__(self, name: str, known: dict[str, Any], base: Any, change: Any) -> None:
        super().__init__(model_name=name, embed_batch_size=256)
        self._known, self._base, self._change = known, base, change

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        missing = [text for text in texts if text not in self._known]
        if missing:
            found = np.asarray(self._base.get_text_embedding_batch(missing), np.float32)
            self._known.update(zip(missing, found, strict=True))
        changed = self._change(np.stack([self._known[text] for text in texts]))
        lengths = np.linalg.norm(changed, axis=1, keepdims=True)
        return (changed / np.maximum(lengths, 1e-9)).tolist()

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._vectors(texts)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query])[0]


class OfFunction(Derived):
    """A model that a function from texts to vectors makes."""

    def __init__(self, name: str, embed: Any) -> None:
        super().__init__(name, {}, None, embed)

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        found = self._change(texts)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return (found / np.maximum(lengths, 1e-9) + 1e-9).tolist()


def lsa(texts: list[str], dim: int = 128) -> BaseEmbedding:
    """Latent semantic analysis of the corpus (Deerwester et al. 1990)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    counts = words.fit_transform(texts)
    svd = TruncatedSVD(min(dim, counts.shape[0] - 1), random_state=0).fit(counts)
    return OfFunction("LSA", lambda asked: svd.transform(words.transform(asked)))


def static(texts: list[str], dim: int = 256) -> BaseEmbedding:
    """MiniLM's vector of each token by itself, as model2vec distils it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sklearn.decomposition import PCA

    whole = SentenceTransformer(str(minilm_folder()), device="cpu")
    tokenizer = whole.tokenizer
    split = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=256)["input_ids"]
    tokens, counts = np.unique(np.concatenate(split), return_counts=True)
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    found = []
    with torch.inference_mode():
        for start in range(0, len(tokens), 512):
            ids = torch.tensor([[first, int(t), last] for t in tokens[start : start + 512]])
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            found.append(whole(given)["sentence_embedding"].numpy())
    vectors = PCA(dim, random_state=0).fit_transform(np.concatenate(found))
    # Smooth inverse frequency (Arora et al. 2017), as model2vec weighs tokens.
    vectors *= (1e-3 / (1e-3 + counts / counts.sum()))[:, None]
    rows = {int(token): row for row, token in enumerate(tokens)}

    def embed(asked: list[str]) -> Any:
        ids = tokenizer(asked, add_special_tokens=False)["input_ids"]
        return np.stack(
            [
                vectors[[rows[i] for i in one if i in rows]].mean(axis=0)
                if any(i in rows for i in one)
                else np.zeros(dim)
                for one in ids
            ]
        )

    return OfFunction("static", embed)


if __name__ == "__main__":
    main()
