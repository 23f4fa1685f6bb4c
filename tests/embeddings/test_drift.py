import subprocess
import sys

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from llama_index.tuning import (
    AdapterEmbeddingModel,
    DriftAdapterFinetuneEngine,
    RetrievalDataset,
    adapt_index,
    get_engine,
)
from llama_index.tuning.embeddings import DriftOptions
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.embeddings.drift.fit import (
    DriftChoice,
    Texts,
    fit_query_map,
)
from llama_index.tuning.errors import ArtifactError, DatasetError, NotFinetunedError, TuningError
from tests.conftest import TableEmbedding

N, DIM = 240, 12


def models(new_dim=DIM, n=N, seed=0, unrelated=False):
    """Old and new vectors of the same texts; the new model turns, stretches and adds dimensions.

    Each text has a question near it in the new space; the old model sees it through more noise.
    """
    rng = np.random.default_rng(seed)
    meaning = rng.standard_normal((n, DIM))
    away = 0.3 * rng.standard_normal((n, DIM))
    turn = rng.standard_normal((DIM, new_dim)) if not unrelated else np.zeros((DIM, new_dim))
    noise = rng.standard_normal((n, new_dim)) * (1.0 if unrelated else 0.1)
    old, new = {}, {}
    for i in range(n):
        old[f"text {i}"], new[f"text {i}"] = meaning[i], meaning[i] @ turn + noise[i]
        old[f"ask {i}"] = meaning[i] + 5 * away[i]
        new[f"ask {i}"] = (meaning[i] + away[i]) @ turn + noise[(i + 1) % n]
    corpus = {f"d{i}": f"text {i}" for i in range(n)}
    questions = RetrievalDataset(
        {f"q{i}": f"ask {i}" for i in range(n)}, corpus, {f"q{i}": [f"d{i}"] for i in range(n)}
    )
    return (
        questions,
        TableEmbedding(old, dim=DIM, model_name="old"),
        TableEmbedding(new, dim=new_dim, model_name="new"),
    )


def stored(questions, old):
    return {id_: old.vector(text) for id_, text in questions.corpus.items()}


def engine_for(parts, folder, **arguments):
    questions, old, new = parts
    arguments = {"old_model": old, "model_output_path": folder / "drift", **arguments}
    return DriftAdapterFinetuneEngine(questions.corpus, new, **arguments)


@pytest.mark.parametrize("new_dim", [DIM, 20])
def test_the_new_model_searches_the_old_index(tmp_path, new_dim):
    questions, old, new = models(new_dim)
    nodes = [TextNode(id_=id_, text=text) for id_, text in questions.corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=old)
    engine = DriftAdapterFinetuneEngine(
        nodes, new, old, vectors=index, val_dataset=questions, model_output_path=tmp_path / "drift"
    )
    report = engine.finetune()
    assert report.accepted
    assert report.primary == "recall@10"
    mapped = engine.get_finetuned_model()
    found = index.as_retriever(similarity_top_k=1, embed_model=mapped)
    kept = index.as_retriever(similarity_top_k=1, embed_model=old)
    hits = [
        np.mean([r.retrieve(f"ask {i}")[0].node.node_id == f"d{i}" for i in range(60)])
        for r in (found, kept)
    ]
    assert hits[0] > hits[1] + 0.3
    assert len(mapped.get_query_embedding("ask 1")) == DIM


def test_no_stored_vector_is_embedded_again(tmp_path):
    questions, old, new = models()
    engine = engine_for((questions, None, new), tmp_path, old_model=None,
                        vectors=stored(questions, old), accept="always")  # fmt: skip
    engine.finetune()
    assert old.calls == []
    asked = [text for call in new.calls for text in call]
    assert sorted(asked) == sorted(questions.corpus.values())  # each once


def test_texts_added_through_the_new_model_land_beside_the_old_ones(tmp_path):
    questions, old, new = models(20)
    engine = engine_for((questions, old, new), tmp_path, accept="always")
    engine.finetune()
    mapped = engine.get_finetuned_model()
    for i in range(0, N, 40):
        placed = np.array(mapped.get_text_embedding(f"text {i}"))
        wanted = np.array(old.vector(f"text {i}"))
        assert placed @ wanted / np.linalg.norm(wanted) > 0.95


