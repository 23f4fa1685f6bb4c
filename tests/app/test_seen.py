"""What `tune_app` says of apps that it does not know whole, and of questions that it leaves out."""

import csv
import time

import pytest
from llama_index.core import PropertyGraphIndex, StorageContext, SummaryIndex, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import HierarchicalNodeParser, get_leaf_nodes
from llama_index.core.postprocessor import LongContextReorder, MetadataReplacementPostProcessor
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.retrievers import (
    AutoMergingRetriever,
    QueryFusionRetriever,
    RecursiveRetriever,
)
from llama_index.core.schema import Document, IndexNode, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient

from llama_index.tuning import tune_app
from llama_index.tuning.errors import DatasetError, StoreError, TuningError, VectorError
from tests.app.conftest import WordEmbedding, nodes_of, page, questions_of
from tests.embeddings.real_stores import new_store

ROWS = [{"question": f"What does pump number {i} cost?", "answer": page(i)} for i in range(12)]


def tuned(app, questions=ROWS, **arguments):
    return tune_app(app, questions, run_folder=None, **arguments)


def test_leaves_are_tuned_under_a_query_engine_that_merges(model):
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[256, 64])
    nodes = parser.get_nodes_from_documents(
        [Document(text="\n\n".join(page(i) for i in range(k, k + 5))) for k in range(0, 30, 5)]
    )
    leaves = get_leaf_nodes(nodes)
    context = StorageContext.from_defaults()
    context.docstore.add_documents(nodes)
    index = VectorStoreIndex(leaves, storage_context=context, embed_model=model)
    merging = AutoMergingRetriever(index.as_retriever(similarity_top_k=6), context)
    rows = [{"question": row["question"], "answer": row["answer"][:40]} for row in ROWS]
    app = tuned(RetrieverQueryEngine.from_args(merging, llm=MockLLM()), rows)
    assert app.report.gains["ndcg@10"].base == tuned(index, rows).report.gains["ndcg@10"].base
    assert app.report.top_k == 6
    assert any("put one around app.retriever" in note for note in app.report.notes)


def test_a_retriever_that_hands_on_other_nodes_is_refused(model):
    whole = {f"n{i}": TextNode(id_=f"n{i}", text=page(i)) for i in range(12)}
    parts = [IndexNode(text=node.text[:60], index_id=id_) for id_, node in whole.items()]
    index = VectorStoreIndex(parts, embed_model=model)
    recursive = RecursiveRetriever("v", {"v": index.as_retriever()}, node_dict=whole)
    rows = [{"question": row["question"], "answer": row["answer"][:60]} for row in ROWS]
    with pytest.raises(TypeError, match="RecursiveRetriever hands on are not in its index"):
        tuned(recursive, rows)


class Mine(BaseRetriever):
    def __init__(self, inner):
        self.inner = inner
        super().__init__()

    def _retrieve(self, query_bundle):
        return self.inner.retrieve(query_bundle)[:1]


def test_what_cannot_be_seen_is_refused_with_what_can(index):
    with pytest.raises(ValueError, match=r"^app: .*Mine may leave .*; hand over the index, or a"):
        tuned(Mine(index.as_retriever()))
    graph = PropertyGraphIndex(
        nodes_of(2), llm=MockLLM(), kg_extractors=[], embed_kg_nodes=False, show_progress=False
    )
    with pytest.raises(TypeError, match=r"PGRetriever .*such as a VectorStoreIndex"):
        tuned(graph)


def test_engines_around_engines_are_refused_with_what_to_hand_over(index):
    inner = index.as_query_engine(llm=MockLLM())
    engine = TransformQueryEngine(inner, HyDEQueryTransform(llm=MockLLM()))
    with pytest.raises(TypeError, match=r"TransformQueryEngine, .* the query engine that it asks"):
        tuned(engine)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
def test_a_store_that_cannot_be_read_is_told_by_its_own_remedy(model):
    store = QdrantVectorStore("pumps", aclient=AsyncQdrantClient(":memory:"))
    index = VectorStoreIndex.from_vector_store(store, embed_model=model)
    with pytest.raises(StoreError, match=r"^app: .*build it with client=.*; a TunedRetriever") as e:
        tuned(index)
    assert "filters=" not in str(e.value)


