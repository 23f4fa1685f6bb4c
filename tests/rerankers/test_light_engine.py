import logging
from dataclasses import replace

import numpy as np
import pytest
from llama_index.core.schema import NodeWithScore

from llama_index.tuning import (
    LightReranker,
    LightRerankerFinetuneEngine,
    RelevanceDataset,
    RetrievalDataset,
    TunedRetriever,
)
from llama_index.tuning.datasets.records import Candidate, RelevanceList
from llama_index.tuning.errors import DatasetError, NotFinetunedError
from llama_index.tuning.evaluate import evaluate_retriever
from llama_index.tuning.registry import get_engine
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.rerankers import LightRerankerOptions
from llama_index.tuning.rerankers.serving import TURNED
from llama_index.tuning.text.statistics import WordStatistics
from llama_index.tuning.text.words import Analyzer
from tests.conftest import repeated

from .conftest import NoisyRetriever, Untouched, shop


def test_it_gains_over_every_baseline_that_looks_at_less(shop_data, noisy):
    engine = LightRerankerFinetuneEngine(shop_data, noisy, accept="always")
    report = engine.finetune()
    assert {"against no re-ranker", "against reciprocal rank fusion"} <= set(report.slices)
    assert report.slices["against no re-ranker"]["ndcg@10"].low > 0
    reranker = engine.get_finetuned_model(top_n=3)
    text = next(iter(shop_data.queries.values()))
    assert len(reranker.postprocess_nodes(noisy.retrieve(text), query_str=text)) == 3
    assert reranker.details["accepted"]


def test_a_question_that_comes_again_is_no_more_evidence():
    data = shop(n=30)
    often = repeated(data)
    report = LightRerankerFinetuneEngine(often, NoisyRetriever(often, k=30)).finetune()
    assert report.gains["ndcg@10"].n == len(data)


def test_on_shuffled_labels_the_app_keeps_what_it_had(caplog):
    data = shop(n=60)
    rng = np.random.default_rng(1)
    wrong = {id_: [f"d{rng.integers(60)}"] for id_ in data.queries}
    shuffled = RetrievalDataset(data.queries, data.corpus, wrong)
    engine = LightRerankerFinetuneEngine(shuffled, NoisyRetriever(data, k=30))
    report = engine.finetune()
    assert not report.accepted
    with caplog.at_level(logging.WARNING):
        kept = engine.get_finetuned_model()
    assert "the base re-ranker is kept" in caplog.text
    assert isinstance(kept, LightReranker)
    assert kept.details["name"] == "no re-ranker"
    assert "base: no re-ranker" in report.reason


def test_the_same_seed_gives_the_same_weights(shop_data, noisy):
    def once():
        engine = LightRerankerFinetuneEngine(shop_data, noisy, accept="always")
        engine.finetune()
        return engine.get_finetuned_model().fingerprint

    assert once() == once()


def test_it_measures_on_a_validation_set(shop_data):
    train, val = shop_data.split(0.4, by="document")
    engine = LightRerankerFinetuneEngine(train, NoisyRetriever(shop_data), val_dataset=val)
    report = engine.finetune()
    assert report.method == "validation set"
    assert report.gains["ndcg@10"].n == len(val)


def test_it_trains_on_the_candidates_of_a_tuned_retriever(shop_data, noisy):
    retriever = TunedRetriever(noisy, noisy.nodes, depth=20)
    engine = LightRerankerFinetuneEngine(shop_data, retriever, accept="always")
    report = engine.finetune()
    tuned = retriever.with_reranker(engine.get_finetuned_model())
    text = next(iter(shop_data.queries.values()))
    assert tuned.retrieve(text)[0].node.node_id == "d0"
    assert any("10 candidates" in name for name in report.slices)


@pytest.mark.parametrize("loss", ["listwise", "pairwise"])
@pytest.mark.parametrize("start", ["default", "zero"])
def test_losses_and_starts_all_learn(shop_data, noisy, loss, start):
    options = LightRerankerOptions(loss=loss, start=start, folds=3)
    engine = LightRerankerFinetuneEngine(shop_data, noisy, options=options, accept="always")
    assert engine.finetune().gains["ndcg@10"].tuned > 0.8