def test_saved_and_loaded_it_serves_the_same_without_torch(tmp_path):
    questions, old, new = models(20)
    engine = engine_for((questions, old, new), tmp_path, accept="always")
    engine.finetune()
    first = engine.get_finetuned_model()
    again = AdapterEmbeddingModel(new, tmp_path / "drift")
    assert again.fingerprint == first.fingerprint
    for method in ("get_query_embedding", "get_text_embedding"):
        assert getattr(again, method)("ask 3") == getattr(first, method)("ask 3")
    assert not (tmp_path / "drift" / "pytorch_model.bin").exists()
    with pytest.raises(ArtifactError, match="tuned for the embedding model 'new', not for 'old'"):
        AdapterEmbeddingModel(old, tmp_path / "drift")
    with pytest.raises(ValueError, match="stored vectors must stay as they are"):
        adapt_index({}, first, backup=tmp_path / "backup")
    code = (
        "import sys; from llama_index.tuning.embeddings.adapter.saved import Adapter\n"
        "import llama_index.tuning.embeddings.adapter.model\n"
        f"print(Adapter.load({str(tmp_path / 'drift')!r}).map_query([0.1] * 20)[:1])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_an_edited_document_map_is_refused(tmp_path):
    engine = engine_for(models(20), tmp_path, accept="always")
    engine.finetune()
    config = tmp_path / "drift" / "tuning.json"
    text = config.read_text()
    config.write_text(text.replace('"document_map"', '"documents"'))
    with pytest.raises(ArtifactError, match="document_map is not that of a known kind: None"):
        Adapter.load(tmp_path / "drift")
    config.write_text(text.replace('"out_features": 12', '"out_features": 13'))
    with pytest.raises(ArtifactError, match="do not fit"):
        Adapter.load(tmp_path / "drift")


def test_models_with_nothing_in_common_are_refused_and_the_old_one_is_kept(tmp_path):
    questions, old, new = models(unrelated=True)
    engine = engine_for((questions, old, new), tmp_path, val_dataset=questions)
    report = engine.finetune()
    assert not report.accepted
    assert engine.get_finetuned_model() is old
    with pytest.raises(ArtifactError, match="the old model is kept"):
        AdapterEmbeddingModel(new, tmp_path / "drift")
    assert Adapter.load(tmp_path / "drift" / "candidate").base_model == "new"


@pytest.mark.parametrize("accept", ["always", "gain"])
def test_another_session_opens_what_was_written(tmp_path, accept):
    parts = models(unrelated=accept == "gain")
    engine_for(parts, tmp_path, accept=accept).finetune()
    later = engine_for(parts, tmp_path)
    found = later.get_finetuned_model()
    assert later.report.accepted == (accept == "always")
    assert found is parts[1] if accept == "gain" else found.adapter_path == str(tmp_path / "drift")


def test_without_an_old_model_a_refusal_is_an_error(tmp_path):
    questions, old, new = models(unrelated=True)
    engine = engine_for((questions, None, new), tmp_path, vectors=stored(questions, old))
    assert not engine.finetune().accepted
    with pytest.raises(TuningError, match="no old_model was given that could be kept"):
        engine.get_finetuned_model()


def test_an_orthogonal_change_is_undone_exactly():
    rng = np.random.default_rng(0)
    old = rng.standard_normal((200, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0].astype(np.float32)
    found = fit_query_map(Texts(old @ turn, old), DriftChoice("procrustes"))
    np.testing.assert_allclose(found(old @ turn), old, atol=1e-4)


def test_the_linear_map_keeps_the_new_models_scores():
    rng = np.random.default_rng(0)
    old = rng.standard_normal((400, 8)).astype(np.float32)
    new = (old @ rng.standard_normal((8, 11))).astype(np.float32)
    query = rng.standard_normal((5, 11)).astype(np.float32)
    found = fit_query_map(Texts(new, old), DriftChoice("linear", strength=1e-3))
    np.testing.assert_allclose(found(query) @ old.T, query @ new.T, atol=0.05)
    cut = fit_query_map(Texts(new, old), DriftChoice("low_rank", strength=1e-3, rank=2))
    turn = fit_query_map(Texts(new, old), DriftChoice("procrustes"))
    assert np.linalg.matrix_rank(cut.weight - turn.weight, tol=1e-3) == 2


def test_the_same_seed_gives_the_same_map(tmp_path):
    prints = []
    for _ in range(2):
        engine = engine_for(models(20), tmp_path, accept="always")
        engine.finetune()
        prints.append(engine.get_finetuned_model().fingerprint)
    assert prints[0] == prints[1]


def test_fixed_kinds_are_kept_and_the_engine_is_registered(tmp_path):
    options = DriftOptions(kind="low_rank", max_texts=100)
    engine = engine_for(models(), tmp_path, options=options, accept="always")
    report = engine.finetune()
    assert report.options["chosen"]["kind"] == "low_rank"
    assert report.data["texts"] == 100
    assert get_engine("drift-adapter") is DriftAdapterFinetuneEngine


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"old_model": "minilm"}, TypeError, "old_model must be a BaseEmbedding, got str"),
        ({"old_model": None}, ValueError, "old_model and vectors are both None"),
        ({"vectors": np.ones((3, 3))}, TypeError, "an array does not say which text a row is of"),
        ({"options": 3}, TypeError, "options must be DriftOptions, got int"),
        ({"accept": "yes"}, ValueError, "unknown accept 'yes'"),
        ({"num_workers": 0}, ValueError, "num_workers must be a whole number >= 1, got 0"),
        ({"num_workers": 2.5}, ValueError, "num_workers must be a whole number >= 1, got 2.5"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(tmp_path, change, error, words):
    parts = models()
    with pytest.raises(error, match=words):
        engine_for(parts, tmp_path, **change).finetune()
    assert parts[2].calls == []


def test_other_bad_input(tmp_path):
    questions, old, new = models(n=30)
    with pytest.raises(DatasetError, match="30 texts are too few; at least 60"):
        engine_for((questions, old, new), tmp_path).finetune()
    with pytest.raises(NotFinetunedError):
        engine_for(models(), tmp_path).get_finetuned_model()
    same = {f"d{i}": f"text {i % 9}" for i in range(90)}
    with pytest.raises(DatasetError, match="90 texts have 9 different sentences between them"):
        DriftAdapterFinetuneEngine(same, new, old, model_output_path=tmp_path / "m").finetune()
    some = {id_: [1.0] * DIM for id_ in list(questions.corpus)[:20]}
    questions, old, new = models()
    with pytest.raises(ValueError, match="vectors holds 20 of the texts"):
        engine_for((questions, None, new), tmp_path, vectors=some).finetune()
    with pytest.raises(ValueError, match="val_dataset needs old_model"):
        engine_for((questions, None, new), tmp_path, vectors=some, val_dataset=questions).finetune()
    odd = {id_: [1.0] * 5 for id_ in questions.corpus}
    with pytest.raises(ValueError, match="old_model gives 12 dimensions, the stored vectors have"):
        engine_for((questions, old, new), tmp_path, vectors=odd).finetune()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "cubic"}, "unknown kind 'cubic'; choose one of: auto, procrustes"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"max_texts": 20}, "max_texts must be a whole number >= 60, got 20"),
    ],
)
def test_bad_options_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        DriftOptions(**values)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_report_says_how_much_of_a_re_index_is_kept(tmp_path, labelled):
    questions, old, new = models(20)
    given = questions if labelled else None
    kept = engine_for((questions, old, new), tmp_path, val_dataset=given).finetune()
    gains = [part["recall@10"] for name, part in kept.slices.items() if "re-indexed" in name]
    assert [gain.n for gain in gains] == [N, N // 4]  # all, and of texts not fitted to
    assert all(gain.base > 0.9 for gain in gains)
    assert all(gain.tuned > 0.97 * gain.base for gain in gains)
    assert "kept of what re-indexing would give" in kept.notes[0]
    assert "re-index soon" not in kept.notes[0]


def test_a_map_that_loses_much_is_said_to(tmp_path):
    rng = np.random.default_rng(1)
    questions, old, _ = models()
    meaning = rng.standard_normal((N, 20))  # nothing of it in the old vectors
    table = {f"text {i}": meaning[i] for i in range(N)}
    table |= {f"ask {i}": meaning[i] + 0.1 * rng.standard_normal(20) for i in range(N)}
    new = TableEmbedding(table, dim=20, model_name="new")
    engine = engine_for((questions, old, new), tmp_path, val_dataset=questions)
    report = engine.finetune()
    assert not report.accepted
    assert "re-index soon" in report.notes[0]
    assert report.notes[0].startswith("kept of what re-indexing would give: ")
    asked = [text for call in new.calls for text in call if text.startswith("ask")]
    assert len(asked) <= len(set(asked)) + 2, "each question once, but for one that is tried out"
