"""A component's repr is one short line: no vectors, no weights, no keys."""

import numpy as np
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import TextNode

from llama_index.tuning import (
    AdapterEmbeddingModel,
    JudgeFinetuneEngine,
    JudgmentDataset,
    LightReranker,
    RouterFinetuneEngine,
    RoutingDataset,
    TunedRetriever,
    tune_app,
)
from llama_index.tuning.embeddings.adapter.maps import LinearMap
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.rerankers import TunedReranker
from tests.pages.reports import ADAPTER

SECRET = "sk-0123456789abcdef"


class KeyedEmbedding(MockEmbedding):
    api_key: str = SECRET


class KeyedReranker(BaseNodePostprocessor):
    api_key: str = Field(default=SECRET)

    def _postprocess_nodes(self, nodes, query_bundle=None):
        return nodes


class Scorer:
    def predict(self, pairs, **_):
        return np.zeros(len(pairs))


def said(component):
    text = repr(component)
    assert SECRET not in text + str(component)
    assert "\n" not in text
    assert len(text) < 200
    return text


def test_an_adapter_model_names_its_base():
    adapter = Adapter(LinearMap(np.eye(3, dtype=np.float32)), base_model="small")
    model = AdapterEmbeddingModel(KeyedEmbedding(embed_dim=3, model_name="small"), adapter)
    text = "AdapterEmbeddingModel(base='small', adapter='linear', side='query')"
    assert said(model) == text
    assert said(adapter) == "Adapter(linear, 3 dimensions, side 'query', base 'small')"


def test_rerankers_say_where_scores_come_from():
    light = LightReranker(top_n=5)
    assert "'default light re-ranker'" in said(light)
    assert "top_n=5" in said(light)
    assert said(TunedReranker(Scorer(), fusion_weight=0.25)) == (
        "TunedReranker(model='Scorer', fusion_weight=0.25)"
    )


def test_a_retriever_names_its_parts():
    nodes = [TextNode(text="Fees"), TextNode(text="Refunds")]
    index = VectorStoreIndex(nodes, embed_model=KeyedEmbedding(embed_dim=3))
    retriever = TunedRetriever.from_index(index, top_k=1)
    text = said(retriever)
    assert "VectorIndexRetriever and BM25 over 2 nodes, LightReranker(" in text
    assert said(retriever.with_reranker(KeyedReranker())).count("KeyedReranker,") == 1
    assert "no re-ranker" in said(retriever.with_reranker(None))


def test_a_selector_counts_its_choices():
    data = RoutingDataset.from_pairs([("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")])
    engine = RouterFinetuneEngine(
        data, KeyedEmbedding(embed_dim=3), accept="always", model_output_path=None
    )
    engine.finetune()
    selector = engine.get_finetuned_model(fallback="error")
    assert said(selector) == "TunedSelector(2 choices, base 'unknown', fallback 'error')"
    assert said(selector.model) == "RouterModel(2 choices, 3 dimensions)"


def test_a_judge_says_its_threshold():
    rows = [
        {
            "query": f"Fee {n}?",
            "response": "5 euros." if n % 2 else "No idea.",
            "passing": bool(n % 2),
        }
        for n in range(40)
    ]
    engine = JudgeFinetuneEngine(JudgmentDataset.from_records(rows), accept="always")
    engine.finetune()
    assert said(engine.get_finetuned_model()).startswith("TunedJudge(LightJudge, pointwise, thr")


def test_an_app_says_what_it_serves_and_shows_its_report():
    nodes = [TextNode(text=f"The fee of card {n} is due on Monday.") for n in range(6)]
    index = VectorStoreIndex(nodes, embed_model=KeyedEmbedding(embed_dim=3))
    app = tune_app(index, run_folder=None)
    assert said(app).startswith("TunedApp(")
    assert said(app.report).startswith(f"AppReport({app.report.served!r}, ")
    assert app._repr_html_() == app.report._repr_html_()
    assert SECRET not in app._repr_html_()


def test_a_report_says_its_verdict():
    assert said(ADAPTER).startswith("FinetuneReport('embedding adapter (linear, query side)', acc")
    assert "ndcg@10 +0.0200, n=668" in repr(ADAPTER)
