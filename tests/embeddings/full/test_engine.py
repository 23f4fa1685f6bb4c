"""What a user sees of the engine: report, model, folder."""

import json

import numpy as np
import pytest

from llama_index.tuning import RelevanceDataset, RetrievalDataset
from llama_index.tuning.errors import NotFinetunedError, TuningError
from llama_index.tuning.registry import get_engine


def vectors(model, texts=("What do the refund rules say?", "Fees are due.")):
    return np.array(model.get_text_embedding_batch(list(texts)))


def test_it_learns_reports_saves_and_serves(engine, data, tmp_path):
    from llama_index.core.embeddings.utils import resolve_embed_model
    from sentence_transformers import SentenceTransformer

    tuning = engine({"max_steps": 60}, batch_size=8, evaluation_steps=20)
    with pytest.raises(NotFinetunedError, match=r"call finetune\(\) first"):
        tuning.get_finetuned_model()
    report = tuning.finetune()
    gain = report.gains["ndcg@10"]
    assert report.accepted
    assert gain.mean > 0.1
    costs = report.data["costs"]
    assert costs["documents_must_be_embedded_again"]
    assert costs["dimension"] == 32
    pooler = 32 * 32 + 32  # BERT's, which mean pooling does not use
    assert costs["trained_parameters"] == costs["parameters"] - pooler
    assert "must be embedded again" in str(report)

    served = vectors(tuning.get_finetuned_model())
    assert served.shape == (2, 32)
    out = tmp_path / "out"
    local = vectors(resolve_embed_model(f"local:{out}"))
    np.testing.assert_allclose(served, local, atol=1e-6)
    plain = SentenceTransformer(str(out), device="cpu").encode(
        ["What do the refund rules say?", "Fees are due."], normalize_embeddings=True
    )
    np.testing.assert_allclose(served, plain, atol=1e-6)
    card = (out / "README.md").read_text()
    assert "HuggingFaceEmbedding(" in card
    assert report.data["teach"]["fingerprint"] in card
    assert json.loads((out / "report.json").read_text())["accepted"]
    assert not (tmp_path / "out.checkpoints").exists()


def test_the_gate_keeps_the_base_and_the_folder_serves_it(engine, tiny, tmp_path, caplog):
    tuning = engine({"max_steps": 2, "learning_rate": 1e-7}, evaluation_steps=1)
    report = tuning.finetune()
    assert not report.accepted
    model = tuning.get_finetuned_model()
    assert model.model_name == tiny
    assert "the base model is kept" in caplog.text
    from sentence_transformers import SentenceTransformer

    base, kept = (SentenceTransformer(str(p), device="cpu") for p in (tiny, tmp_path / "out"))
    np.testing.assert_array_equal(base.encode(["refund rules"]), kept.encode(["refund rules"]))
    assert (tmp_path / "out" / "candidate" / "model.safetensors").is_file()
    with pytest.raises(TuningError, match="nothing is uploaded, the base model is kept"):
        tuning.push_to_hub("me/model")


@pytest.mark.parametrize("accept", ["always", "gain"])
def test_another_session_opens_what_was_written(engine, prompted, tmp_path, accept):
    options = {"max_steps": 1, "learning_rate": 1e-7 if accept == "gain" else 2e-3}
    first = engine(options, model_id=prompted, accept=accept)
    first.finetune()
    later = engine(options, model_id=prompted)
    here, there = first.get_finetuned_model(), later.get_finetuned_model()
    assert here.query_instruction == there.query_instruction == "query: "
    np.testing.assert_array_equal(vectors(here), vectors(there))
    assert here.model_name == there.model_name
    later.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "candidate").is_dir() == (accept == "gain")
    assert later.report.accepted == first.report.accepted == (accept == "always")