def test_a_slow_retriever_is_asked_less(index, questions, monkeypatch):
    asked = []

    def ask(self, query):
        asked.append(query)
        return plain(self, query)

    plain = VectorIndexRetriever._retrieve
    monkeypatch.setattr(VectorIndexRetriever, "_retrieve", ask)
    tuned(index, questions)
    often = len(asked)
    asked.clear()
    monkeypatch.setattr("llama_index.tuning.app.ladder.cost.SLOW", 0)
    tuned(index, questions)
    assert len(asked) < often / 5


def test_where_nobody_says_how_many_nodes_are_handed_on_the_report_does():
    app = tuned(SummaryIndex(nodes_of(30)))
    assert any("10 are now; as_retriever(top_k)" in note for note in app.report.notes)
    assert len(app.retriever.retrieve("What does pump number 3 cost?")) == 10


def test_questions_that_are_left_out_are_in_the_report(index, tmp_path):
    file = tmp_path / "faq.csv"
    with file.open("w", newline="", encoding="utf-8-sig") as opened:
        table = csv.writer(opened, delimiter=";")
        table.writerow(["No.", "Question", "Answer"])
        table.writerows([n, row["question"], row["answer"]] for n, row in enumerate(ROWS))
        table.writerow([12, "Where is the moon?", "It is out of sight for the whole of the night."])
    with pytest.warns(UserWarning, match="1 of 13 rows are left out") as caught:
        app = tuned(index, file)
    assert caught[0].filename == __file__
    assert any("(1 row: no node holds its answer)" in note for note in app.report.notes)
    with pytest.warns(UserWarning, match="1 of 13 rows are left out"):
        assert "note: 1 of 13 rows" in str(app.check(file))


def test_moved_questions_show_the_text_and_are_short(model):
    nodes = [
        TextNode(id_=f"n{i}", text=page(i), metadata={"file_path": f"/srv/data/pumps/{i}.md"})
        for i in range(30)
    ]
    questions = questions_of(30)
    questions.queries["q3-0"] += " And tell me more of it," * 100
    report = tuned(VectorStoreIndex(nodes, embed_model=model), questions).report
    moved = [*report.better, *report.worse]
    assert moved
    assert all(item.document.startswith("The ") for item in moved)
    assert all(len(item.question) <= 200 for item in moved)


def test_the_cost_of_a_query_holds_that_of_the_longer_list(index, monkeypatch):
    search = VectorIndexRetriever._retrieve

    def slow(self, query_bundle):  # a millisecond for each node that is asked for
        time.sleep(self.similarity_top_k / 1000)
        return search(self, query_bundle)

    monkeypatch.setattr(VectorIndexRetriever, "_retrieve", slow)
    ladder = tuned(index.as_retriever(similarity_top_k=2)).report.ladder
    assert all(rung.milliseconds > 90 for rung in ladder if "BM25" in rung.name)
    assert ladder[0].milliseconds == 0


def test_several_postprocessors_are_named(index):
    behind = [MetadataReplacementPostProcessor("window"), LongContextReorder()]
    app = tuned(index.as_query_engine(llm=MockLLM(), node_postprocessors=behind))
    assert any("LongContextReorder of the query engine stay behind" in n for n in app.report.notes)


def test_vectors_of_another_model_are_told(index):
    def said(model):
        return " ".join(tuned(index.as_retriever(embed_model=model)).report.notes)

    assert "was it built with another?" not in said(WordEmbedding())
    assert "model 'words' gives: was it built with another?" in said(WordEmbedding(salt="other"))
    with pytest.raises(VectorError, match=r"vectors of 24 numbers, .* 'words' gives 32; hand over"):
        said(WordEmbedding(dim=32))


def test_as_many_nodes_are_handed_on_as_before(index):
    app = tuned(index.as_retriever(similarity_top_k=40))
    assert len(app.retriever.retrieve("What does pump number 3 cost?")) == 40
    assert len(app.as_retriever(50).retrieve("What does pump number 3 cost?")) == 50


def test_a_run_of_calls_that_fail_is_one_warning(index, caplog):
    with pytest.raises(DatasetError):
        tune_app(index, "generate", llm=MockLLM(), max_calls=40, run_folder=None)
    assert len(caplog.records) < 3


def test_a_search_that_compares_each_with_each_is_asked_for_no_more_than_is_reranked(index):
    diverse = index.as_retriever(vector_store_query_mode="mmr", similarity_top_k=4)
    app = tuned(diverse)
    assert app.retriever.retriever.similarity_top_k == 30
    assert len(app.retriever.retrieve("What does pump number 3 cost?")) == 4


