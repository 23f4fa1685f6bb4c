"""A cross-encoder of one tiny layer and a vocabulary of the corpus' words."""

import asyncio
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llama_index.tuning import (
    CrossEncoderFinetuneEngine,
    LightReranker,
    RelevanceDataset,
    TunedReranker,
    TunedRetriever,
    load_reranker,
)
from llama_index.tuning.errors import ArtifactError, DatasetError, NotFinetunedError
from llama_index.tuning.hf.cross_encoders import load_cross_encoder, predict
from llama_index.tuning.registry import get_engine
from llama_index.tuning.rerankers import CrossEncoderOptions
from llama_index.tuning.rerankers.cross.mixture import cautious_weight
from llama_index.tuning.rerankers.cross.model import fuse, list_logits
from llama_index.tuning.rerankers.cross.train import graded_lists, positive_weight, training_rows
from llama_index.tuning.rerankers.data import FeatureMaker, counted_words, split_lists
from llama_index.tuning.rerankers.light.fit import ndcg
from llama_index.tuning.rerankers.light.model import default_ranker
from llama_index.tuning.text.words import Analyzer
from tests.tiny_bert import save_tiny_bert

from .conftest import NoisyRetriever, Untouched, ids, nodes, shop

ON_CPU = {"device": "cpu", "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    data = shop()
    texts = [*data.corpus.values(), *data.queries.values()]
    return save_tiny_bert(tmp_path_factory.mktemp("tiny"), texts)


@pytest.fixture
def data(shop_data):
    return RelevanceDataset.from_retriever(shop_data, NoisyRetriever(shop_data, k=8))


def engine(data, tiny, path, options=None, **arguments):
    settings = CrossEncoderOptions(**{**ON_CPU, "max_steps": 6, **(options or {})})
    return CrossEncoderFinetuneEngine(
        data, tiny, path and str(path), **{"evaluation_steps": 3, **arguments}, options=settings
    )


def test_baselines_use_the_language_of_the_app(data, tiny, tmp_path):
    tuning = engine(data, tiny, tmp_path / "x", {"max_steps": 2, "language": "german"})
    tuning.finetune()
    assert tuning.get_finetuned_model().analyzer.language == "german"


@pytest.mark.parametrize("partner", ["light", "retriever"])
def test_what_was_measured_is_what_a_tuned_retriever_serves(shop_data, tiny, tmp_path, partner):
    base = NoisyRetriever(shop_data, k=8)
    fused = TunedRetriever(base, base.nodes, reranker=None, depth=8, top_k=8)
    options = {"partner": partner, "max_steps": 2, "depth": 8}
    tuning = engine(shop_data, tiny, tmp_path / "x", options, retriever=fused, accept="always")
    tuning.finetune()
    reranker = tuning.get_finetuned_model()
    assert (reranker.partner is None) == (partner == "retriever" or not reranker.fusion_weight)
    given, weight = RelevanceDataset.from_retriever(shop_data, fused), reranker.fusion_weight
    served = fused.with_reranker(reranker)
    for item in given.lists[:5]:
        found = fused.candidates(item.query)
        if reranker.partner is not None:
            others = reranker.partner.raw_scores(item.query, found, statistics=fused.index)
        else:
            others = np.array([np.nan if n.score is None else n.score for n in found])
        scores = fuse(list_logits(reranker.model, [item], 32)[0], others, weight)
        expected = [item.candidates[i].node_id for i in np.argsort(-scores, kind="stable")]
        assert ids(served.retrieve(item.query)) == expected
        assert ids(asyncio.run(served.aretrieve(item.query))) == expected
    served.save(tmp_path / "saved")
    again = TunedRetriever.load(tmp_path / "saved", base)
    assert isinstance(again.reranker, TunedReranker)
    query = given.lists[0].query
    assert ids(again.retrieve(query)) == ids(served.retrieve(query))


def test_the_weight_moves_only_for_a_gain_that_is_seen_beside_the_noise():
    light = np.random.default_rng(0).random(40)
    noise = np.tile([0.21, -0.19], 20)  # one query better, the next one worse
    assert cautious_weight({1.0: light, 0.5: light + noise, 0.0: light - 0.2}) == 1.0
    assert cautious_weight({1.0: light, 0.5: light + 0.1 + noise / 4, 0.0: light - 0.2}) == 0.5
    assert cautious_weight({1.0: light, 0.5: light, 0.0: light}) == 1.0


def test_a_light_reranker_of_the_same_queries_has_to_be_beaten(data, tiny, tmp_path):
    tuning = engine(data, tiny, tmp_path / "out", {"max_steps": 2})
    report = tuning.finetune()
    assert "against light re-ranker of the same queries" in report.slices
    assert "base: light re-ranker of the same queries" in report.reason
    assert not report.accepted
    again = load_reranker(tmp_path / "out")
    assert again.details["name"] == "light re-ranker of the same queries"
    refused = TunedReranker.load(tmp_path / "out" / "candidate", device="cpu")
    assert refused.details["accepted"] is False
    kept = tuning.get_finetuned_model(min_score=0.2)  # calibrated, though it is the base
    assert kept.details["name"] in report.reason
    assert isinstance(kept, LightReranker)
    assert kept.ranker.weights.tolist() != LightReranker().ranker.weights.tolist()
    asked = [item.query for item in data.lists]
    for served in (again, kept):  # both know what the light one has learnt
        assert len(asked) / 2 < len(served.learned.among(asked)) < len(asked)


def test_it_trains_saves_and_loads_here_and_in_the_stock_reranker(data, tiny, tmp_path, capfd):
    from llama_index.core.postprocessor import SentenceTransformerRerank

    tuning = engine(data, tiny, tmp_path / "out", accept="always")
    report = tuning.finetune()
    assert {"against no re-ranker", "against default light re-ranker"} <= set(report.slices)
    tuned = tuning.get_finetuned_model(top_n=3)
    again = TunedReranker.load(tmp_path / "out", top_n=3, device="cpu")
    assert "%|" not in capfd.readouterr().err  # no bar that was not asked for
    query = "what do the refund rules say"
    one = tuned.postprocess_nodes(nodes(), query_str=query)
    other = again.postprocess_nodes(nodes(), query_str=query)
    assert ids(one) == ids(other)
    assert [i.score for i in one] == pytest.approx([i.score for i in other], abs=1e-5)
    assert again.fusion_weight == tuned.fusion_weight
    named = tuning.get_finetuned_model(str(tmp_path / "out"), top_n=2)
    other = tuning.get_finetuned_model(tiny, top_n=2)  # any cross-encoder, as the old one did
    assert (named.top_n, other.top_n) == (2, 2)
    assert named.fusion_weight == tuned.fusion_weight
    assert again.fusion_weight == tuned.fusion_weight
    assert (again.partner is None) == (tuned.partner is None)
    stock = SentenceTransformerRerank(
        model=str(tmp_path / "out"), top_n=3, device="cpu", trust_remote_code=False
    )
    assert len(stock.postprocess_nodes(nodes(), query_str=query)) == 3


@pytest.mark.parametrize("loss", ["bce", "lambda", "listnet", "ranknet", "margin_mse", "adr_mse"])
def test_every_loss_moves_the_relevant_texts_up(shop_data, tiny, tmp_path, loss):
    texts = list(shop_data.corpus.values())[:4]  # the first answers whatever is asked
    queries = dict(list(shop_data.queries.items())[:30])
    lists = RelevanceDataset.from_labels(
        queries,
        {str(i): text for i, text in enumerate(texts)},
        {id_: {"0": 1, "1": 0, "2": 0, "3": 0} for id_ in queries},
    )

    def margin(model):
        scores = list_logits(model, lists.lists, 32)
        return np.mean([given[0] - given[1:].mean() for given in scores])

    before = margin(load_cross_encoder(tiny, device="cpu", trust_remote_code=False))
    options = {"loss": loss, "learning_rate": 2e-2, "max_steps": 60, "random_negatives": 0}
    tuning = engine(
        lists, tiny, tmp_path / "out", options, accept="always", batch_size=16, evaluation_steps=60
    )
    history = tuning.finetune().history
    assert margin(tuning.get_finetuned_model().model) > before + 0.01
    assert all(np.isfinite(entry["loss"]) for entry in history if "loss" in entry)


@pytest.mark.parametrize("made", [True, False])
def test_a_loss_of_the_users_trains_the_model_that_is_served(data, tiny, tmp_path, made):
    from sentence_transformers.cross_encoder import losses

    loss = losses.BinaryCrossEntropyLoss
    if made:
        loss = loss(load_cross_encoder(tiny, device="cpu", trust_remote_code=False))
    tuning = engine(data, tiny, None, loss=loss, accept="always")
    tuning.finetune()
    pairs = [("what do the refund rules say", item.node.text) for item in nodes()]
    base = load_cross_encoder(tiny, device="cpu", trust_remote_code=False)
    tuned = predict(tuning.get_finetuned_model().model, pairs, 32)
    assert np.abs(tuned - predict(base, pairs, 32)).min() > 1e-4


def test_bfloat16_trains_and_serves_in_full(data, tiny, tmp_path):
    tuning = engine(data, tiny, tmp_path / "out", {"bf16": True, "max_steps": 3}, accept="always")
    scores = [e["eval_ndcg@10"] for e in tuning.finetune().history if "eval_ndcg@10" in e]
    assert len(scores) == 1
    assert np.isfinite(scores).all()
    assert next(tuning.get_finetuned_model().model.parameters()).dtype.itemsize == 4


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, about transformers 6
def test_lora_is_merged_when_saved(data, tiny, tmp_path):
    tuning = engine(data, tiny, tmp_path / "out", {"lora_rank": 2}, accept="always")
    tuning.finetune()
    again = TunedReranker.load(tmp_path / "out", device="cpu")
    pairs = [("what do the refund rules say", item.node.text) for item in nodes()]
    # Its raw scores: in standard deviations, rounding looks large on a model that knows little.
    tuned = predict(tuning.get_finetuned_model().model, pairs, 32)
    np.testing.assert_allclose(tuned, predict(again.model, pairs, 32), atol=1e-7)


def test_resuming_equals_never_having_stopped(data, tiny, tmp_path):
    from safetensors.numpy import load_file

    whole = engine(data, tiny, tmp_path / "whole", {"max_steps": 6})
    whole.finetune()
    script = textwrap.dedent(
        """
        import os, sys
        import transformers
        from llama_index.tuning import CrossEncoderFinetuneEngine
        from llama_index.tuning.rerankers import CrossEncoderOptions
        from llama_index.tuning import RelevanceDataset
        def die(self, args, state, control, **_):
            if state.global_step == 3:
                os.kill(os.getpid(), 9)
        transformers.EarlyStoppingCallback.on_step_begin = die
        data = RelevanceDataset.from_jsonl(sys.argv[1])
        options = CrossEncoderOptions(device='cpu', learning_rate=1e-3, max_steps=6)
        CrossEncoderFinetuneEngine(
            data, sys.argv[2], sys.argv[3], evaluation_steps=3, options=options
        ).finetune()
        """
    )
    data.save_jsonl(tmp_path / "data.jsonl")
    out = tmp_path / "killed"
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data.jsonl"), tiny, str(out)],
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert (tmp_path / "killed.checkpoints" / "checkpoint-3").is_dir()
    engine(data, tiny, out, {"max_steps": 6, "resume": True}).finetune()
    assert not (tmp_path / "killed.checkpoints").exists()
    where = Path("candidate") / "model.safetensors"  # it learnt nothing in so few steps
    one, other = (load_file(tmp_path / name / where) for name in ("whole", "killed"))
    for name, weights in one.items():
        np.testing.assert_array_equal(weights, other[name])


def test_nothing_is_measured_on_what_the_base_has_learnt(data, tiny, tmp_path):
    engine(data, tiny, tmp_path / "first", {"max_steps": 1}, accept="always").finetune()
    learnt = TunedReranker.load(tmp_path / "first").learned.among([i.query for i in data.lists])
    known = [item.query_id for item in data.lists if item.query in learnt]
    fresh = RelevanceDataset(
        [replace(item, query=f"again, {item.query}") for item in data.lists if item.relevant]
    )
    again = engine(fresh, tmp_path / "first", tmp_path / "x", val_dataset=data.subset(known))
    with pytest.raises(DatasetError, match="has learnt"):
        again.finetune()


def test_rows_hold_hard_and_random_negatives_and_their_weight(data):
    options = CrossEncoderOptions(hard_negatives=2, random_negatives=1)
    lists = graded_lists(data.lists, options)
    assert all(len(texts) <= 4 for _, texts, _ in lists)
    rows = training_rows(lists, "bce")
    assert positive_weight(rows["label"]) == pytest.approx(
        rows["label"].count(0.0) / rows["label"].count(1.0)
    )
    triplets = training_rows([("q", ["a", "b", "c"], [3.0, 1.0, 0.0])], "margin_mse")
    assert triplets["label"] == [2.0, 3.0, 1.0]


def test_parts_share_no_relevant_node(data):
    train, held = split_lists(data, 0.3, 0)
    assert not {n for i in train.lists for n in i.relevant} & {
        n for i in held.lists for n in i.relevant
    }
    assert len(train) + len(held) == len(data)


def test_misuse_is_named(data, shop_data, tiny, tmp_path):
    with pytest.raises(NotFinetunedError, match=r"call finetune\(\) first"):
        engine(data, tiny, tmp_path / "x").get_finetuned_model()
    with pytest.raises(ValueError, match=r"^dataset is a RetrievalDataset: pass retriever="):
        engine(shop_data, tiny, tmp_path / "x").finetune()
    with pytest.raises(ValueError, match="epochs must be a whole number >= 1, got 0"):
        engine(data, tiny, tmp_path / "x", epochs=0)
    with pytest.raises(ValueError, match=r"options\.resume needs a model_output_path"):
        CrossEncoderFinetuneEngine(
            data, tiny, None, options=CrossEncoderOptions(device="cpu", resume=True)
        )
    with pytest.raises(TypeError, match="got NoisyRetriever; retriever= by name"):
        CrossEncoderFinetuneEngine(shop_data, NoisyRetriever(shop_data))
    one = RelevanceDataset.from_labels({"q": "x"}, {"a": "A", "b": "B"}, {"q": {"a": 1, "b": 0}})
    with pytest.raises(DatasetError, match="all 1 queries hang together"):
        engine(one, tiny, tmp_path / "x").finetune()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ArtifactError, match="exists and is not a saved component"):
        engine(data, tiny, tmp_path / "mine").finetune()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"options": {}}, TypeError, "options must be CrossEncoderOptions, got dict"),
        (
            {"base_reranker": "bge"},
            TypeError,
            "base_reranker must be a node postprocessor, got str",
        ),
        ({"batch_size": 2.5}, ValueError, r"batch_size must be a whole number >= 1, got 2\.5"),
        ({"model_id": "/no/model"}, ArtifactError, "the folder /no/model does not exist"),
        ({"model_output_path": "~/x"}, ValueError, "home folder to a shell alone"),
        ({"evaluation_steps": 0}, ValueError, "evaluation_steps must be a whole number >= 1"),
        ({"dataset": 3}, TypeError, "^dataset must be a RelevanceDataset, .*got int"),
        ({"val_dataset": "x.json"}, TypeError, "val_dataset must be a RelevanceDataset, .*got str"),
        ({"val_dataset": shop()}, DatasetError, "'q3-0' of val_dataset is query 'q3-0' of dataset"),
    ],
)
def test_arguments_are_checked_before_any_work(shop_data, tmp_path, arguments, error, message):
    given = {"model_id": "no/model", "model_output_path": str(tmp_path / "x"), **arguments}
    given = {"dataset": shop_data, "retriever": Untouched(shop_data), **given}
    with pytest.raises(error, match=message):
        CrossEncoderFinetuneEngine(**given).finetune()


