import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise

import numpy as np
import pytest
import torch
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.adapter import (
    AdapterEmbeddingModel as StockModel,
    BaseAdapter,
    LinearLayer,
)
from llama_index.embeddings.adapter.utils import TwoLayerNN

from llama_index.tuning import (
    AdapterEmbeddingModel,
    EmbeddingAdapterFinetuneEngine,
    RetrievalDataset,
    evaluate_retriever,
)
from llama_index.tuning.embeddings import AdapterOptions
from llama_index.tuning.embeddings.adapter.measure import measure_adapter
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.errors import NotFinetunedError, TuningError
from llama_index.tuning.report import FinetuneReport
from tests.conftest import TableEmbedding, repeated, rotated_problem

QUICK = AdapterOptions(folds=3)


def engine_for(problem, folder, **arguments):
    dataset, model = problem
    arguments = {"options": QUICK, "model_output_path": folder / "adapter", **arguments}
    return EmbeddingAdapterFinetuneEngine(dataset, model, **arguments)


def shuffled(problem, seed=1):
    """The same queries with other queries' answers: no signal at all."""
    dataset, model = problem
    answers = list(dataset.relevant_docs.values())
    order = np.random.default_rng(seed).permutation(len(answers))
    relevant = {id_: answers[i] for id_, i in zip(dataset.queries, order, strict=True)}
    return RetrievalDataset(dataset.queries, dataset.corpus, relevant), model


def test_the_tuned_model_retrieves_better_from_the_same_index(rotated, tmp_path):
    dataset, model = rotated
    train, test = dataset.split(0.3, seed=1)
    index = VectorStoreIndex(dataset.to_nodes(), embed_model=model)
    engine = engine_for((train, model), tmp_path, vectors=index)
    report = engine.finetune()
    assert report.accepted
    tuned = engine.get_finetuned_model()
    scores = [
        evaluate_retriever(index.as_retriever(similarity_top_k=10, embed_model=m), test).mean()
        for m in (model, tuned)
    ]
    assert scores[1]["ndcg@10"] > scores[0]["ndcg@10"] + 0.1


def test_the_out_of_fold_estimate_is_near_the_truth(tmp_path):
    estimates, truths = [], []
    for seed in range(4):
        dataset, model = rotated_problem(n_documents=80, seed=seed)
        train, test = dataset.split(0.4, seed=seed)
        engine = engine_for((train, model), tmp_path, accept="always")
        estimates.append(engine.finetune().gains["ndcg@10"].mean)
        adapter = engine.get_finetuned_model().adapter
        truths.append(measure_adapter(test, model, adapter)[1]["ndcg@10"].mean)
    assert abs(np.mean(estimates) - np.mean(truths)) < 0.06


def test_a_question_that_comes_again_is_no_more_evidence(rotated, tmp_path):
    dataset, model = rotated
    gains = [
        engine_for((data, model), tmp_path / name).finetune().gains["ndcg@10"]
        for name, data in {"once": dataset, "often": repeated(dataset)}.items()
    ]
    assert [gain.n for gain in gains] == [len(dataset), len(dataset)]
    assert gains[1].high - gains[1].low > 0.7 * (gains[0].high - gains[0].low)


def test_without_signal_the_base_comes_back_and_the_folder_serves_it(rotated, tmp_path, caplog):
    problem = shuffled(rotated)
    engine = engine_for(problem, tmp_path)
    report = engine.finetune()
    assert not report.accepted
    assert "no gain is shown" in report.reason
    with caplog.at_level(logging.WARNING):
        assert engine.get_finetuned_model() is problem[1]
    assert 'accept="always" overrides' in caplog.text
    question = "question 1 1"
    expected = problem[1].vector(question)
    ours = AdapterEmbeddingModel(problem[1], tmp_path / "adapter")
    stock = StockModel(problem[1], str(tmp_path / "adapter"))
    assert ours.get_query_embedding(question) == pytest.approx(expected, abs=1e-6)
    assert stock.get_query_embedding(question) == pytest.approx(expected, abs=1e-6)
    candidate = Adapter.load(tmp_path / "adapter" / "candidate")
    assert candidate.fingerprint != ours.adapter_fingerprint