def test_a_run_folder_that_cannot_be_made_says_what_to_do(index, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TuningError, match=r"^run_folder .*run cannot be made: .* or None to keep"):
        tune_app(index, ROWS, run_folder=tmp_path / "file" / "run")


def found(app, query="Which zebra lives in the attic?"):
    return [item.node.node_id for item in app.as_retriever(5).retrieve(query)]


@pytest.mark.parametrize("kind", ["simple", "chroma"])
def test_what_is_served_takes_over_nodes_that_came_and_went(kind, tmp_path, model):
    store = new_store(kind, tmp_path)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes_of(), storage_context=context, embed_model=model)
    app = tuned(index)
    engine = app.as_query_engine(llm=MockLLM())
    index.insert_nodes([TextNode(id_="new", text="The zebra in the attic lives on hay.")])
    index.delete_nodes(["n7"], delete_from_docstore=True)
    assert app.retriever.refresh() == (1, 1)
    assert found(app)[0] == "new"
    assert "new" in [item.node.node_id for item in app.retriever.retriever.retrieve("zebra attic")]
    assert engine.query("Which zebra lives in the attic?").source_nodes[0].node.node_id == "new"
    assert "n7" not in found(app, "What does pump number 7 cost?")


def test_nodes_of_several_indices_are_all_refreshed(model, tmp_path):
    halves = []
    for half in (0, 1):
        (folder := tmp_path / str(half)).mkdir()
        context = StorageContext.from_defaults(vector_store=new_store("chroma", folder))
        nodes = nodes_of(60)[half * 30 : half * 30 + 30]
        halves.append(VectorStoreIndex(nodes, storage_context=context, embed_model=model))
    both = [index.as_retriever(similarity_top_k=5) for index in halves]
    app = tuned(QueryFusionRetriever(both, llm=MockLLM(), num_queries=1, use_async=False))
    halves[1].insert_nodes([TextNode(id_="new", text="The zebra in the attic lives on hay.")])
    halves[0].delete_nodes(["n7"])
    assert app.retriever.refresh() == (1, 1)
    assert found(app)[0] == "new"
    assert "n7" not in found(app, "What does pump number 7 cost?")


def halves(nodes):
    return {item.node.metadata["half"] for item in nodes}


HALF = MetadataFilters(filters=[MetadataFilter(key="half", value=1)])
ASKED = "What does pump number 8 cost?"


@pytest.mark.parametrize("kind", ["simple", "chroma"])
def test_one_requests_filters_hold_for_all_that_is_served(kind, tmp_path, model):
    context = StorageContext.from_defaults(vector_store=new_store(kind, tmp_path))
    index = VectorStoreIndex(nodes_of(), storage_context=context, embed_model=model)
    app = tuned(index)
    assert halves(app.as_retriever(9).retrieve(ASKED)) == {0, 1}
    found = app.as_retriever(9, filters=HALF).retrieve(ASKED)
    assert len(found) == 9
    assert halves(found) == {1}
    engine = app.as_query_engine(similarity_top_k=3, filters=HALF, llm=MockLLM())
    assert halves(engine.query(ASKED).source_nodes) == {1}
    assert len(engine.query(ASKED).source_nodes) == 3
    assert halves(app.as_retriever(9).retrieve(ASKED)) == {0, 1}  # it was for one request


def test_a_requests_filters_hold_beside_the_apps_own(model):
    nodes = [n.model_copy(update={"metadata": n.metadata | {"of": "us"}}) for n in nodes_of(40)]
    index = VectorStoreIndex(nodes, embed_model=model)
    own = MetadataFilters(filters=[MetadataFilter(key="half", value=0)])
    app = tuned(index.as_retriever(filters=own), ROWS[::2])
    us = MetadataFilters(filters=[MetadataFilter(key="of", value="us")])
    assert halves(app.as_retriever(filters=us).retrieve(ASKED)) == {0}
    assert app.as_retriever(filters=HALF).retrieve(ASKED) == []


def test_arguments_that_a_query_engine_would_drop_are_refused(index):
    app = tuned(index)
    with pytest.raises(TypeError, match="unexpected keyword argument 'filter'"):
        app.as_query_engine(filter=HALF, llm=MockLLM())
    with pytest.raises(TypeError, match="filters must be"):
        app.as_query_engine(filters={"half": 1}, llm=MockLLM())
    app = tuned(SummaryIndex(nodes_of(20)))
    with pytest.raises(ValueError, match="not for a SummaryIndexRetriever"):
        app.as_retriever(filters=HALF)