def test_metadata_becomes_a_feature():
    rng = np.random.default_rng(0)
    lists = []
    for i in range(60):
        kinds = [str(k) for k in rng.permutation(["tax", "loan", "card"])]
        wanted = kinds[int(rng.integers(3))]
        candidates = [
            Candidate(f"d{i}-{k}", "same text", float(k == wanted), 0.5, {"kind": k}) for k in kinds
        ]
        lists.append(RelevanceList(f"q{i}", f"about {wanted}", candidates))
    data = RelevanceDataset(lists)
    options = LightRerankerOptions(metadata_keys=("kind",))
    engine = LightRerankerFinetuneEngine(data, options=options)
    report = engine.finetune()
    assert report.accepted
    assert report.gains["ndcg@10"].tuned == pytest.approx(1.0)
    own = engine.get_finetuned_model()
    assert own.ranker.metadata_keys == ["kind"]
    again = LightRerankerFinetuneEngine(data, options=options, base_reranker=own).finetune()
    assert again.slices["against base re-ranker"]["ndcg@10"].base == pytest.approx(1.0)


def test_the_apps_own_reranker_is_a_baseline(shop_data, noisy):
    own = LightReranker()
    engine = LightRerankerFinetuneEngine(shop_data, noisy, base_reranker=own)
    report = engine.finetune()
    ours, default = (
        report.slices[f"against {name}"]["ndcg@10"].base
        for name in ("base re-ranker", "default light re-ranker")
    )
    assert ours == pytest.approx(default, abs=0.05)


def test_the_apps_own_reranker_is_measured_as_a_tuned_retriever_serves_it(shop_data, noisy):
    odd = ["what do the rules of article say part"] * 30 + list(shop_data.corpus.values())[:1]
    own = LightReranker(statistics=WordStatistics.of(Analyzer().codes(odd)))
    fused = TunedRetriever(noisy, noisy.nodes, depth=20)
    report = LightRerankerFinetuneEngine(shop_data, fused, base_reranker=own).finetune()
    base, default = (
        report.slices[f"against {name}"]["ndcg@10"].base
        for name in ("base re-ranker", "default light re-ranker")
    )
    assert base == pytest.approx(default)  # the same weights, and the same index
    served = evaluate_retriever(fused.with_reranker(own), shop_data)
    assert base == pytest.approx(served.mean()["ndcg@10"])


def test_probabilities_are_calibrated_on_held_out_queries(shop_data):
    train, test = shop(n=150).split(0.5, by="document")
    retriever = NoisyRetriever(train, found=0.7)
    retriever.answers |= NoisyRetriever(test).answers
    engine = LightRerankerFinetuneEngine(train, retriever, accept="always")
    engine.finetune()
    reranker = engine.get_finetuned_model()
    probabilities, relevant = [], []
    for id_, text in test.queries.items():
        for item in reranker.postprocess_nodes(retriever.retrieve(text), query_str=text):
            probabilities.append(item.score)
            relevant.append(item.node.node_id in test.relevant_docs[id_])
    assert abs(np.mean(probabilities) - np.mean(relevant)) < 0.03


def test_no_model_before_finetune(shop_data, noisy):
    with pytest.raises(NotFinetunedError, match=r"call finetune\(\) first"):
        LightRerankerFinetuneEngine(shop_data, noisy).get_finetuned_model()


def test_misuse_is_named(shop_data, noisy, tiny_dataset):
    with pytest.raises(ValueError, match="pass retriever=, whose candidates are re-ranked"):
        LightRerankerFinetuneEngine(shop_data).finetune()
    with pytest.raises(ValueError, match="unknown accept 'maybe'"):
        LightRerankerFinetuneEngine(shop_data, noisy, accept="maybe")
    with pytest.raises(TypeError, match="dataset must be a RelevanceDataset"):
        LightRerankerFinetuneEngine(3).finetune()
    only_yes = RelevanceDataset.from_labels({"q": "x"}, {"a": "A"}, {"q": {"a": 1}})
    with pytest.raises(DatasetError, match="there is nothing to learn: no query has both"):
        LightRerankerFinetuneEngine(only_yes).finetune()
    one = RelevanceDataset.from_labels({"q": "x"}, {"a": "A", "b": "B"}, {"q": {"a": 1, "b": 0}})
    with pytest.raises(DatasetError, match="all 1 queries hang together"):
        LightRerankerFinetuneEngine(one).finetune()