def test_a_language_that_the_retriever_does_not_have_is_refused_at_once(shop_data, tmp_path):
    retriever = TunedRetriever(Untouched(shop_data), shop_data.to_nodes())
    with pytest.raises(ValueError, match=r"options ask for words as .*german.*the retriever has"):
        engine(
            shop_data, "no/model", tmp_path / "x", {"language": "german"}, retriever=retriever
        ).finetune()


def test_faulty_data_is_refused_before_a_model_is_loaded(data, tmp_path):
    only_yes = RelevanceDataset.from_labels(
        {f"q{i}": f"part {i}" for i in range(9)},
        {f"d{i}": f"about {i}" for i in range(9)},
        {f"q{i}": {f"d{i}": 1} for i in range(9)},
    )
    with pytest.raises(DatasetError, match="there is nothing to learn"):
        engine(only_yes, "no/model", tmp_path / "x", {"random_negatives": 0}).finetune()
    blind = RelevanceDataset([replace(item, query=f"other {item.query}") for item in data.lists])
    for item in blind.lists[1:]:
        object.__setattr__(item, "candidates", [])
    with pytest.raises(DatasetError, match="none of the 16 queries to decide by has a relevant"):
        engine(blind, "no/model", tmp_path / "x").finetune()


def test_a_validation_set_is_measured_with_the_words_that_are_served(data, tiny, tmp_path):
    learn, other = split_lists(data, 0.4, 0)
    # A word of every question, in most of these texts and in none of the others: rare there alone.
    lists = [
        [c if c.score else replace(c, text=f"{c.text} Part.") for c in item.candidates]
        for item in other.lists
    ]
    val = RelevanceDataset(
        [replace(item, candidates=given) for item, given in zip(other.lists, lists, strict=True)]
    )
    tuning = engine(learn, tiny, tmp_path / "x", {"max_steps": 2}, val_dataset=val)
    base = tuning.finetune().slices["against default light re-ranker"]["ndcg@10"].base

    def measured(dataset):
        maker = FeatureMaker(Analyzer(), counted_words(None, dataset, Analyzer()))
        lists = maker.lists(val)
        return ndcg(lists, [default_ranker().scores(item.features) for item in lists]).mean()

    assert base == pytest.approx(measured(learn))
    assert base != pytest.approx(measured(val))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "hinge"}, "unknown loss 'hinge'; choose one of: bce, lambda"),
        ({"partner": "me"}, "unknown partner 'me'; choose one of: light, retriever"),
        ({"held_out": 0.5}, r"held_out must be a number from 0\.01 to 0\.4, got 0\.5"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
        ({"depth": 2.5}, r"depth must be a whole number >= 2, got 2\.5"),
        ({"depths": (0,)}, "depths must be a whole number >= 1, got 0"),
        ({"max_steps": 0}, "max_steps must be a whole number >= 1, got 0"),
        ({"max_length": 0}, "max_length must be a whole number >= 1, got 0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"language": "klingon"}, "unknown language 'klingon'"),
        ({"hard_negatives": 0, "random_negatives": 0}, "must not both be 0"),
    ],
)
def test_options_check_themselves(fields, message):
    with pytest.raises(ValueError, match=message):
        CrossEncoderOptions(**fields)


def test_the_registry_knows_it():
    assert get_engine("cross-encoder") is CrossEncoderFinetuneEngine
