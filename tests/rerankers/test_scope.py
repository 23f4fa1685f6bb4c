"""Whose nodes: an index' own, whatever else its docstore holds."""

import pickle

import pytest
from llama_index.core import (
    MockEmbedding,
    Settings,
    SimpleKeywordTableIndex,
    StorageContext,
    SummaryIndex,
    VectorStoreIndex,
)
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    SentenceSplitter,
    get_leaf_nodes,
)
from llama_index.core.retrievers import (
    AutoMergingRetriever,
    QueryFusionRetriever,
    RecursiveRetriever,
    TransformRetriever,
    VectorIndexRetriever,
)
from llama_index.core.schema import Document, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import FilterCondition, MetadataFilter, MetadataFilters

from llama_index.tuning import TunedRetriever
from llama_index.tuning.vectors.indexed import index_node_ids

from ..embeddings.real_stores import new_store
from .conftest import ids

MODEL = MockEmbedding(embed_dim=4)
QUERY = "What is the salary of employee 3?"


def shared():
    """Two indices on one docstore: salaries, and opening hours for everybody."""
    docstore = SimpleDocumentStore()

    def made(name, text):
        nodes = [
            TextNode(id_=f"{name}{i}", text=f"{text} {i}: {i}000 euros", metadata={"tenant": name})
            for i in range(4)
        ]
        context = StorageContext.from_defaults(docstore=docstore)
        return VectorStoreIndex(nodes, storage_context=context, embed_model=MODEL)

    return made("hr", "Salary of employee"), made("pub", "Opening hours of shop")


def own(name, found):
    return bool(found) and all(id_.startswith(name) for id_ in found)


def searched(retriever, query=QUERY):
    return {id_ for id_, _ in retriever._search(query)}


def test_two_indices_on_one_docstore_do_not_see_each_other():
    hr, pub = shared()
    tuned = TunedRetriever.from_index(pub, top_k=4)
    assert own("pub", ids(tuned.retrieve(QUERY)))
    assert sorted(tuned.index.ids) == [f"pub{i}" for i in range(4)]
    other = TunedRetriever(hr.as_retriever(), docstore=pub.docstore, top_k=4)
    assert own("hr", ids(other.retrieve(QUERY)))


def test_refresh_takes_only_the_indexs_own():
    hr, pub = shared()
    for tuned in (
        TunedRetriever.from_index(pub),
        TunedRetriever(pub.as_retriever(), docstore=pub.docstore),
    ):
        hr.insert_nodes([TextNode(id_="hr9", text="Salary of employee 9")])
        pub.insert_nodes([TextNode(id_="pub9", text="Salary of nobody")])
        assert tuned.refresh() == (1, 0)
        assert searched(tuned, "salary") == {"pub9"}
        pub.delete_nodes(["pub9"])  # neither from its list of nodes nor from the docstore
        assert tuned.refresh() == (0, 1)
        assert searched(tuned, "salary") == set()
        pub.docstore.delete_document("pub9")
        pub.index_struct.delete("pub9")


def test_a_document_taken_from_the_index_alone_is_gone():
    docs = [Document(id_=f"d{i}", text=f"Refund rule {i}") for i in range(3)]
    index = VectorStoreIndex.from_documents(docs, embed_model=MODEL)
    tuned = TunedRetriever.from_index(index)
    index.delete_ref_doc("d1")  # the docstore keeps it
    assert tuned.refresh() == (0, 1)
    assert len(tuned.index) == 2


def test_parents_of_merged_leaves_are_not_searched():
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[128, 32], chunk_overlap=0)
    text = " ".join(f"Refund number {i} is paid in May." for i in range(60))
    nodes = parser.get_nodes_from_documents([Document(text=text)])
    leaves = get_leaf_nodes(nodes)
    context = StorageContext.from_defaults()
    context.docstore.add_documents(nodes)
    index = VectorStoreIndex(leaves, storage_context=context, embed_model=MODEL)
    merging = AutoMergingRetriever(index.as_retriever(similarity_top_k=2), context)
    expected = {node.node_id for node in leaves}
    assert len(expected) < len(nodes)
    assert set(TunedRetriever.from_index(index).index.ids) == expected
    assert set(TunedRetriever(merging, docstore=context.docstore).index.ids) == expected


@pytest.mark.parametrize("kind", ["simple", "chroma"])
def test_whole_documents_of_a_pipelines_docstore_are_no_nodes(kind, tmp_path):
    docstore, store = SimpleDocumentStore(), new_store(kind, tmp_path)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=24, chunk_overlap=0), MODEL],
        docstore=docstore,
        vector_store=store,
    )
    text = " ".join(f"Refund number {i} is paid." for i in range(20))
    nodes = pipeline.run(documents=[Document(id_="whole", text=text)])
    assert set(docstore.docs) == {"whole"}
    chunks = {node.node_id for node in nodes}
    if kind == "chroma":
        context = StorageContext.from_defaults(docstore=docstore, vector_store=store)
        index = VectorStoreIndex([], storage_context=context, embed_model=MODEL)
        assert set(TunedRetriever.from_index(index).index.ids) == chunks
    else:
        index = VectorStoreIndex(nodes, embed_model=MODEL)
    with pytest.raises(ValueError, match=r"docstore has none of the \d+ nodes .* from_index\(\)"):
        TunedRetriever(index.as_retriever(), docstore=docstore)
    context = StorageContext.from_defaults(docstore=docstore)
    both = VectorStoreIndex(nodes, storage_context=context, embed_model=MODEL)
    tuned = TunedRetriever(both.as_retriever(), docstore=docstore)
    assert set(tuned.index.ids) == chunks


