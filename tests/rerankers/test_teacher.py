"""Re-rankers that learn from another re-ranker's scores."""

import re
from dataclasses import replace

import numpy as np
import pytest
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore

from llama_index.tuning import (
    CrossEncoderFinetuneEngine,
    LightRerankerFinetuneEngine,
    RelevanceDataset,
    TunedReranker,
    label_by_reranker,
)
from llama_index.tuning.datasets.records import Candidate, RelevanceList
from llama_index.tuning.hf.cross_encoders import predict
from llama_index.tuning.rerankers import CrossEncoderOptions
from llama_index.tuning.rerankers.cross.train import graded_lists, training_rows
from llama_index.tuning.rerankers.light.features import sigmoid
from tests.tiny_bert import save_tiny_bert

from .conftest import NoisyRetriever, shop


class SharedWords(BaseNodePostprocessor):
    """Finds every passage relevant to a degree, by the share of the query's words in it."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        asked = set(re.findall(r"\w+", query_bundle.query_str.lower()))
        scored = []
        for item in nodes:
            told = set(re.findall(r"\w+", item.node.get_content().lower()))
            score = 0.05 + 0.9 * len(asked & told) / len(asked)
            scored.append(NodeWithScore(node=item.node, score=score))
        return sorted(scored, key=lambda item: -item.score)


@pytest.fixture(scope="module")
def corpus():
    return shop(60)


@pytest.fixture(scope="module")
def retriever(corpus):
    return NoisyRetriever(corpus, k=10)


@pytest.fixture(scope="module")
def lessons(corpus, retriever):
    """The teacher's lists of the queries about the first forty documents, and of the others."""
    taught, held_out = {}, {}
    for id_, text in corpus.queries.items():
        (taught if int(id_[1:].partition("-")[0]) < 40 else held_out)[id_] = text
    both = [label_by_reranker(texts, retriever, SharedWords()) for texts in (taught, held_out)]
    assert all(candidate.score > 0 for candidate in both[0].lists[0].candidates)
    return both


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, corpus):
    texts = [*corpus.corpus.values(), *corpus.queries.values()]
    return save_tiny_bert(tmp_path_factory.mktemp("tiny"), texts)


def test_a_light_reranker_learns_a_teachers_order(lessons):
    taught, held_out = lessons
    engine = LightRerankerFinetuneEngine(taught, val_dataset=held_out)
    report = engine.finetune()
    gain = report.slices["against no re-ranker"]["ndcg@10"]
    assert gain.low > 0.05
    assert gain.tuned > 0.95
    assert any("only nDCG@10" in note for note in report.notes)
    # Cross-fitted on its own queries it sees the same, since their groups do not hang together.
    alone = LightRerankerFinetuneEngine(taught).finetune()
    assert alone.slices["against no re-ranker"]["ndcg@10"].low > 0.05


def test_a_teacher_of_raw_scores_is_followed_as_well(lessons):
    def raw(dataset):  # most of them far from the end of the scale, as a cross-encoder's logits
        return RelevanceDataset(
            [
                replace(item, candidates=[replace(c, score=10 + c.score) for c in item.candidates])
                for item in dataset.lists
            ]
        )

    taught, held_out = map(raw, lessons)
    engine = LightRerankerFinetuneEngine(taught, val_dataset=held_out, accept="always")
    assert engine.finetune().options["loss"] == "pairwise"
    learnt, plain = engine.get_finetuned_model(), LightRerankerFinetuneEngine(*lessons[:1])
    plain.finetune()
    one, other = learnt.ranker.weights, plain.get_finetuned_model().ranker.weights
    np.testing.assert_allclose(one, other, atol=0.05 * np.abs(other).max())


def test_a_light_rerankers_probabilities_are_the_teachers(lessons, retriever, corpus):
    taught, held_out = lessons
    engine = LightRerankerFinetuneEngine(taught, val_dataset=held_out, accept="always")
    engine.finetune()
    reranker = engine.get_finetuned_model()
    by_hand = {(p.query, p.node_id): p.score for p in held_out.pairs()}
    differences = [
        item.score - by_hand[text, item.node.node_id]
        for text in {item.query for item in held_out.lists}
        for item in reranker.postprocess_nodes(retriever.retrieve(text), query_str=text)
    ]
    assert abs(sum(differences) / len(differences)) < 0.03
    assert sum(map(abs, differences)) / len(differences) < 0.1


