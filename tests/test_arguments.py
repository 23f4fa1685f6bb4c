"""Arguments of the wrong type: the argument, the rule and the value, before any work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning import (
    CrossEncoderFinetuneEngine,
    EmbeddingAdapterFinetuneEngine,
    JudgeFinetuneEngine,
    LightReranker,
    LightRerankerFinetuneEngine,
    RouterFinetuneEngine,
    SentenceTransformersFinetuneEngine,
    TunedRetriever,
    evaluate_retriever,
    generate_qa_embedding_pairs,
)
from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import plain_arguments, plain_fields
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.collect import Traffic
from llama_index.tuning.datasets import (
    ChatDataset,
    Judgment,
    JudgmentDataset,
    RelevanceDataset,
    RetrievalDataset,
    RoutingDataset,
)
from llama_index.tuning.evaluate import score_grades, score_rankings
from llama_index.tuning.generate import (
    compare_queries,
    generate_ce_fine_tuning_dataset,
    generate_multi_hop_queries,
    generate_routing_examples,
    label_relevance,
    mine_hard_negatives,
)
from llama_index.tuning.rerankers import (
    CrossEncoderOptions,
    generate_cohere_reranker_finetuning_dataset,
)


@plain_arguments
def tune(
    name: str = "a",
    *,
    flag: bool = False,
    seed: int = 0,
    path: str | PathLike[str] | None = None,
    vectors: Float32 | None = None,
    either: Sequence[str] | Mapping[str, str] | None = None,
    model: BaseEmbedding | None = None,
    llm: LLM | None = None,
    texts: Sequence[str] = (),
    rows: Iterable[Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    return name


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("name", [5, b"a", None]),
        ("flag", ["yes", 1, None, np.array([True])]),
        ("seed", [-1, "0", 1.0, True, None]),
        ("path", [5, b"a", "", "a\0b", ["a"]]),
        ("vectors", [5, "text", np.ones(3), object()]),
        ("model", [5, "text", MockLLM()]),
        ("llm", [5, "text", MockEmbedding(embed_dim=2)]),
        ("texts", [5, "text", b"text", None, {"a": "text"}, TextNode(text="a")]),
        ("rows", [5, "rows", {"a": 1}]),
        ("settings", [5, "text", [("a", 1)]]),
    ],
)
def test_the_annotation_tells_what_an_argument_must_be(argument, wrong):
    for value in wrong:
        with pytest.raises((TypeError, ValueError), match=f"^{argument} must .*, got "):
            tune(**{argument: value})


def test_what_fits_passes_as_it_is():
    fits = {
        "flag": True, "path": "a", "either": 5, "seed": np.int64(7), "vectors": np.eye(2),
        "model": MockEmbedding(embed_dim=2), "llm": MockLLM(),
        "texts": np.array(["a"]), "rows": iter([{}]), "settings": {},
    }  # fmt: skip
    assert tune("b", **fits) == "b"
    assert tune.__name__ == "tune"
    with pytest.raises(TypeError, match="name must be a text, got 5"):
        tune(5)


def test_fields_of_options_are_checked_alike():
    with pytest.raises(TypeError, match="verbose must be True or False, got 'yes'"):
        RunOptions(verbose="yes")
    with pytest.raises(TypeError, match="trust_remote_code must be True or False, got 1"):
        CrossEncoderOptions(trust_remote_code=1)
    plain_fields(RunOptions())


RETRIEVAL = RetrievalDataset({"q": "Fee?"}, {"a": "5 euros", "b": "Free"}, {"q": ["a"]})
NODES = [TextNode(id_=id_, text=text) for id_, text in RETRIEVAL.corpus.items()]
MODEL = MockEmbedding(embed_dim=2)
ROUTING = RoutingDataset.from_pairs([("Fee?", "a"), ("Loan?", "b")], choices={"a": "x", "b": "y"})
JUDGMENTS = JudgmentDataset([Judgment(query="q", response="r", passing=True)])
RELEVANCE = RelevanceDataset.from_labels({"q": "Fee?"}, {"a": "5"}, {"q": {"a": 1.0}})


def retriever():
    return VectorStoreIndex(NODES, embed_model=MODEL).as_retriever()


RERANKER = LightReranker()
SCORES = score_rankings(["q"], [["a"]], [["a"]])
CHATS = ChatDataset.from_messages(
    [[{"role": "user", "content": "Fee?"}, {"role": "assistant", "content": "5"}]]
)
WRONG = {
    "rankings": (lambda: score_rankings(["q"], 5, [["a"]]), "rankings"),
    "one ranking": (lambda: score_rankings(["q"], ["a"], [["a"]]), r"rankings\[0\]"),
    "fewer rankings": (lambda: score_rankings(["q", "r"], [["a"]], [["a"], ["b"]]), "rankings"),
    "nothing relevant": (lambda: score_rankings(["q"], [["a"]], [[]]), r"relevant\[0\]"),
    "one list of grades": (lambda: score_grades(["q"], ["a"], [[]]), r"found\[0\]"),
    "grades": (lambda: score_grades(["q"], [["a"]], [[]]), r"found\[0\]"),
    "re-ranked": (lambda: RERANKER.postprocess_nodes("text", query_str="Fee?"), "nodes"),
    "re-ranked, no node": (lambda: RERANKER.postprocess_nodes([5], query_str="Fee?"), "nodes"),
    "re-ranked, query": (
        lambda: RERANKER.postprocess_nodes([NodeWithScore(node=NODES[0])], query_str=5),
        "query_str",
    ),
    "deleted": (lambda: TunedRetriever(retriever(), NODES).delete_nodes(b"a"), "node_ids"),
    "candidates": (lambda: TunedRetriever(retriever(), NODES).candidates(b"a"), "query"),
    "subset": (lambda: RETRIEVAL.subset(5), "query_ids"),
    "routing subset": (lambda: ROUTING.subset("text"), "rows"),
    "tied groups": (lambda: RETRIEVAL.groups(by="node"), "by"),
    "some metrics": (lambda: SCORES.only(5), "metrics"),
    "traffic, where": (lambda: Traffic([]).chat_dataset(where="liked"), "where"),
    "traffic, teacher": (lambda: Traffic([]).chat_dataset(teacher=5), "teacher"),
    "traffic, nodes": (lambda: Traffic([]).add_nodes(5), "nodes"),
    "split, seed": (lambda: ROUTING.split(seed="3"), "seed"),
    "saved chats": (lambda: CHATS.save_jsonl("a.jsonl", min_examples="3"), "min_examples"),
    "Cohere, method": (
        lambda: generate_cohere_reranker_finetuning_dataset(
            RETRIEVAL, hard_negatives_gen_method="odd"
        ),
        "hard_negatives_gen_method",
    ),
    "Cohere, seed": (
        lambda: generate_cohere_reranker_finetuning_dataset(RETRIEVAL, seed=-1),
        "seed",
    ),
    "test set": (lambda: RetrievalDataset.from_ragas(5), "testset"),
    "documents": (lambda: generate_ce_fine_tuning_dataset(5, ["Fee?"]), "documents"),
    "compared": (lambda: compare_queries(5, ["Fee?"] * 10, MODEL), "generated"),
    "model, device": (
        lambda: SentenceTransformersFinetuneEngine(RETRIEVAL, device=b"cpu"),
        "device",
    ),
    "cross-encoder, loss": (lambda: CrossEncoderFinetuneEngine(RELEVANCE, loss="bce"), "loss"),
    "adapter, device": (
        lambda: EmbeddingAdapterFinetuneEngine(RETRIEVAL, MODEL, device=5),
        "device",
    ),
    "adapter, verbose": (
        lambda: EmbeddingAdapterFinetuneEngine(RETRIEVAL, MODEL, verbose="yes"),
        "verbose",
    ),
    "model, callbacks": (
        lambda: SentenceTransformersFinetuneEngine(RETRIEVAL, callbacks=5),
        "callbacks",
    ),
    "model, cache": (
        lambda: SentenceTransformersFinetuneEngine(RETRIEVAL, vector_cache=5),
        "vector_cache",
    ),
    "model, name": (lambda: SentenceTransformersFinetuneEngine(RETRIEVAL, 5), "model_id"),
    "cross-encoder, retriever": (
        lambda: CrossEncoderFinetuneEngine(RELEVANCE, retriever="text"),
        "retriever",
    ),
    "cross-encoder, callbacks": (
        lambda: CrossEncoderFinetuneEngine(RELEVANCE, callbacks=5),
        "callbacks",
    ),
    "light, retriever": (lambda: LightRerankerFinetuneEngine(RELEVANCE, 5), "retriever"),
    "router, bar": (lambda: RouterFinetuneEngine(ROUTING, MODEL, show_progress=5), "show_progress"),
    "judge, model": (lambda: JudgeFinetuneEngine(JUDGMENTS, "text"), "embed_model"),
    "judge, defer": (lambda: JudgeFinetuneEngine(JUDGMENTS, defer_to=5), "defer_to"),
    "retriever, nodes": (lambda: TunedRetriever(retriever(), 5), "nodes"),
    "re-ranker": (lambda: LightReranker(keep_retrieval_score="yes"), "keep_retrieval_score"),
    "evaluate, bar": (
        lambda: evaluate_retriever(retriever(), RETRIEVAL, show_progress="yes"),
        "show_progress",
    ),
    "questions, model": (
        lambda: generate_qa_embedding_pairs(NODES, MockLLM(), embed_model="text"),
        "embed_model",
    ),
    "questions, options": (
        lambda: generate_qa_embedding_pairs(NODES, MockLLM(), options="text"),
        "options",
    ),
    "groups": (lambda: generate_multi_hop_queries(NODES, MockLLM(), groups=5), "groups"),
    "group": (lambda: generate_multi_hop_queries(NODES, MockLLM(), groups=[5]), "groups"),
    "routing, llm": (lambda: generate_routing_examples({"a": "x"}, llm=5), "llm"),
    "routing, choices": (lambda: generate_routing_examples(5), "choices"),
    "relevance, retriever": (
        lambda: label_relevance({"q": "Fee?"}, 5, llm=MockLLM()),
        "retriever",
    ),
    "negatives, backend": (
        lambda: mine_hard_negatives(RETRIEVAL, embed_model=MODEL, backend=5),
        "backend",
    ),
    "negatives, vectors": (
        lambda: mine_hard_negatives(RETRIEVAL, embed_model=MODEL, query_vectors="text"),
        "query_vectors",
    ),
    "negatives, ranks": (
        lambda: mine_hard_negatives(RETRIEVAL, retriever(), rank_range=object()),
        "rank_range",
    ),
    "validation": (
        lambda: EmbeddingAdapterFinetuneEngine(
            RETRIEVAL, MODEL, val_dataset="text", model_output_path=None
        ).finetune(),
        "val_dataset",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_public_names_name_the_argument(case):
    call, argument = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=rf"{argument}.* must|unknown {argument}"):
        call()