def test_refresh_reads_a_vector_store_that_keeps_the_texts(tmp_path):
    context = StorageContext.from_defaults(vector_store=new_store("chroma", tmp_path))
    nodes = [TextNode(id_=name, text=f"Refund {name}") for name in "ab"]
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=MODEL)
    tuned = TunedRetriever.from_index(index)
    index.insert_nodes([TextNode(id_="c", text="Vouchers expire.")])
    index.delete_nodes(["a"])
    assert tuned.refresh() == (1, 1)
    assert searched(tuned, "vouchers") == {"c"}
    assert "c" in ids(tuned.retrieve("vouchers"))


@pytest.mark.parametrize("kind", [SummaryIndex, SimpleKeywordTableIndex])
def test_other_indices_tell_their_own_nodes(kind, monkeypatch):
    hr, _ = shared()
    context = StorageContext.from_defaults(docstore=hr.docstore)
    monkeypatch.setattr(Settings, "_llm", MockLLM())
    index = kind([TextNode(id_="mine", text="Opening hours")], storage_context=context)
    assert index_node_ids(index) == ["mine"]
    assert TunedRetriever.from_index(kind([], storage_context=context)).index.ids == []


def tenant(name):
    return MetadataFilters(filters=[MetadataFilter(key="tenant", value=name)])


def mixed():
    nodes = [
        TextNode(id_=f"{name}{i}", text=f"Salary of employee {i}", metadata={"tenant": name})
        for name in "ab"
        for i in range(4)
    ]
    return VectorStoreIndex(nodes, embed_model=MODEL)


AROUND = {
    "fusion": lambda inner: QueryFusionRetriever([inner], llm=MockLLM(), num_queries=1),
    "fusion of fusions": lambda inner: QueryFusionRetriever(
        [QueryFusionRetriever([inner], llm=MockLLM(), num_queries=1)], llm=MockLLM(), num_queries=1
    ),
    "merging": lambda inner: AutoMergingRetriever(inner, inner._index.storage_context),
    "recursive": lambda inner: RecursiveRetriever("vector", {"vector": inner}),
    "transform": lambda inner: TransformRetriever(inner, query_transform=lambda q, **_: q),
    "tuned": lambda inner: TunedRetriever(inner, docstore=inner._index.docstore),
}


@pytest.mark.parametrize("name", AROUND)
def test_filters_inside_another_retriever_hold(name):
    index = mixed()
    outer = AROUND[name](index.as_retriever(filters=tenant("a")))
    tuned = TunedRetriever(outer, docstore=index.docstore)
    assert searched(tuned) == {f"a{i}" for i in range(4)}
    everything = list(index.docstore.docs.values())
    assert searched(TunedRetriever(outer, everything)) == {f"a{i}" for i in range(4)}


def test_each_index_has_its_own_filter():
    hr, pub = shared()
    both = QueryFusionRetriever(
        [hr.as_retriever(filters=tenant("nobody")), pub.as_retriever()],
        llm=MockLLM(),
        num_queries=1,
    )
    tuned = TunedRetriever(both, docstore=hr.docstore)
    assert own("pub", searched(tuned, "salary opening hours"))
    given = TunedRetriever(both, list(hr.docstore.docs.values()))
    assert own("pub", searched(given, "salary opening hours"))


def test_filters_within_filters_hold():
    nested = MetadataFilters(
        filters=[
            MetadataFilters(
                filters=[*tenant("a").filters, *tenant("c").filters], condition=FilterCondition.OR
            ),
            MetadataFilters(filters=tenant("b").filters, condition=FilterCondition.NOT),
        ]
    )
    index = mixed()
    tuned = TunedRetriever(index.as_retriever(filters=nested), docstore=index.docstore)
    assert searched(tuned) == {f"a{i}" for i in range(4)}


def test_given_node_ids_hold():
    index = mixed()
    chosen = VectorIndexRetriever(index, node_ids=["a1", "b2"])
    assert searched(TunedRetriever(chosen, docstore=index.docstore)) == {"a1", "b2"}
    everything = list(index.docstore.docs.values())
    tuned = TunedRetriever(chosen, everything)
    assert searched(tuned) == {"a1", "b2"}
    assert searched(pickle.loads(pickle.dumps(tuned))) == {"a1", "b2"}


class Mine(BaseRetriever):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def _retrieve(self, query_bundle):
        return [item for item in self.inner.retrieve(query_bundle) if item.node_id < "b"]


def test_what_cannot_be_followed_is_refused_with_the_remedy():
    index = mixed()
    with pytest.raises(ValueError, match="Mine may leave out what it likes; pass nodes="):
        TunedRetriever(Mine(index.as_retriever()), docstore=index.docstore)
    narrow = index.as_retriever(vector_store_kwargs={"where": {"tenant": "a"}})
    with pytest.raises(ValueError, match=r"may narrow it \(where\); pass nodes="):
        TunedRetriever(narrow, docstore=index.docstore)
    left = [node for node in index.docstore.docs.values() if node.node_id < "b"]
    tuned = TunedRetriever(Mine(index.as_retriever(filters=tenant("a"))), left)
    assert searched(tuned) == {f"a{i}" for i in range(4)}


def test_a_loaded_retriever_keeps_to_the_index_it_is_loaded_for(tmp_path):
    hr, pub = shared()
    TunedRetriever.from_index(hr).save(tmp_path / "r")
    assert searched(TunedRetriever.load(tmp_path / "r", hr.as_retriever(), docstore=hr.docstore))
    other = TunedRetriever.load(tmp_path / "r", pub.as_retriever(), docstore=hr.docstore)
    assert searched(other) == set()
    hr.delete_nodes(["hr3"])
    again = TunedRetriever.load(tmp_path / "r", hr.as_retriever(), docstore=hr.docstore)
    assert "hr3" not in searched(again)
