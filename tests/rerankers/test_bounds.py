"""What the app's retriever may not find, BM25 does not find either."""

import asyncio

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters

from llama_index.tuning import TunedRetriever

TENANTS = ("red", "blue", "green")


@pytest.fixture
def index():
    nodes = [
        TextNode(
            id_=str(n),
            text=f"Refund rule {n}",
            metadata={"tenant": TENANTS[n % 3], "year": 2000 + n},
            excluded_embed_metadata_keys=["tenant", "year"],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc{n % 2}")},
        )
        for n in range(60)
    ]
    return VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))


def only(key, value, operator=FilterOperator.EQ):
    return MetadataFilter(key=key, value=value, operator=operator)


def found(index, top_k=60, pool=60, **bounds):
    base = index.as_retriever(similarity_top_k=5, **bounds)
    retriever = TunedRetriever(
        base, docstore=index.docstore, top_k=top_k, depth=60, pool=pool, reranker=None
    )
    nodes = [item.node for item in retriever.retrieve("refund rule")]
    again = asyncio.run(retriever.aretrieve("refund rule"))
    assert [item.node.node_id for item in again] == [node.node_id for node in nodes]
    return nodes


def test_metadata_filters_hold(index):
    red = found(index, filters=MetadataFilters(filters=[only("tenant", "red")]))
    assert len(red) == 20
    assert {node.metadata["tenant"] for node in red} == {"red"}
    both = MetadataFilters(filters=[only("tenant", "red"), only("year", 2050, FilterOperator.GT)])
    assert {node.node_id for node in found(index, filters=both)} == {"51", "54", "57"}


def test_the_pool_is_filled_from_further_down(index):
    late = MetadataFilters(filters=[only("year", 2057, FilterOperator.GTE)])
    assert {node.node_id for node in found(index, pool=2, filters=late)} >= {"57", "58"}


def test_given_documents_hold(index):
    base = index.as_retriever(similarity_top_k=5, doc_ids=["doc1"])
    mine = {item.node.node_id for item in base.retrieve("refund rule")}  # some stores ignore them
    added = [node for node in found(index, doc_ids=["doc1"]) if node.node_id not in mine]
    assert len(added) > 20
    assert {node.ref_doc_id for node in added} == {"doc1"}


def test_without_bounds_everything_is_found(index):
    assert len(found(index)) == 60
    assert len(found(index, filters=MetadataFilters(filters=[]))) == 60


def test_filters_that_cannot_be_evaluated_are_an_error_not_a_leak(index):
    nested = MetadataFilters(filters=[MetadataFilters(filters=[only("tenant", "red")])])
    base = index.as_retriever(similarity_top_k=5)
    base._filters = nested
    retriever = TunedRetriever(base, docstore=index.docstore)
    with pytest.raises(ValueError, match="Nested MetadataFilters are not supported"):
        retriever.retrieve("refund rule")