@pytest.mark.parametrize("kind", ["two_layer", "custom"])
def test_a_refused_folder_suits_the_stock_loader_with_the_class_that_was_trained(
    rotated, tmp_path, kind
):
    model = rotated[1]
    arguments = {"adapter_model": Residual(16, 8)} if kind == "custom" else {}
    options = AdapterOptions(folds=2, max_epochs=1, adapter="two_layer", hidden=8)
    engine = engine_for(shuffled(rotated), tmp_path, options=options, **arguments)
    assert not engine.finetune().accepted
    trained = Residual if kind == "custom" else TwoLayerNN
    stock = StockModel(model, str(tmp_path / "adapter"), trained)
    question = "question 1 1"
    assert stock.get_query_embedding(question) == pytest.approx(model.vector(question), abs=1e-6)


def test_another_session_opens_what_was_written(rotated, tmp_path):
    engine = engine_for(rotated, tmp_path)
    report = engine.finetune()
    later = engine_for(rotated, tmp_path)
    again = later.get_finetuned_model()
    assert again.adapter_fingerprint == engine.get_finetuned_model().adapter_fingerprint
    assert later.report == FinetuneReport.from_dict(json.loads(json.dumps(report.to_dict())))
    later.save(tmp_path / "copy")
    assert Adapter.load(tmp_path / "copy").fingerprint == again.adapter_fingerprint
    refused = engine_for(shuffled(rotated), tmp_path)
    refused.finetune()
    assert engine_for(rotated, tmp_path).get_finetuned_model() is rotated[1]


def test_always_overrides_the_gate_and_says_what_it_would_have_done(rotated, tmp_path):
    engine = engine_for(shuffled(rotated), tmp_path, accept="always")
    report = engine.finetune()
    assert report.accepted
    assert "the gate alone would have kept the base" in report.reason
    assert isinstance(engine.get_finetuned_model(), AdapterEmbeddingModel)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"side": "both"},
        {"bias": True},
        {"adapter": "low_rank", "rank": 8},
        {"adapter": "two_layer", "hidden": 32},
        {"start": "identity"},
        {"solver": "gradient"},
    ],
    ids=str,
)
def test_every_adapter_learns_saves_and_loads(rotated, tmp_path, options):
    dataset, model = rotated
    quick = AdapterOptions(folds=3, max_steps=60, **options)
    engine = engine_for((dataset, model), tmp_path, options=quick)
    report = engine.finetune()
    assert report.accepted, str(report)
    tuned = engine.get_finetuned_model()
    loaded = AdapterEmbeddingModel(model, tmp_path / "adapter")
    assert loaded.adapter_fingerprint == tuned.adapter_fingerprint
    text = "document 3"
    assert loaded.get_text_embedding(text) == tuned.get_text_embedding(text)
    assert (loaded.get_text_embedding(text) != model.vector(text)) == (quick.side == "both")


class Residual(BaseAdapter):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dim, self.hidden = dim, hidden
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(dim, hidden), torch.nn.GELU(), torch.nn.Linear(hidden, dim)
        )
        torch.nn.init.zeros_(self.layers[-1].weight)
        torch.nn.init.zeros_(self.layers[-1].bias)

    def forward(self, embed):
        return embed + self.layers(embed)

    def get_config_dict(self):
        return {"dim": self.dim, "hidden": self.hidden}


