"""`tune_app` as its user sees it: what is served, what is said, what is refused."""

import re
import warnings

import numpy as np
import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import ExactMatchFilter, MetadataFilters

from llama_index.tuning import RetrievalDataset, TunedRetriever, load_app, tune_app
from llama_index.tuning.app import run as app_run
from llama_index.tuning.app.ladder import measure
from llama_index.tuning.app.ladder.adapters import Adapters
from llama_index.tuning.app.ladder.choose import Stack
from llama_index.tuning.app.ladder.outcome import Outcome
from llama_index.tuning.app.see import language_of
from llama_index.tuning.errors import ArtifactError, DatasetError
from tests.app.conftest import WordEmbedding, nodes_of, page, questions_of
from tests.embeddings.real_stores import new_store, node_id
from tests.generate.scripted import ScriptedLLM

CODE = "def f{0}(a, b):\n    x{0} = a[{0}] + b.get('{0}')\n    return math.sqrt(x{0} ** {0})\n" * 2


def tuned(app, questions=None, **arguments):
    return tune_app(app, questions, **{"run_folder": None, **arguments})


def test_real_questions_show_a_gain_and_the_app_keeps_its_own_top_k(index, questions):
    app = tuned(index, questions)
    gain = app.report.gains["ndcg@10"]
    assert app.report.shown
    assert gain.low > 0
    assert gain.n == 60
    assert len(app.retriever.retrieve("What does pump number 17 cost?")) == 2
    assert app.retriever.retrieve("What does pump number 17 cost?")[0].node.node_id == "n17"
    assert "60 questions" in app.report.sentence


def test_what_is_served_finds_what_was_measured(index, questions):
    app = tuned(index, questions)
    promised = {rung.name: rung for rung in app.report.ladder}
    untuned = promised["retriever + BM25 fusion + untuned re-ranker"].values["hit_rate@1"]
    retriever = TunedRetriever.from_index(index, top_k=1)
    hits = [
        retriever.retrieve(text)[0].node.node_id in questions.relevant_docs[id_]
        for id_, text in questions.queries.items()
    ]
    assert np.mean(hits) == pytest.approx(untuned)


ALONE = "retriever with adapter + BM25 fusion + untuned re-ranker"


def test_documents_alone_teach_an_adapter_under_the_untuned_re_ranker(index, tmp_path):
    app = tuned(index)
    assert app.report.kind == "stand-ins"
    assert not app.report.shown
    assert app.report.served == ALONE
    assert "stand in for questions" in app.report.sentence
    assert "twenty real questions" in str(app.report)
    app.save(tmp_path / "app")
    asked = "What does pump number 17 cost?"
    found, again = (a.retriever.retrieve(asked) for a in (app, load_app(tmp_path / "app", index)))
    assert [n.node_id for n in again] == [n.node_id for n in found]
    assert [n.score for n in again] == pytest.approx([n.score for n in found])
    assert app.check(questions_of()).promised is None


def test_a_dozen_questions_serve_no_less_than_none(index, questions):
    app = tuned(index, questions.subset(list(questions.queries)[:12]))
    assert app.report.served == ALONE
    assert app.report.counts["questions"] == 12


def test_few_documents_alone_teach_no_adapter(model):
    app = tuned(VectorStoreIndex(nodes_of(20), embed_model=model))
    assert app.report.served == "retriever + BM25 fusion + untuned re-ranker"
    assert app.adapter is None


def test_documents_of_code_alone_stay_as_they_were(model):
    code = [TextNode(text=f"{CODE.format(i)}", id_=str(i)) for i in range(30)]
    index = VectorStoreIndex(code, embed_model=model)
    try:
        app = tuned(index)
    except DatasetError as exc:  # no sentence at all
        pytest.skip(str(exc))
    assert not app.report.changed
    assert type(app.retriever).__name__ == "VectorIndexRetriever"


