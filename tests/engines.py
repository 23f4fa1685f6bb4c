"""One small run of each engine, on data that shows no gain: what the contract is tested on."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.evaluation import BaseEvaluator
from llama_index.core.llms import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor

import llama_index.tuning as tuning
from llama_index.tuning.embeddings import (
    AdapterOptions,
    QueryEncoderOptions,
    SentenceTransformersOptions,
)
from llama_index.tuning.llms import HuggingFaceOptions
from llama_index.tuning.registry import register_engine
from llama_index.tuning.rerankers import CrossEncoderOptions
from llama_index.tuning.routers import RouterOptions
from llama_index.tuning.testing import EngineCase
from tests.conftest import TableEmbedding, rotated_problem
from tests.embeddings.full.conftest import ON_CPU, build_model, texts_of
from tests.judges.conftest import data as judgments, verdicts
from tests.llms.conftest import fees
from tests.llms.tiny import save_tiny
from tests.rerankers.conftest import NoisyRetriever, shop
from tests.routers.conftest import world
from tests.tiny_bert import save_tiny_bert


def served(path, **arguments):
    """Imported when it is needed: it brings torch along."""
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    return HuggingFaceEmbedding(path, **arguments)


def _adapter(folder):
    data, _ = rotated_problem(n_documents=12, per_document=1)
    noise = TableEmbedding({}, dim=16)  # every text's vector is drawn: there is nothing to learn
    return {"dataset": data, "embed_model": noise, "options": AdapterOptions(folds=2)}


def _drift(folder):
    rng = np.random.default_rng(0)
    texts = [f"text {i}" for i in range(60)]
    old = TableEmbedding({t: rng.standard_normal(8) for t in texts}, dim=8, model_name="old")
    new = TableEmbedding({t: rng.standard_normal(8) for t in texts}, dim=8, model_name="new")
    return {"texts": texts, "new_model": new, "old_model": old}


def _embedding_model(folder):
    data = shop(n=30)
    return {
        "dataset": data,
        "model_id": build_model(folder, texts_of(data)),
        "batch_size": 4,
        "evaluation_steps": 2,
        "device": "cpu",
        "options": SentenceTransformersOptions(**{**ON_CPU, "learning_rate": 1e-9}),
    }


def _query_encoder(folder):
    data = shop(n=30)
    options = QueryEncoderOptions(learning_rates=(1e-9,), folds=2, max_steps=2, precision="fp32")
    return {
        "dataset": data,
        "model_id": build_model(folder, texts_of(data)),
        "batch_size": 4,
        "device": "cpu",
        "options": options,
    }


def _light(folder):
    data = shop(n=8, per_document=1)
    return {"dataset": data, "retriever": NoisyRetriever(data, k=6)}


def _cross(folder):
    data = shop(n=20)
    texts = [*data.corpus.values(), *data.queries.values()]
    return {
        "dataset": data,
        "retriever": NoisyRetriever(data, k=6),
        "model_id": save_tiny_bert(folder / "tiny", texts),
        "evaluation_steps": 3,
        "options": CrossEncoderOptions(device="cpu", max_steps=2),
    }


def _router(folder):
    data, _ = world(per_choice=4)
    noise = TableEmbedding({}, dim=8)
    return {"dataset": data, "embed_model": noise, "options": RouterOptions(words=False)}


class SaysNo(BaseEvaluator):
    """The evaluator that a refused judge gives way to."""

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    async def aevaluate(self, query=None, response=None, contexts=None, **_):
        raise AssertionError("nobody asks it here")


def _judge(folder):
    rows = verdicts(24)
    drawn = np.random.default_rng(1).random(len(rows)) < 0.5
    for row, passing in zip(rows, drawn.tolist(), strict=True):
        row["passing"] = passing
    return {"dataset": judgments(rows), "defer_to": SaysNo()}


def _llm(folder):
    data = fees(30)
    texts = [m["content"] for e in data.examples for m in e.messages]
    return {
        "dataset": data,
        "model_id": save_tiny(folder / "tiny", texts),
        "options": HuggingFaceOptions(
            weights="full", device="cpu", learning_rate=1e-9, max_steps=1, held_out=0.3
        ),
    }


def _contributed() -> dict[str, Any]:
    """The names of the engine that CONTRIBUTING.md shows."""
    page = Path(__file__).resolve().parent.parent / "CONTRIBUTING.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    # Dataclasses and pickles look their module up.
    module = sys.modules["contributed"] = ModuleType("contributed")
    names = vars(module)
    exec(compile(block, str(page), "exec"), names)
    return names


def _words(folder):
    data, _ = world(per_choice=8)
    drawn = np.random.default_rng(0).permutation(len(data.examples)).tolist()
    pairs = [
        (f"{row} {data.examples[i].query}", data.examples[j].choices[0])
        for row, (i, j) in enumerate(zip(range(len(drawn)), drawn, strict=True))
    ]
    return {"dataset": tuning.RoutingDataset.from_pairs(pairs, choices=data.choices)}


TOY = _contributed()
register_engine("word-selector", TOY["WordSelectorFinetuneEngine"])

CASES = {
    "word-selector": EngineCase(
        TOY["WordSelectorFinetuneEngine"],
        _words,
        BaseSelector,
        lambda path, a: TOY["WordSelector"].load(path),
    ),
    "embedding-adapter": EngineCase(
        tuning.EmbeddingAdapterFinetuneEngine,
        _adapter,
        BaseEmbedding,
        lambda path, a: tuning.AdapterEmbeddingModel(a["embed_model"], str(path)),
        ("num_workers", "checkpoint_save_steps"),
    ),
    "drift-adapter": EngineCase(
        tuning.DriftAdapterFinetuneEngine,
        _drift,
        BaseEmbedding,
        lambda path, a: tuning.AdapterEmbeddingModel(a["new_model"], str(path)),
        ("num_workers",),
    ),
    "embedding-model": EngineCase(
        tuning.SentenceTransformersFinetuneEngine,
        _embedding_model,
        BaseEmbedding,
        lambda path, a: served(str(path), device="cpu"),
        ("batch_size", "epochs", "evaluation_steps"),
    ),
    "query-encoder": EngineCase(
        tuning.QueryEncoderFinetuneEngine,
        _query_encoder,
        BaseEmbedding,
        lambda path, a: tuning.QueryEncoderEmbeddingModel(
            served(a["model_id"], device="cpu"), path, device="cpu"
        ),
        ("batch_size", "epochs"),
    ),
    "light-reranker": EngineCase(
        tuning.LightRerankerFinetuneEngine,
        _light,
        BaseNodePostprocessor,
        lambda path, a: tuning.load_reranker(path),
        ("num_workers",),
    ),
    "cross-encoder": EngineCase(
        tuning.CrossEncoderFinetuneEngine,
        _cross,
        BaseNodePostprocessor,
        lambda path, a: tuning.load_reranker(path),
        ("batch_size", "evaluation_steps"),
    ),
    "router": EngineCase(
        tuning.RouterFinetuneEngine,
        _router,
        BaseSelector,
        lambda path, a: tuning.TunedSelector.load(path, a["embed_model"]),
        ("num_workers", "max_deferred"),
    ),
    "judge": EngineCase(
        tuning.JudgeFinetuneEngine,
        _judge,
        BaseEvaluator,
        lambda path, a: tuning.TunedJudge.load(path),
        ("num_workers",),
    ),
    "huggingface-llm": EngineCase(
        tuning.HuggingFaceFinetuneEngine,
        _llm,
        LLM,
        lambda path, a: tuning.TunedHuggingFaceLLM.load(path, device="cpu"),
    ),
}
