import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning import RetrievalDataset, mine_hard_negatives
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.errors import DatasetError, VectorError
from llama_index.tuning.generate import MinedDataset
from llama_index.tuning.generate.reranker_labels import nearest
from tests.generate.scripted import ScriptedLLM, WordEmbedding


def random_problem(queries=40, documents=3000, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((documents, dim)).astype(np.float32)
    relevant = rng.integers(documents, size=(queries, 2))
    Q = (D[relevant[:, 0]] + 0.7 * rng.standard_normal((queries, dim))).astype(np.float32)
    D[relevant[:, 0] - 1] = D[relevant[:, 0]] + 0.01  # near-duplicates of relevant documents
    words = [" ".join(rng.choice(list("abcdefghij"), size=12)) for _ in range(documents)]
    dataset = RetrievalDataset(
        {f"q{i}": f"query {i}" for i in range(queries)},
        {f"d{i}": text for i, text in enumerate(words)},
        {f"q{i}": [f"d{j}" for j in dict.fromkeys(row)] for i, row in enumerate(relevant)},
    )
    return dataset, Q, D


def brute_force(dataset, Q, D, *, count, ranks, margin, near):
    """The same rules, written plainly over the full matrix of cosines."""
    D = D / np.linalg.norm(D, axis=1, keepdims=True)
    Q = Q / np.linalg.norm(Q, axis=1, keepdims=True)
    ids = list(dataset.corpus)
    found = {}
    for q, (id_, docs) in enumerate(dataset.relevant_docs.items()):
        scores = D @ Q[q]
        relevant = [ids.index(doc) for doc in docs]
        best = scores[relevant].max()
        ranked = sorted(range(len(ids)), key=lambda d: (-scores[d], d))
        found[id_] = [
            ids[d]
            for rank, d in enumerate(ranked, start=1)
            if ranks[0] <= rank <= ranks[1]
            and d not in relevant
            and scores[d] <= best - margin * abs(best)
            and (D[relevant] @ D[d]).max() < near
        ][:count]
    return found


@pytest.mark.parametrize("backend", ["exact", "faiss"])
@pytest.mark.parametrize(("ranks", "margin"), [((1, 100), 0.05), ((5, 60), 0.2), ((1, 3000), 0.0)])
def test_equal_to_brute_force(monkeypatch, backend, ranks, margin):
    if backend == "faiss":
        pytest.importorskip("faiss")
        monkeypatch.setattr("llama_index.tuning.generate.reranker_labels._CHUNK", 700)
    dataset, Q, D = random_problem()
    mined = mine_hard_negatives(
        dataset, vectors=D, query_vectors=Q, num_negatives=7, rank_range=ranks,
        relative_margin=margin, near_duplicate=0.9, backend=backend,
    )  # fmt: skip
    assert mined.negatives == brute_force(
        dataset, Q, D, count=7, ranks=ranks, margin=margin, near=0.9
    )
    assert (mined.counts["near_duplicates"] > 0) == (margin == 0)


def test_faiss_and_numpy_find_the_same_in_chunks(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr("llama_index.tuning.generate.reranker_labels._CHUNK", 97)
    _, Q, D = random_problem(documents=1000)
    one, two = nearest(Q, D, 150, backend="faiss"), nearest(Q, D, 150, backend="exact")
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_allclose(one[1], two[1], atol=1e-6)


def test_from_the_apps_own_retriever():
    texts = ["refund five days", "refund card fee", "refund five days", "opening hours today"]
    nodes = [TextNode(id_=f"d{i}", text=text) for i, text in enumerate(texts)]
    index = VectorStoreIndex(nodes, embed_model=WordEmbedding())
    dataset = RetrievalDataset.from_nodes(nodes, {"q": "refund days"}, {"q": ["d0"]})
    mined = mine_hard_negatives(dataset, index.as_retriever(similarity_top_k=4), num_negatives=2)
    assert mined.negatives == {"q": ["d1", "d3"]}
    assert mined.counts["near_duplicates"] + mined.counts["within_margin"] == 1
    assert next(mined.triplets()) == ("refund days", "refund five days", "refund card fee")
    assert [label for _, _, label in mined.labelled_pairs()] == [1, 0, 0]


class Fixed(BaseRetriever):
    """Gives the same nodes for every query."""

    def __init__(self, *pairs):
        super().__init__()
        self.pairs = pairs

    def _retrieve(self, bundle):
        return [NodeWithScore(node=TextNode(id_=i, text=i), score=s) for i, s in self.pairs]


def small(**relevant):
    corpus = {
        "a": "refunds take five working days to arrive",
        "b": "cards cost nothing in the first year",
        "c": "our branch opens at nine in the morning",
        "d": "transfers abroad take two days and a fee",
    }
    return RetrievalDataset(
        {id_: f"query {id_}" for id_ in relevant}, corpus, {id_: [d] for id_, d in relevant.items()}
    )


def test_vectors_take_near_duplicates_out_of_a_retrievers_answer_too():
    retriever = Fixed(("a", 1.0), ("b", 0.5), ("c", 0.4))
    vectors = np.array([[1, 0], [1, 0.01], [0, 1], [0, 1]], dtype=np.float32)
    mined = mine_hard_negatives(small(q="a"), retriever, vectors=vectors)
    assert mined.negatives == {"q": ["c"]}


def test_margin_is_relative_to_the_best_relevant_document():
    retriever = Fixed(("b", 0.99), ("a", 1.0), ("c", 0.96), ("d", 0.94))
    assert mine_hard_negatives(small(q="a"), retriever).negatives == {"q": ["d"]}
    without = mine_hard_negatives(small(q="a"), retriever, relative_margin=None)
    assert without.negatives == {"q": ["b", "c", "d"]}


def test_with_a_margin_a_query_whose_answer_was_not_retrieved_has_no_negatives():
    retriever = Fixed(("b", 0.9), ("c", 0.8))
    mined = mine_hard_negatives(small(q="a"), retriever)
    assert mined.negatives == {"q": []}
    assert mined.counts["positive_not_retrieved"] == 1
    assert mine_hard_negatives(small(q="a"), retriever, relative_margin=None).negatives["q"]


def test_ranks_count_relevant_documents():
    retriever = Fixed(("a", 1.0), ("b", 0.5), ("c", 0.4), ("d", 0.3))
    mined = mine_hard_negatives(small(q="a"), retriever, rank_range=(3, 3))
    assert mined.negatives == {"q": ["c"]}


def test_random_sampling_is_seeded():
    retriever = Fixed(("a", 1.0), ("b", 0.5), ("c", 0.4), ("d", 0.3))
    drawn = {
        tuple(
            mine_hard_negatives(
                small(q="a"), retriever, num_negatives=1, sampling="random", seed=seed
            ).negatives["q"]
        )
        for seed in [*range(12), *range(12)]
    }
    assert drawn == {("b",), ("c",), ("d",)}


def test_the_llm_takes_out_what_answers_after_all(tmp_path):
    llm = ScriptedLLM(answer=lambda prompt: "Yes" if "cards cost" in prompt else "No")
    retriever = Fixed(("a", 1.0), ("b", 0.5), ("c", 0.4), ("d", 0.3))
    for _ in range(2):
        mined = mine_hard_negatives(
            small(q="a"), retriever, num_negatives=1, llm=llm, output_path=tmp_path / "checks.jsonl"
        )
        assert mined.negatives == {"q": ["c"]}
        assert mined.counts["false_negatives"] == 1
    assert len(llm.prompts) == 2


def test_the_budget_of_llm_checks_is_kept():
    llm = ScriptedLLM(answer=lambda prompt: "No")
    retriever = Fixed(("a", 1.0), ("b", 0.5), ("c", 0.4), ("d", 0.3))
    dataset = small(q="a", p="a", r="a")
    mined = mine_hard_negatives(
        dataset, retriever, num_negatives=2, llm=llm, run=RunOptions(max_calls=4)
    )
    assert len(llm.prompts) == 4
    assert mined.counts["not_asked"] >= 1
    assert sorted(map(len, mined.negatives.values()))[0] == 0


def test_saved_and_loaded(tmp_path):
    mined = mine_hard_negatives(small(q="a"), Fixed(("a", 1.0), ("b", 0.5)))
    mined.save_negatives(tmp_path / "negatives.jsonl")
    assert MinedDataset.with_negatives(small(q="a"), tmp_path / "negatives.jsonl").negatives == {
        "q": ["b"]
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "pass a retriever, or vectors, or an embed_model"),
        (
            {"vectors": np.eye(4, dtype=np.float32)},
            ValueError,
            "1 queries have no vector",
        ),
        (
            {"vectors": np.eye(4), "query_vectors": np.ones((3, 4))},
            VectorError,
            "query_vectors must have shape",
        ),
        (
            {"vectors": {"a": [1.0, 0.0]}, "query_vectors": np.ones((1, 2))},
            ValueError,
            "3 documents have no vector; pass an embed_model",
        ),
        ({"vectors": np.eye(3), "query_vectors": np.ones((1, 3))}, VectorError, "vectors must"),
        ({"retriever": Fixed(("x", 1.0))}, DatasetError, "none of the retrieved nodes"),
        ({"rank_range": (0, 5)}, ValueError, "rank_range must be"),
        ({"rank_range": (9, 5)}, ValueError, "rank_range must be"),
        ({"relative_margin": 1.5}, ValueError, "relative_margin must be"),
        ({"num_negatives": 0}, ValueError, "num_negatives must be"),
        ({"sampling": "hardest"}, ValueError, "choose one of: top, random"),
        (
            {"vectors": np.eye(4), "query_vectors": np.ones((1, 4)), "backend": "gpu"},
            ValueError,
            "unknown backend 'gpu'",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        mine_hard_negatives(small(q="a"), **arguments)