def test_a_validation_set_with_queries_of_the_training_set_is_refused(shop_data, noisy):
    whole = RelevanceDataset.from_retriever(shop_data, noisy)
    untouched = Untouched(shop_data)
    for dataset, val in ((shop_data, shop_data), (whole, whole.subset(["q3-0"]))):
        engine = LightRerankerFinetuneEngine(dataset, untouched, val_dataset=val)
        with pytest.raises(DatasetError, match="'q3-0' of val_dataset is query 'q3-0' of dataset"):
            engine.finetune()


def test_a_language_that_the_retriever_does_not_have_is_refused_at_once(shop_data, noisy):
    retriever = TunedRetriever(Untouched(shop_data), noisy.nodes)
    options = LightRerankerOptions(language="german")
    with pytest.raises(ValueError, match=r"options ask for words as .*german.*the retriever has"):
        LightRerankerFinetuneEngine(shop_data, retriever, options=options).finetune()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"loss": "hinge"}, ValueError, "unknown loss 'hinge'; choose one of: listwise, pairwise"),
        ({"start": "x"}, ValueError, "unknown start 'x'; choose one of: default, zero"),
        ({"folds": 1}, ValueError, "folds must be a whole number >= 2, got 1"),
        ({"depth": 1}, ValueError, "depth must be a whole number >= 2, got 1"),
        ({"depths": (0,)}, ValueError, "depths must be a whole number >= 1, got 0"),
        ({"depths": (True,)}, ValueError, "depths must be a whole number >= 1, got True"),
        ({"depths": 10}, TypeError, "depths must be a tuple of numbers, got 10"),
        ({"folds": None}, ValueError, "folds must be a whole number >= 2, got None"),
        ({"seed": -1}, ValueError, "seed must be a whole number >= 0, got -1"),
        ({"seed": "a"}, ValueError, "seed must be a whole number >= 0, got 'a'"),
        ({"language": "klingon"}, ValueError, "unknown language 'klingon'"),
        ({"stop_words": "the"}, TypeError, "stop_words must be a list of words, got 'the'"),
        ({"metadata_keys": "kind"}, TypeError, "metadata_keys must be a tuple of keys"),
        ({"metadata_keys": None}, TypeError, "metadata_keys must be a tuple of keys, got None"),
        ({"metadata_keys": (1,)}, TypeError, "metadata_keys must be different keys"),
        ({"metadata_keys": ("a", "a")}, TypeError, "metadata_keys must be different keys"),
    ],
)
def test_options_check_themselves(fields, error, message):
    with pytest.raises(error, match=message):
        LightRerankerOptions(**fields)


def test_options_take_numpys_integers_and_lists(shop_data, noisy, tmp_path):
    three = np.int64(3)
    options = LightRerankerOptions(depth=three, depths=[three], folds=three, seed=three)
    assert options == LightRerankerOptions(depth=3, depths=(3,), folds=3, seed=3)
    engine = LightRerankerFinetuneEngine(shop_data, noisy, options=options, accept="always")
    engine.finetune().save_json(tmp_path / "report.json")
    engine.get_finetuned_model().save(tmp_path / "r")
    assert LightReranker.load(tmp_path / "r").details["options"]["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"options": {}}, TypeError, "options must be LightRerankerOptions, got dict"),
        (
            {"base_reranker": "bge"},
            TypeError,
            "base_reranker must be a node postprocessor, got str",
        ),
        ({"num_workers": 0}, ValueError, "num_workers must be a whole number >= 1, got 0"),
        ({"num_workers": "2"}, ValueError, "num_workers must be a whole number >= 1, got '2'"),
        ({"val_dataset": "x.json"}, TypeError, "val_dataset must be a RelevanceDataset, .*got str"),
        ({"dataset": None}, TypeError, "^dataset must be a RelevanceDataset, .*got NoneType"),
    ],
)
def test_arguments_are_checked_before_any_work(shop_data, arguments, error, message):
    given = {"dataset": shop_data, "retriever": Untouched(shop_data), **arguments}
    with pytest.raises(error, match=message):
        LightRerankerFinetuneEngine(**given).finetune()