def test_a_custom_network_is_trained_as_a_copy_and_comes_back(rotated, tmp_path):
    dataset, model = rotated
    network = Residual(16, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    options = AdapterOptions(folds=3)
    engine = engine_for((dataset, model), tmp_path, adapter_model=network, options=options)
    report = engine.finetune()
    assert report.accepted, str(report)
    assert "Residual" in report.title
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    loaded = AdapterEmbeddingModel(model, tmp_path / "adapter", adapter_cls=Residual)
    query = "question 2 2"
    tuned = engine.get_finetuned_model()
    assert loaded.get_query_embedding(query) == tuned.get_query_embedding(query)


def test_the_same_seed_gives_the_same_weights(rotated, tmp_path):
    prints = set()
    for _ in range(2):
        torch.manual_seed(np.random.randint(1000))  # the global generator does not matter
        engine = engine_for(rotated, tmp_path, options=AdapterOptions(folds=3, max_epochs=3))
        engine.finetune()
        prints.add(engine.get_finetuned_model().adapter_fingerprint)
    assert len(prints) == 1


def test_every_distinct_text_is_embedded_once(rotated, tmp_path):
    dataset, model = rotated
    engine_for((dataset, model), tmp_path).finetune()
    texts = [text for call in model.calls for text in call]
    wanted = {*dataset.queries.values(), *dataset.corpus.values()}
    assert set(texts) == wanted
    assert len(texts) <= len(wanted) + 2  # one query twice more, to see how queries are embedded


def test_a_validation_set_is_measured_and_not_trained_on(rotated, tmp_path):
    dataset, model = rotated
    train, validation = dataset.split(0.3, seed=2)
    report = engine_for((train, model), tmp_path, val_dataset=validation).finetune()
    assert report.method == "validation set"
    assert report.gains["ndcg@10"].n == len(validation)
    assert report.accepted


def test_a_validation_set_may_have_a_corpus_of_its_own(tmp_path):
    dataset, model = rotated_problem()
    train, rest = dataset.split(0.4, by="document", seed=2)
    own = {doc for docs in rest.relevant_docs.values() for doc in docs}
    other = RetrievalDataset(
        rest.queries, {id_: dataset.corpus[id_] for id_ in sorted(own)}, rest.relevant_docs
    )
    engine = engine_for((train, model), tmp_path, val_dataset=other, accept="always")
    report = engine.finetune()
    _, expected = measure_adapter(other, model, engine.get_finetuned_model().adapter)
    assert report.gains["ndcg@10"].tuned == pytest.approx(expected["ndcg@10"].tuned)
    assert report.gains["ndcg@10"].base == pytest.approx(expected["ndcg@10"].base)


def test_documents_with_and_without_training_queries_are_reported_apart(tmp_path):
    dataset, model = rotated_problem(per_document=2)
    report = engine_for((dataset, model), tmp_path).finetune()
    sizes = {name: gains["ndcg@10"].n for name, gains in report.slices.items()}
    assert set(sizes) == {"documents with training queries", "documents without training queries"}
    assert sum(sizes.values()) == len(dataset)


def sentences_problem():
    """Documents of four sentences; a sentence's vector is its document's, turned, plus noise."""
    _, model = rotated_problem(n_documents=80, per_document=4)
    table = {}
    corpus = {}
    for i in range(80):
        said = [f"This is sentence number {j} about the thing {i}." for j in range(4)]
        corpus[f"d{i}"] = " ".join(said)
        table[corpus[f"d{i}"]] = model.table[f"document {i}"]
        table.update({s: model.table[f"question {i} {j}"] for j, s in enumerate(said)})
    return corpus, TableEmbedding(table, dim=16)


@pytest.mark.parametrize("kind", ["dictionary", "nodes", "texts"])
def test_documents_alone_teach_without_labels(tmp_path, kind):
    corpus, model = sentences_problem()
    unlabelled = {
        "dictionary": corpus,
        "nodes": [TextNode(id_=id_, text=text) for id_, text in corpus.items()],
        "texts": list(corpus.values()),
    }[kind]
    report = engine_for((None, model), tmp_path, unlabelled=unlabelled).finetune()
    assert report.accepted
    assert "stand in for questions" in report.reason
    assert report.verdict.endswith("on stand-in questions")
    assert report.data["sentences"]["queries"] == 320


def test_unlabelled_documents_help_labelled_queries(tmp_path):
    corpus, model = sentences_problem()
    labels = {f"q{i}": f"what is thing {i}?" for i in range(80)}
    rng = np.random.default_rng(0)
    for i in range(80):
        sentence = f"This is sentence number 0 about the thing {i}."
        model.table[f"what is thing {i}?"] = model.table[sentence] + 0.1 * rng.standard_normal(16)
    dataset = RetrievalDataset(labels, corpus, {f"q{i}": [f"d{i}"] for i in range(80)})
    train, test = dataset.split(0.8, seed=0)
    gains = {}
    for name, unlabelled in (("labels", None), ("with sentences", corpus)):
        engine = engine_for((train, model), tmp_path, unlabelled=unlabelled, accept="always")
        engine.finetune()
        adapter = engine.get_finetuned_model().adapter
        gains[name] = measure_adapter(test, model, adapter)[1]["ndcg@10"].mean
    assert gains["with sentences"] > gains["labels"] + 0.02


def test_a_second_run_with_a_vector_cache_embeds_nothing(rotated, tmp_path):
    dataset, model = rotated
    for _ in range(2):
        model.calls.clear()
        engine_for((dataset, model), tmp_path, vector_cache=tmp_path / "v.sqlite").finetune()
    assert model.calls == []


def test_nothing_but_the_output_is_left_behind(rotated, tmp_path):
    engine_for(rotated, tmp_path).finetune()
    assert os.listdir(tmp_path) == ["adapter"]
    assert set(os.listdir(tmp_path / "adapter")) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "report.json",
        "learned.safetensors",
        "tuning.json",
    }
    saved = FinetuneReport.from_json(tmp_path / "adapter" / "report.json")
    assert saved.accepted


