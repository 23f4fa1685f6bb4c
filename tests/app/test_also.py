"""Optional parts by name: each is measured, gated, saved, or left out and said to be."""

import pytest
from llama_index.core import SimpleKeywordTableIndex, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index.tuning import load_app, tune_app
from llama_index.tuning.app import run as app_run
from llama_index.tuning.app.ladder import measure
from llama_index.tuning.app.ladder.choose import VECTORS, Stack
from llama_index.tuning.app.ladder.outcome import Outcome
from llama_index.tuning.errors import ArtifactError
from tests.app.conftest import nodes_of, questions_of
from tests.embeddings.full.conftest import build_model
from tests.tiny_bert import save_tiny_bert

ASKED = [f"What does pump number {i} cost?" for i in range(0, 40, 7)]


def found(app):
    return [[item.node.node_id for item in app.retriever.retrieve(text)] for text in ASKED]


@pytest.fixture
def serving(monkeypatch):
    """Lets a stack win, whatever was measured."""

    def win(stack):
        monkeypatch.setattr(app_run, "decided", lambda *_: Outcome(stack, True, "for the test"))
        monkeypatch.setattr(measure, "served_stack", lambda _: stack)

    return win


def test_an_adapter_of_both_sides_is_measured_and_gated(index, questions):
    app = tune_app(index, questions, also=["corpus_side"], run_folder=None)
    rungs = {rung.name: rung for rung in app.report.ladder}
    rung = rungs["retriever with adapter of both sides + BM25 fusion + tuned re-ranker"]
    assert rung.gain.n == 60
    assert rung.taken == (app.stack.vectors == "corpus_side")


def test_it_is_served_from_vectors_of_its_own_and_loads(index, questions, model, serving, tmp_path):
    serving(Stack("corpus_side", "tuned"))
    before = index.vector_store.get("n3")
    app = tune_app(index, questions, also=["corpus_side"], run_folder=None)
    app.save(tmp_path / "tuned")
    model.texts.clear()
    loaded = load_app(tmp_path / "tuned", index)
    assert len(model.texts) < 10  # probes: no page is embedded again
    assert found(loaded) == found(app)
    assert app.check(questions).gains["ndcg@10"].tuned > 0.5
    assert "the documents in a second one" in app.report.sentence
    assert index.vector_store.get("n3") == before


def test_what_would_change_the_documents_vectors_is_left_out_and_said(index, questions):
    app = tune_app(index, questions, also=["corpus_side"], keep_index=True, run_folder=None)
    assert any("keep_index: corpus_side was not tried" in note for note in app.report.notes)
    assert not any("both sides" in rung.name for rung in app.report.ladder)


def test_few_questions_try_no_optional_part(index, questions):
    few = questions.subset(list(questions.queries)[:12])
    app = tune_app(index, few, also=["corpus_side"], run_folder=None)
    assert any("corpus_side: not tried" in note for note in app.report.notes)


def test_names_that_the_app_cannot_follow_are_refused_before_any_cost(index, questions, model):
    words = SimpleKeywordTableIndex(nodes_of(20), llm=MockLLM())
    model.texts.clear()
    for app, also, error, fault in [
        (index, ["cross encoder"], ValueError, "choose of: corpus_side"),
        (index, ["corpus_side=x"], ValueError, "starts from the app's own model"),
        (index, ["embedding_model"], TypeError, "needs a model of this machine"),
        (index, [7], TypeError, "also must be names and node postprocessors, got a int"),
        (index, "corpus_side", TypeError, "also must be a tuple"),
        (index, ["cross_encoder=/nowhere"], ArtifactError, "/nowhere does not exist"),
        (words, ["corpus_side"], TypeError, "needs a retriever of vectors"),
    ]:
        with pytest.raises(error, match=fault):
            tune_app(app, questions, also=also, run_folder=None)
    with pytest.raises(TypeError, match="keep_index"):
        tune_app(index, questions, keep_index="yes", run_folder=None)
    assert not model.texts


@pytest.fixture(scope="module")
def texts():
    return [node.text for node in nodes_of()] + list(questions_of(each=2).queries.values())


@pytest.mark.slow
def test_a_cross_encoder_is_trained_on_halves_and_served_whole(
    index, questions, texts, serving, tmp_path
):
    name = f"cross_encoder={save_tiny_bert(tmp_path / 'tiny', texts)}"
    serving(Stack("own", "cross_encoder"))
    run = tmp_path / "run"
    app = tune_app(index, questions, also=[name], run_folder=run)
    rung = next(rung for rung in app.report.ladder if "cross-encoder" in rung.name)
    assert rung.gain.n == 60
    assert rung.milliseconds > 0
    assert not run.exists()
    app.save(tmp_path / "tuned")
    assert found(load_app(tmp_path / "tuned", index)) == found(app)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6
@pytest.mark.parametrize("name", ["embedding_model", "query_encoder"])
def test_a_tuned_model_is_measured_on_halves_served_and_saved(
    name, texts, questions, serving, tmp_path
):
    prompts = {"query_instruction": "query: ", "text_instruction": "passage: "}
    folder = build_model(tmp_path, [*texts, *prompts.values()])
    model = HuggingFaceEmbedding(folder, device="cpu", **prompts)
    index = VectorStoreIndex(nodes_of(), embed_model=model)
    serving(Stack(name, "untuned"))
    app = tune_app(index, questions, also=[name], run_folder=None)
    rung = next(r for r in app.report.ladder if r.name.startswith(VECTORS[name]))
    assert rung.gain.n == 60
    app.save(tmp_path / "tuned")
    loaded = load_app(tmp_path / "tuned", index)
    assert found(loaded) == found(app)
    asked = loaded.embed_model.get_query_embedding(ASKED[0])
    assert asked != model.get_query_embedding(ASKED[0])
    assert asked != loaded.embed_model.get_text_embedding(ASKED[0])  # it has the app's prompts
    assert loaded.check(questions).gains["ndcg@10"].n == 60