def test_queries_for_which_nothing_was_found_count_as_missed(shop_data, noisy):
    whole = RelevanceDataset.from_retriever(shop_data, noisy)
    lists = [replace(item, candidates=[], missed=item.relevant) for item in whole.lists[:20]]
    engine = LightRerankerFinetuneEngine(RelevanceDataset([*lists, *whole.lists[20:]]))
    report = engine.finetune()
    assert report.gains["ndcg@10"].n == 80
    assert report.notes[0].startswith(f"{sum(map(found, whole.lists[20:]))} of 80 queries have a")


def found(item):
    return any(candidate.score > 0 for candidate in item.candidates)


class Far(NoisyRetriever):
    """The same nodes in the same order, with distances for scores."""

    def _retrieve(self, query_bundle):
        return [
            NodeWithScore(node=item.node, score=-item.score)
            for item in super()._retrieve(query_bundle)
        ]


def test_distances_teach_the_same_and_are_noted(shop_data, noisy):
    reports = []
    for retriever in (noisy, Far(shop_data)):
        engine = LightRerankerFinetuneEngine(shop_data, retriever)
        reports.append((engine.finetune(), engine.get_finetuned_model().fingerprint))
    (near, weights), (far, same) = reports
    assert weights == same
    assert near.gains == far.gains
    assert [note for note in far.notes if note not in near.notes] == [TURNED]


def test_ten_queries_are_enough_to_run(shop_data, noisy):
    few = shop_data.subset(list(shop_data.queries)[:20:2])
    report = LightRerankerFinetuneEngine(few, noisy).finetune()
    assert report.gains["ndcg@10"].n == 10


def test_the_registry_knows_it():
    assert get_engine("light-reranker") is LightRerankerFinetuneEngine


def test_after_a_refusal_a_tuned_retrievers_own_reranker_stays(shop_data, noisy):
    few = shop_data.subset(list(shop_data.queries)[:8])
    fused = TunedRetriever(noisy, noisy.nodes, depth=20)
    engine = LightRerankerFinetuneEngine(few, fused)
    report = engine.finetune()  # eight queries decide nothing
    assert not report.accepted
    assert report.base == "default light re-ranker"
    assert engine.get_finetuned_model().fingerprint == LightReranker().fingerprint
    alone = LightRerankerFinetuneEngine(few, fused.with_reranker(None))
    assert alone.finetune().base == "reciprocal rank fusion"


def test_the_report_says_first_what_the_retriever_has_and_what_tuning_adds(shop_data, noisy):
    report = LightRerankerFinetuneEngine(shop_data, noisy).finetune()
    base, tuned = report.gains["ndcg@10"].base, report.gains["ndcg@10"].tuned
    alone = report.slices["against no re-ranker"]["ndcg@10"].base
    assert report.accepted
    served = f"your retriever {alone:.3f} → served {tuned:.3f}; of that, tuning {tuned - base:+.3f}"
    assert served in str(report).splitlines()[0]
    assert FinetuneReport.from_dict(report.to_dict()).headline == report.headline


def test_after_a_refusal_too_the_report_begins_with_what_is_served(shop_data, noisy):
    few = shop_data.subset(list(shop_data.queries)[:8])
    report = LightRerankerFinetuneEngine(few, TunedRetriever(noisy, noisy.nodes)).finetune()
    alone = report.slices["against no re-ranker"]["ndcg@10"].base
    first, second = str(report).splitlines()[:2]
    assert f"your retriever {alone:.3f} → served {report.gains['ndcg@10'].base:.3f}" in first
    assert first.endswith("(default light re-ranker); of that, tuning +0.000")
    assert second.startswith("base kept: no gain is shown")


def test_queries_that_all_share_nodes_are_folded_by_query(shop_data, noisy):
    whole = RelevanceDataset.from_retriever(shop_data, noisy)
    lists = [
        replace(item, missed={**item.missed, **dict.fromkeys((f"x{i}", f"x{i + 1}"), 1.0)})
        for i, item in enumerate(whole.lists[:12])
    ]
    assert len(RelevanceDataset(lists).groups()) == 1
    report = LightRerankerFinetuneEngine(RelevanceDataset(lists)).finetune()
    assert any("folds are by query" in note for note in report.notes)