def test_shuffled_answers_accept_no_tuned_part(index, questions):
    docs = list(questions.relevant_docs.values())
    wrong = np.random.default_rng(0).permutation(len(docs))
    shuffled = {id_: docs[row] for id_, row in zip(questions.queries, wrong, strict=True)}
    app = tuned(index, RetrievalDataset(questions.queries, questions.corpus, shuffled))
    assert not app.stack.tuned
    assert any("paired as they should be" in note for note in app.report.notes)
    assert not any("paired" in note for note in tuned(index, questions).report.notes)


def test_of_many_questions_a_part_is_measured_and_all_are_learnt(index, questions, monkeypatch):
    stack = Stack("adapted", "tuned")
    monkeypatch.setattr(app_run, "decided", lambda *_: Outcome(stack, True, "for the test"))
    monkeypatch.setattr(measure, "served_stack", lambda _: stack)
    whole = tuned(index, questions)
    monkeypatch.setattr("llama_index.tuning.app.questions.MANY", 50)
    app = tuned(index, questions)
    assert whole.report.counts["measured"] == 60
    assert app.report.counts["measured"] == 12
    assert app.adapter.fingerprint == whole.adapter.fingerprint
    assert app.ranker.fingerprint == whole.ranker.fingerprint


def test_nothing_is_embedded_twice(index, model, questions):
    model.texts.clear()
    tuned(index, questions)
    asked = [text for text in model.texts if text in set(questions.queries.values())]
    pages = [text for text in model.texts if text in set(questions.corpus.values())]
    assert len(pages) <= 3  # a look at whether the index is of this model
    assert len(asked) <= len(questions) + 2  # whether batches embed as queries do is seen on one


def test_a_killed_run_goes_on_where_it_was(index, model, questions, tmp_path, monkeypatch):
    write, written = Adapters._write, []

    def killed(self, name, state, steps):
        write(self, name, state, steps)
        written.append(name)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Adapters, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        tune_app(index, questions, run_folder=tmp_path / "run")
    model.texts.clear()
    app = tune_app(index, questions, run_folder=tmp_path / "run")
    assert len(model.texts) < 40  # probes, and the questions that time the retrievers
    assert len(set(written)) == len(written) == 5
    assert not (tmp_path / "run").exists()
    assert app.report.gains == tuned(index, questions).report.gains


def test_ids_of_an_earlier_ingestion_are_found_by_text(index):
    app = tuned(index, questions_of(ids="old-{}"))
    assert any("looked for by their texts" in note for note in app.report.notes)


def test_questions_come_from_a_table(index, tmp_path):
    rows = [
        f"What does pump number {i} cost?,price of a new one is {3 * i + 7} euros"
        for i in range(40)
    ]
    file = tmp_path / "q.csv"
    file.write_text("\n".join(["question,answer", *rows]))
    assert tuned(index, file).report.counts["questions"] == 40


def test_a_query_engine_keeps_what_it_answers_with(index, questions):
    engine = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=3, node_postprocessors=[SimilarityPostprocessor()]
    )
    app = tuned(engine, questions)
    served = app.as_query_engine()
    assert isinstance(served, RetrieverQueryEngine)
    assert served._response_synthesizer is engine._response_synthesizer
    assert len(served.query("What does pump number 17 cost?").source_nodes) == 3
    assert "SimilarityPostprocessor is left out" in str(app.report)
    assert len(app.as_query_engine(llm=MockLLM()).query("Where?").source_nodes) == 3


async def test_the_async_path_finds_the_same(index, questions):
    app = tuned(index, questions)
    text = "What does pump number 23 cost?"
    found = [item.node.node_id for item in await app.retriever.aretrieve(text)]
    assert found == [item.node.node_id for item in app.retriever.retrieve(text)]


def test_filters_hold_for_all_that_is_served(index, questions):
    filters = MetadataFilters(filters=[ExactMatchFilter(key="half", value=1)])
    odd = [id_ for id_, ids in questions.relevant_docs.items() if int(ids[0][1:]) % 2]
    app = tuned(index.as_retriever(filters=filters), questions.subset(odd))
    assert app.report.counts["nodes"] == 30
    for i in range(10):
        found = app.as_retriever(10).retrieve(f"What does pump number {i} cost?")
        assert found
        assert all(item.node.metadata["half"] == 1 for item in found)