def test_checkpoints_load_and_are_as_far_apart_as_asked(rotated, tmp_path):
    dataset, model = rotated
    options = AdapterOptions(folds=2, solver="gradient", batch_size=16)
    engine = engine_for(
        (dataset, model),
        tmp_path,
        options=options,
        model_checkpoint_path=tmp_path / "checkpoints",
        checkpoint_save_steps=7,
    )
    engine.finetune()
    names = [entry for entry in os.listdir(tmp_path / "checkpoints") if entry.startswith("step_")]
    steps = sorted(int(name.removeprefix("step_")) for name in names)
    assert len(steps) >= 2
    assert all(later - earlier >= 7 for earlier, later in pairwise(steps))
    AdapterEmbeddingModel(model, tmp_path / "checkpoints" / names[0]).get_query_embedding("x")


KILLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.path.insert(0, {root!r})
from pathlib import Path
from llama_index.tuning.embeddings.adapter import run
from tests.conftest import rotated_problem
from tests.embeddings.test_engine import engine_for
save = run.RunFolder.save_fold
def save_then_die(self, name, fold, state, epochs):
    save(self, name, fold, state, epochs)
    if fold == 1:
        os.kill(os.getpid(), signal.{how})
run.RunFolder.save_fold = save_then_die
engine_for(rotated_problem(), Path({folder!r}), vector_cache=None).finetune()
"""


def die(tmp_path, how):
    root = os.getcwd()
    code = textwrap.dedent(KILLED.format(root=root, how=how, folder=str(tmp_path)))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def spy_on_solutions(monkeypatch):
    from llama_index.tuning.embeddings.adapter.solved.linear import LinearProblem

    solved, solve = [], LinearProblem.solve
    monkeypatch.setattr(
        LinearProblem, "solve", lambda *a, **k: (solved.append(1), solve(*a, **k))[1]
    )
    return solved


def test_a_killed_run_goes_on_where_it_was(rotated, tmp_path, monkeypatch):
    assert die(tmp_path, "SIGKILL").returncode == -signal.SIGKILL
    assert not (tmp_path / "adapter").exists()
    solved = spy_on_solutions(monkeypatch)
    dataset, model = rotated
    engine = engine_for((dataset, model), tmp_path)
    engine.finetune()
    assert len(solved) == 3  # the third of three folds, new documents, and the final map
    assert model.calls == []  # and no text again
    fresh = engine_for(rotated_problem(), tmp_path / "fresh")
    fresh.finetune()
    assert (
        engine.get_finetuned_model().adapter_fingerprint
        == fresh.get_finetuned_model().adapter_fingerprint
    )


def test_folds_of_another_run_are_not_taken(tmp_path, monkeypatch):
    die(tmp_path, "SIGKILL")
    solved = spy_on_solutions(monkeypatch)
    options = AdapterOptions(folds=3, seed=1)
    engine_for(rotated_problem(), tmp_path, options=options).finetune()
    assert len(solved) == 5  # three folds, new documents, and the final map


def test_ctrl_c_leaves_a_checkpoint_that_loads(rotated, tmp_path):
    done = die(tmp_path, "SIGINT")
    assert "KeyboardInterrupt" in done.stderr
    assert not (tmp_path / "adapter").exists()
    model = AdapterEmbeddingModel(rotated[1], tmp_path / "adapter.run" / "interrupted")
    assert model.get_query_embedding("question 1 1") != rotated[1].vector("question 1 1")


def test_two_runs_at_once_on_one_output_are_refused(rotated, tmp_path):
    from llama_index.tuning.embeddings.adapter.run import RunFolder

    busy = pytest.raises(TuningError, match="another run is at work")
    with RunFolder(tmp_path / "adapter.run", keep=False).held(), busy:
        engine_for(rotated, tmp_path).finetune()


def test_no_disk_leaves_the_old_adapter_intact(rotated, tmp_path, monkeypatch):
    engine_for(rotated, tmp_path).finetune()
    before = Adapter.load(tmp_path / "adapter").fingerprint

    def full(self, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Adapter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        engine_for(rotated, tmp_path, options=AdapterOptions(seed=9, folds=2)).finetune()
    assert Adapter.load(tmp_path / "adapter").fingerprint == before


def test_training_goes_on_from_a_saved_adapter(rotated, tmp_path):
    dataset, model = rotated
    start = LinearLayer(16, 16)
    start.save(str(tmp_path / "old"))
    engine = EmbeddingAdapterFinetuneEngine.from_model_path(
        dataset,
        model,
        str(tmp_path / "old"),
        options=AdapterOptions(folds=2, max_epochs=3),
        model_output_path=tmp_path / "new",
    )
    assert engine.finetune().accepted


def test_old_arguments_are_taken_by_position(rotated, tmp_path):
    dataset, model = rotated
    engine = EmbeddingAdapterFinetuneEngine(
        dataset, model, 64, 3, None, 16, "cpu", str(tmp_path / "out"), None, 100, False, True
    )
    report = engine.finetune()
    assert (report.options["batch_size"], report.options["max_epochs"]) == (64, 3)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["bias"] is True


def test_the_model_before_finetune_is_an_error(rotated, tmp_path):
    with pytest.raises(NotFinetunedError, match="call finetune"):
        engine_for(rotated, tmp_path).get_finetuned_model()


def test_building_an_engine_does_no_work(tmp_path):
    dataset, model = rotated_problem()
    engine_for((dataset, model), tmp_path)
    assert model.calls == []
    assert os.listdir(tmp_path) == []


def test_a_vector_store_of_another_model_is_named(rotated, tmp_path):
    dataset, model = rotated
    vectors = {id_: [1.0, 2.0, float(i)] for i, id_ in enumerate(dataset.corpus)}
    with pytest.raises(ValueError, match=r"gives 16 dimensions, .* have 3; were they made by"):
        engine_for((dataset, model), tmp_path, vectors=vectors).finetune()


def test_a_nodes_metadata_does_not_make_it_another_document(tmp_path):
    corpus, model = sentences_problem()
    nodes = [
        TextNode(id_=id_, text=text, metadata={"source": "handbook"})
        for id_, text in corpus.items()
    ]
    vectors = {id_: model.vector(text) for id_, text in corpus.items()}
    labels = {f"q{i}": f"This is sentence number 3 about the thing {i}!" for i in range(80)}
    model.table.update({text: model.table[text.replace("!", ".")] for text in labels.values()})
    dataset = RetrievalDataset(labels, corpus, {f"q{i}": [f"d{i}"] for i in range(80)})
    engine = engine_for((dataset, model), tmp_path, unlabelled=nodes, vectors=vectors)
    assert engine.finetune().gains["ndcg@10"].n == 80
