"""LlamaIndex calls every tool without a name `query_engine_tool`: the description tells them."""

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata

from llama_index.tuning import RoutingDataset
from llama_index.tuning.routers.serving.tools import TunedToolRetriever

FEES, CARDS = "Questions about fees", "Questions about cards"


def tools():
    index = VectorStoreIndex([TextNode(text="x")], embed_model=MockEmbedding(4))
    engine = index.as_query_engine(llm=MockLLM())
    return [QueryEngineTool.from_defaults(engine, description=text) for text in (FEES, CARDS)]


def test_a_routers_unnamed_tools_go_by_their_descriptions():
    router = RouterQueryEngine(
        LLMSingleSelector.from_defaults(llm=MockLLM()), tools(), llm=MockLLM()
    )
    dataset = RoutingDataset.from_router(router, [("How much?", FEES)])
    assert dataset.choices == {FEES: FEES, CARDS: CARDS}


def test_a_named_tool_among_them_keeps_its_name():
    metadata = [*(tool.metadata for tool in tools()), ToolMetadata("Loans", name="loans")]
    assert list(RoutingDataset.from_metadata(metadata).choices) == [FEES, CARDS, "loans"]


def test_recorded_selections_tell_them_apart_also_where_one_was_offered_alone():
    both = [{"name": "query_engine_tool", "description": text} for text in (FEES, CARDS)]
    rows = [
        {"query": "a", "choices": both, "selected": [1]},
        {"query": "b", "choices": both[:1], "selected": [0]},
    ]
    dataset = RoutingDataset.from_selections(rows)
    assert [example.choices for example in dataset.examples] == [(CARDS,), (FEES,)]


def test_a_tool_retriever_tells_them_apart(selector):
    shop = [
        FunctionTool.from_defaults(lambda: "", name="tool", description=f"Topic {n}")
        for n in range(3)
    ]
    retriever = TunedToolRetriever(selector, shop, top_k=3)
    assert {id(tool) for tool in retriever.retrieve("orders question 3")} == set(map(id, shop))