def test_a_shared_docstore_gives_this_index_nodes_only(model):
    store = SimpleDocumentStore()
    ours, theirs = (
        VectorStoreIndex(
            nodes_of(30, ids),
            storage_context=StorageContext.from_defaults(docstore=store),
            embed_model=model,
        )
        for ids in ("ours-{}", "theirs-{}")
    )
    app = tuned(ours)
    assert theirs.docstore is ours.docstore
    assert isinstance(app.retriever, TunedRetriever)
    found = app.as_retriever(30).retrieve("What does pump number 5 cost?")
    assert all(item.node.node_id.startswith("ours") for item in found)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@pytest.mark.parametrize("kind", ["simple", "chroma", "qdrant"])
def test_every_store_serves_what_was_measured(kind, tmp_path, model):
    nodes = [TextNode(id_=node_id(kind, i), text=page(i)) for i in range(40)]
    context = StorageContext.from_defaults(vector_store=new_store(kind, tmp_path))
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=model)
    queries = {f"q{i}": f"What does pump number {i} cost?" for i in range(40)}
    relevant = {f"q{i}": [node_id(kind, i)] for i in range(40)}
    questions = RetrievalDataset.from_nodes(nodes, queries, relevant)
    app = tuned(index, questions)
    assert app.report.gains["ndcg@10"].mean > 0
    check = app.check(questions)
    assert check.verdict == "better"


def test_bad_input_is_refused_before_any_cost(index, model, questions):
    model.texts.clear()
    one = questions.subset(["q0-0"])
    same = RetrievalDataset(
        {f"q{i}": f"question {i}" for i in range(12)},
        questions.corpus,
        {f"q{i}": ["n1"] for i in range(12)},
    )
    other = RetrievalDataset(
        {"q": "Fee?", "r": "Tax?"}, {"d": "Nothing.", "e": "None of it."}, {"q": ["d"], "r": ["e"]}
    )
    for app, given, fault in [
        (None, None, "app must be an index"),
        ("index", None, "app must be an index"),
        (index, one, "1 question tells nothing"),
        (index, same, "all 12 questions have the same answer"),
        (index, other, "2 of 2 labelled documents of questions are not among the 60 nodes"),
        (index, [], "questions is empty"),
        (index, 7, "questions must be"),
    ]:
        with pytest.raises((TypeError, ValueError), match=fault):
            tuned(app, given)
    with pytest.raises(DatasetError, match="it is empty"):
        tuned(VectorStoreIndex([], embed_model=model))
    with pytest.raises(ValueError, match="num_workers must be"):
        tuned(index, num_workers=0)
    with pytest.raises(ValueError, match="max_seconds must be"):
        tuned(index, max_seconds=0)
    with pytest.raises(ValueError, match="max_calls must be"):
        tuned(index, "generate", llm=MockLLM(), max_calls=0)
    with pytest.raises(ValueError, match="are for questions='generate'"):
        tuned(index, questions, llm=MockLLM())
    with pytest.raises(TypeError, match="llm must be"):
        tuned(index, "generate", llm="gpt")
    assert not model.texts