@pytest.mark.parametrize("loss", ["margin_mse", "adr_mse"])
def test_a_cross_encoder_learns_from_a_teacher_and_is_measured_on_labels(
    lessons, corpus, retriever, tiny, tmp_path, loss
):
    ids = [item.query_id for item in lessons[1].lists]
    labels = RelevanceDataset.from_retriever(corpus, retriever).subset(ids)
    engine = CrossEncoderFinetuneEngine(
        lessons[0],
        tiny,
        str(tmp_path / "out"),
        batch_size=16,
        evaluation_steps=20,
        val_dataset=labels,
        options=CrossEncoderOptions(loss=loss, device="cpu", learning_rate=5e-3, max_steps=40),
        accept="always",
    )
    report = engine.finetune()
    scores = [entry["eval_ndcg@10"] for entry in report.history if "eval_ndcg@10" in entry]
    assert 0.5 < scores[0] < 1
    assert report.gains["ndcg@10"].n == sum(bool(item.relevant) for item in labels.lists)
    assert not any("only nDCG@10" in note for note in report.notes)
    text = next(iter(corpus.queries.values()))
    served = engine.get_finetuned_model().postprocess_nodes(
        retriever.retrieve(text), query_str=text
    )
    assert all(0 < item.score < 1 for item in served)


def test_stock_and_tuned_cross_encoders_teach(retriever, tiny, corpus):
    from llama_index.core.postprocessor import SentenceTransformerRerank

    queries = dict(list(corpus.queries.items())[:4])
    stock = SentenceTransformerRerank(
        model=tiny, top_n=10, device="cpu", keep_retrieval_score=True, trust_remote_code=False
    )
    tuned = TunedReranker(tiny, device="cpu")
    theirs = label_by_reranker(queries, retriever, stock)
    ours = label_by_reranker(queries, retriever, tuned)
    assert all("retrieval_score" not in node.metadata for node in retriever.nodes)
    for one, other in zip(theirs.lists, ours.lists, strict=True):
        pairs = [(one.query, candidate.text) for candidate in one.candidates]
        logits = predict(tuned.model, pairs, 32)
        raised = logits - min(0.0, logits.min())
        assert [c.score for c in one.candidates] == pytest.approx(sigmoid(logits), abs=1e-6)
        assert [c.score for c in other.candidates] == pytest.approx(raised, abs=1e-6)
        found = retriever.retrieve(one.query)
        assert [c.retrieval_score for c in one.candidates] == [item.score for item in found]


def lists_of(*grades):
    return [
        RelevanceList(
            f"q{n}", f"query {n}", [Candidate(f"{n}-{i}", f"{n}-{i}", g) for i, g in enumerate(own)]
        )
        for n, own in enumerate(grades)
    ]


@pytest.mark.parametrize(
    ("grades", "least"),
    [
        (((0.9, 0.4), (0.8, 0.3)), 0.3),  # a teacher whose scale does not begin at 0
        (((5.0, 1.0), (3.0, 2.0)), 1.0),
        (((8.0, 0.0), (5.0, 3.0)), 0.0),
        (((1.0, 0.0), (1.0, 0.0)), 0.0),
        (((1.0, 1.0), (1.0, 1.0)), 0.0),  # no scale at all
    ],
)
def test_texts_that_the_teacher_never_saw_get_the_least_that_it_gave(grades, least):
    options = CrossEncoderOptions(random_negatives=8, seed=1)
    for n, (_, texts, scores) in enumerate(graded_lists(lists_of(*grades), options)):
        drawn = {t: s for t, s in zip(texts, scores, strict=True) if not t.startswith(f"{n}-")}
        assert drawn
        assert set(drawn.values()) == {least}
        assert scores[:1] == [grades[n][0]]


@pytest.mark.parametrize(
    ("scores", "labels"),
    [((0.8, 0.2), [0.8, 0.2]), ((1.0, 0.0), [1.0, 0.0]), ((3.0, 1.5), [1, 0.5])],
)
def test_soft_labels_are_a_teachers_probabilities_or_shares_of_its_best(scores, labels):
    assert training_rows([("q", ["a", "b"], [*scores])], "bce")["label"] == labels