def test_without_a_folder_it_serves_from_memory_and_saves(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tuning = engine({"max_steps": 1}, accept="always", model_output_path=None)
    tuning.finetune()
    served = vectors(tuning.get_finetuned_model())
    assert list(tmp_path.iterdir()) == []
    tuning.save(tmp_path / "copy")
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    loaded = HuggingFaceEmbedding(str(tmp_path / "copy"), device="cpu")
    np.testing.assert_allclose(served, vectors(loaded), atol=1e-6)
    with pytest.raises(ValueError, match="checkpoints lie beside model_output_path"):
        engine(model_output_path=None, save_checkpoints=True)


def test_a_validation_set_is_measured_and_documents_of_training_queries_are_told_apart(
    engine, data
):
    train, rest = data.split(0.3, seed=3)
    report = engine(dataset=train, val_dataset=rest).finetune()
    assert report.method == "validation set"
    assert report.gains["ndcg@10"].n == len(rest)
    assert report.data["measured"]["fingerprint"] == rest.fingerprint()
    names = {"documents with training queries", "documents without training queries"}
    assert names <= set(report.slices)


def test_no_query_or_document_is_in_two_parts(engine, data):
    from llama_index.tuning.embeddings.adapter.data import check_data
    from llama_index.tuning.embeddings.full.data import split

    tuning = engine()
    parts = split(check_data(data, data.corpus, None, tuning.options), tuning.options)
    queries = [set(p.queries) for p in (parts.teach, parts.decide, parts.measured)]
    relevant = [
        {doc for docs in p.relevant_docs.values() for doc in docs}
        for p in (parts.teach, parts.decide, parts.measured)
    ]
    for sets in (queries, relevant):
        assert not sets[0] & sets[1]
        assert not sets[0] & sets[2]
        assert not sets[1] & sets[2]
    assert sum(map(len, queries)) == len(data)


def test_where_all_queries_share_documents_they_are_split_by_query_and_the_report_says_so(engine):
    corpus = {f"d{i}": f"Article {i} about the refund rules" for i in range(30)}
    queries = {f"q{i}": f"What do the rules of article {i} say" for i in range(30)}
    relevant = {f"q{i}": [f"d{i}", f"d{(i + 1) % 30}"] for i in range(30)}
    report = engine(dataset=RetrievalDataset(queries, corpus, relevant)).finetune()
    assert "apart by query" in report.method
    assert any("could not be held out by document" in note for note in report.notes)


def test_sentences_of_unlabelled_documents_teach_too_and_alone(engine, data):
    more = engine(unlabelled=data.corpus).finetune()
    assert more.data["sentences"]["queries"] > 0
    assert more.data["pairs"] > engine().finetune().data["pairs"]
    alone = engine(dataset=None, unlabelled=data.corpus).finetune()
    assert any("stand in for questions" in note for note in alone.notes)


def test_prompts_are_read_applied_and_served(engine, data, prompted, tmp_path):
    from sentence_transformers import SentenceTransformer

    tuning = engine({"max_steps": 2}, model_id=prompted, accept="always")
    report = tuning.finetune()
    assert any("'query: '" in note for note in report.notes)
    served = tuning.get_finetuned_model()
    plain = SentenceTransformer(str(tmp_path / "out"), device="cpu", prompts={})
    both = plain.encode(["query: refund rules", "passage: refund rules"], normalize_embeddings=True)
    np.testing.assert_allclose(served.get_query_embedding("refund rules"), both[0], atol=1e-6)
    np.testing.assert_allclose(served.get_text_embedding("refund rules"), both[1], atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 1e-3


def test_prompts_come_from_options_the_model_or_what_llamaindex_knows():
    from types import SimpleNamespace

    from llama_index.tuning.embeddings import SentenceTransformersOptions
    from llama_index.tuning.embeddings.full.settings import prompts_of

    bare = SimpleNamespace(prompts={"query": "", "document": ""})
    own = SimpleNamespace(prompts={"query": "q: ", "passage": "p: "})
    none = SentenceTransformersOptions()
    chosen = SentenceTransformersOptions(query_prompt="", document_prompt="d: ")
    known = "Represent this question for searching relevant passages: "
    assert prompts_of(bare, "BAAI/bge-small-en", none) == (known, "")
    assert prompts_of(own, "BAAI/bge-small-en", none) == ("q: ", "p: ")
    assert prompts_of(own, "BAAI/bge-small-en", chosen) == ("", "d: ")
    assert prompts_of(bare, "me/mine", none) == ("", "")


def test_prompts_reach_training(data, prompted, engine):
    seen = []
    from sentence_transformers.sentence_transformer import losses

    class Watching(losses.MultipleNegativesRankingLoss):
        def forward(self, features, labels):
            seen.extend(f["input_ids"][:, 1:3].tolist() for f in features)
            return super().forward(features, labels)

    engine({"max_steps": 1}, model_id=prompted, loss=Watching).finetune()
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(prompted).convert_tokens_to_ids
    assert seen[0] == [words(["query", ":"])] * 4
    assert seen[1] == [words(["passage", ":"])] * 4


def test_texts_are_shorter_while_training_only(engine, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    lengths = []

    class Watching(losses.MultipleNegativesRankingLoss):
        def forward(self, features, labels):
            lengths.extend(f["input_ids"].shape[1] for f in features)
            return super().forward(features, labels)

    engine({"max_steps": 2, "max_length": 8}, loss=Watching).finetune()
    assert max(lengths) == 8
    assert SentenceTransformer(str(tmp_path / "out"), device="cpu").max_seq_length == 64


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("CachedMultipleNegativesRankingLoss", {"mini_batch_size": 2}),
        ("MultipleNegativesRankingLoss", {"hard_negatives": 2}),
        ("MultipleNegativesRankingLoss", {"matryoshka_dims": (32, 8)}),
        ("CachedMultipleNegativesRankingLoss", {"matryoshka_dims": (32, 8)}),
        ("MultipleNegativesRankingLoss", {"gradient_checkpointing": True}),
        ("GISTEmbedLoss", {}),
        ("CachedGISTEmbedLoss", {"mini_batch_size": 2}),
        ("TripletLoss", {"hard_negatives": 1}),
        ("CoSENTLoss", {"hard_negatives": 1}),
    ],
)
def test_every_loss_trains(engine, loss, options):
    report = engine({"max_steps": 2, **options}, loss=loss, accept="always").finetune()
    assert any(entry.get("grad_norm", 0) > 0 for entry in report.history)
    assert report.options["loss"] == loss
    if "matryoshka_dims" in options:
        assert report.slices["first 8 dimensions"]["ndcg@10"].n


@pytest.mark.parametrize("loss", ["MarginMSELoss", "DistillKLDivLoss", "CoSENTLoss"])
def test_a_teachers_scores_are_followed(engine, data, loss):
    labels = {
        id_: {docs[0]: 0.9, f"d{(int(docs[0][1:]) + 1) % 30}": 0.2, "d0": 0.1, "d1": 0.05}
        for id_, docs in data.relevant_docs.items()
    }
    scores = RelevanceDataset.from_labels(data.queries, data.corpus, labels)
    report = engine({"max_steps": 2}, loss=loss, scores=scores, accept="always").finetune()
    assert any(entry.get("grad_norm", 0) > 0 for entry in report.history)


def test_scored_rows_hold_what_their_loss_wants():
    from llama_index.tuning.embeddings.full.data import list_rows, margin_rows, scored_pairs

    lists = RelevanceDataset.from_labels(
        {"q": "question", "r": "other"},
        {"a": "A", "b": "B", "c": "C", "d": "D"},
        {"q": {"a": 8.0, "b": 2.0, "c": 0.0}, "r": {"a": 4.0, "d": 1.0}},
    ).lists
    assert scored_pairs(lists).columns["label"] == [1.0, 0.25, 0.0, 0.5, 0.125]
    margins = margin_rows(lists).columns
    assert margins["label"] == [0.75, 1.0, 0.375]
    assert margins["other"] == ["B", "C", "D"]
    cut = list_rows(lists).columns
    assert cut["label"] == [[1.0, 0.0], [0.5, 0.125]]
    assert cut["document_2"] == ["C", "D"]


def test_a_mined_datasets_own_negatives_are_used(engine, data):
    from llama_index.tuning.generate import MinedDataset

    seen = set()
    from sentence_transformers.sentence_transformer import losses

    class Watching(losses.MultipleNegativesRankingLoss):
        def forward(self, features, labels):
            seen.add(len(features))
            return super().forward(features, labels)

    other = {id_: [f"d{(int(docs[0][1:]) + 1) % 30}"] for id_, docs in data.relevant_docs.items()}
    mined = MinedDataset(data.queries, data.corpus, data.relevant_docs, negatives=other)
    engine({"max_steps": 1}, dataset=mined, loss=Watching).finetune()
    assert seen == {3}


def test_a_loss_object_is_bound_to_the_model_that_is_trained(engine, tiny):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    mine = SentenceTransformer(tiny, device="cpu")
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    inner = losses.MultipleNegativesRankingLoss(mine)
    loss = losses.MatryoshkaLoss(mine, inner, matryoshka_dims=[32, 16])
    tuning = engine({"max_steps": 2}, loss=loss, accept="always")
    report = tuning.finetune()
    assert report.options["loss"] == "MultipleNegativesRankingLoss"
    assert all((mine.state_dict()[name] == tensor).all() for name, tensor in before.items())
    tuned = vectors(tuning.get_finetuned_model())
    assert np.abs(tuned - mine.encode(["x", "y"])).max() > 0


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, about transformers 6
def test_lora_keeps_its_best_checkpoint_and_is_merged_when_saved(engine, tmp_path):
    from safetensors.numpy import load_file

    tuning = engine({"lora_rank": 2, "max_steps": 4, "tolerance": 0.0}, accept="always")
    report = tuning.finetune()
    costs = report.data["costs"]
    assert 0 < costs["trained_parameters"] < costs["parameters"] / 4
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert not any("lora" in name for name in names)
    assert vectors(tuning.get_finetuned_model()).shape == (2, 32)
    best = max(entry["eval_ndcg@10"] for entry in report.history if "eval_ndcg@10" in entry)
    from sentence_transformers import SentenceTransformer

    from llama_index.tuning.embeddings.adapter.data import check_data
    from llama_index.tuning.embeddings.full.data import deciding_corpus, split
    from llama_index.tuning.embeddings.full.settings import Prompts
    from llama_index.tuning.embeddings.full.train import DecidingEvaluator

    parts = split(check_data(tuning.dataset, None, None, tuning.options), tuning.options)
    decide = DecidingEvaluator(deciding_corpus(parts.decide, 500, 0), Prompts("", ""))
    saved = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert decide(saved)["ndcg@10"] == pytest.approx(best)


@pytest.mark.parametrize(("tolerance", "kept"), [(0.0, 2), (0.5, 4)])
def test_an_earlier_checkpoint_must_be_better_by_more_than_noise(
    engine, tmp_path, monkeypatch, tolerance, kept
):
    from safetensors.numpy import load_file

    from llama_index.tuning.embeddings.full.train import DecidingEvaluator

    scores = iter([0.6, 0.4])
    monkeypatch.setattr(DecidingEvaluator, "__call__", lambda *_, **__: {"ndcg@10": next(scores)})
    engine({"tolerance": tolerance}, accept="always", save_checkpoints=True).finetune()
    saved = load_file(tmp_path / "out" / "model.safetensors")
    checkpoint = tmp_path / "out.checkpoints" / f"checkpoint-{kept}" / "model.safetensors"
    for name, expected in load_file(checkpoint).items():
        np.testing.assert_array_equal(saved[name], expected)


def test_frozen_parameters_stay(engine, tiny, tmp_path):
    from safetensors.numpy import load_file

    report = engine({"freeze": ("embeddings", r"layer\.0")}, accept="always").finetune()
    before, after = (load_file(f"{p}/model.safetensors") for p in (tiny, tmp_path / "out"))
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed
    assert all("layer.1" in name or "pooler" in name for name in changed)
    assert report.data["costs"]["trained_parameters"] < report.data["costs"]["parameters"]


def test_merging_averages_the_weights_and_decides_on_other_queries(engine, tiny, tmp_path):
    from safetensors.numpy import load_file

    engine({"max_steps": 2}, accept="always").finetune()
    before, tuned = (load_file(f"{p}/model.safetensors") for p in (tiny, tmp_path / "out"))
    report = engine({"max_steps": 2, "merge": (0.25,)}, accept="always").finetune()
    merged = load_file(tmp_path / "out" / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    np.testing.assert_allclose(
        merged[name], 0.75 * before[name] + 0.25 * tuned[name], rtol=1e-4, atol=1e-6
    )
    assert report.data["merge"]["share"] == 0.25
    tried = engine({"max_steps": 2, "merge": (0.5, 1.0)}).finetune().data["merge"]
    assert set(tried["deciding_ndcg@10"]) == {"0.5", "1.0"}


def test_a_base_in_half_precision_learns_as_much_and_stays_as_small(engine, tiny, tmp_path):
    import torch
    from sentence_transformers import SentenceTransformer

    half = str(tmp_path / "half")
    SentenceTransformer(tiny, device="cpu").half().save_pretrained(half)
    whole, found = (
        engine({"max_steps": 10}, model_id=base, accept="always").finetune().gains["ndcg@10"]
        for base in (tiny, half)
    )
    assert found.tuned == pytest.approx(whole.tuned, abs=0.02)
    saved = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert {parameter.dtype for parameter in saved.parameters()} == {torch.float16}


def test_callbacks_and_bf16(engine):
    from transformers import TrainerCallback

    steps = []

    class Count(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.append(state.global_step)

    report = engine({"precision": "bf16", "max_steps": 3}, callbacks=[Count()]).finetune()
    assert steps == [1, 2, 3]
    assert report.options["trained_in"] == "bf16"
    assert "eval_ndcg@10" in report.history[-2] or "eval_ndcg@10" in report.history[-1]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, about transformers 6
@pytest.mark.parametrize("rank", [0, 2])
def test_the_same_seed_gives_the_same_weights(engine, tmp_path, rank):
    from safetensors.numpy import load_file

    found = []
    for seed in (0, 0, 1):
        engine({"seed": seed, "lora_rank": rank, "max_steps": 2}, accept="always").finetune()
        found.append(load_file(tmp_path / "out" / "model.safetensors"))
    name = "encoder.layer.1.output.dense.weight"
    np.testing.assert_array_equal(found[0][name], found[1][name])
    assert (found[0][name] != found[2][name]).any()


def test_the_registry_knows_it(engine):
    assert get_engine("embedding-model") is type(engine())