class Catalogue(BaseNodePostprocessor):
    """Knows the parts' numbers, which the pages do not name."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        number = int(query_bundle.query_str.split()[-1]) - 1000
        return sorted(nodes, key=lambda item: f"number {number} " not in item.node.text)


class Backwards(BaseNodePostprocessor):
    def _postprocess_nodes(self, nodes, query_bundle=None):
        return nodes[::-1]


def test_a_given_reranker_is_served_only_where_it_gains(model, tmp_path):
    nodes = nodes_of(25)
    index = VectorStoreIndex(nodes, embed_model=model)
    texts = {f"q{i}": f"Where is part {1000 + i}" for i in range(25)}
    questions = RetrievalDataset.from_nodes(nodes, texts, {f"q{i}": [f"n{i}"] for i in range(25)})
    app = tuned(index, questions, also=[Backwards(), Catalogue()])
    assert app.report.served == "retriever + BM25 fusion + Catalogue"
    assert app.retriever.retrieve("Where is part 1007")[0].node.node_id == "n7"
    app.save(tmp_path / "tuned")
    with pytest.raises(ArtifactError, match="hand it over"):
        load_app(tmp_path / "tuned", index)
    again = load_app(tmp_path / "tuned", index, reranker=Catalogue())
    assert again.retriever.retrieve("Where is part 1007")[0].node.node_id == "n7"
    assert not tuned(index, questions, also=[Backwards()]).stack.given


def asks(prompt):
    """Asks what the pump of the passage costs; denies every tenth question."""
    number = re.search(r"pump number (\d+)", prompt).group(1)
    if "Yes" in prompt:
        return "No" if number.endswith("0") else "Yes"
    return f"What does pump number {number} cost?"


def test_an_llm_writes_and_checks_questions_which_are_saved(index, tmp_path):
    llm = ScriptedLLM(answer=asks)
    app = tuned(index, "generate", llm=llm, max_calls=60)
    assert len(llm.prompts) == 60
    assert app.report.kind == "generated questions"
    assert "generated questions" in app.report.sentence
    written = app.written.queries.values()
    assert 20 <= len(written) < 30
    assert not any(re.search(r"0 cost", text) for text in written)
    app.save(tmp_path / "tuned")
    assert load_app(tmp_path / "tuned", index).written.queries == app.written.queries


def test_written_questions_outlive_a_run_that_fails(index, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("no space left")

    run = {"max_calls": 40, "run_folder": tmp_path / "run"}
    with monkeypatch.context() as patch:
        patch.setattr(app_run, "_tuned", fails)
        with pytest.raises(OSError, match="no space"):
            tune_app(index, "generate", llm=ScriptedLLM(answer=asks), **run)
    again = ScriptedLLM(answer=asks)
    app = tune_app(index, "generate", llm=again, **run)
    assert app.written.queries
    assert again.prompts == []


def test_questions_that_come_twice_are_one(index, questions):
    queries = {**questions.queries, "again": questions.queries["q3-0"]}
    relevant = {**questions.relevant_docs, "again": ["n4"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        double = RetrievalDataset(queries, questions.corpus, relevant)
    report = tuned(index, double).report
    assert report.counts["questions"] == 60
    assert any("1 questions were there already" in note for note in report.notes)


def test_few_questions_teach_no_re_ranker(index, questions):
    app = tuned(index, questions.subset(list(questions.queries)[:6]))
    assert app.report.served == ALONE
    assert app.ranker is None
    assert app.report.counts["questions"] == 6


def test_of_few_questions_with_wrong_answers_nothing_is_learnt(index, questions):
    some = questions.subset(list(questions.queries)[:40])
    docs = list(some.relevant_docs.values())
    wrong = dict(zip(some.queries, docs[7:] + docs[:7], strict=True))
    app = tuned(index, RetrievalDataset(some.queries, some.corpus, wrong))
    assert not app.stack.tuned


def test_a_short_budget_stops_after_what_it_pays_for(index, questions):
    app = tuned(index, questions, max_seconds=1e-6)
    assert not app.stack.tuned
    assert any("max_seconds" in note for note in app.report.notes)


def test_a_latency_limit_leaves_out_what_costs_more(index, questions):
    app = tuned(index, questions, max_latency_ms=0)
    assert app.stack.order == "retriever"


def test_prose_is_told_from_code():
    assert language_of([page(i) for i in range(5)]) == ("english", True)
    assert language_of(["Die Miete ist am Ende des Monats und nicht am Anfang zu zahlen."])[1]
    assert not language_of([CODE.format(i) for i in range(5)])[1]


def test_a_mock_model_changes_nothing_that_is_tuned():
    index = VectorStoreIndex(nodes_of(40), embed_model=MockEmbedding(embed_dim=8))
    assert tuned(index, questions_of(40)).stack.vectors == "own"


def test_another_model_of_words(questions):
    index = VectorStoreIndex(nodes_of(), embed_model=WordEmbedding(dim=64))
    assert tuned(index, questions).report.changed
