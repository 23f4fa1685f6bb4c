from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import MockLLM
from llama_index.core.tools import FunctionTool

from llama_index.tuning import TunedToolRetriever
from tests.routers.conftest import NAMES


def tools():
    return [
        FunctionTool.from_defaults(lambda: 1, name=name, description=f"all about {name}")
        for name in [*NAMES, "weather"]
    ]


def names(found):
    return [tool.metadata.name for tool in found]


async def test_the_best_tools_come_first_and_untrained_ones_are_ranked_too(selector):
    retriever = TunedToolRetriever(selector, tools(), top_k=2)
    found = retriever.retrieve("refunds question 3")
    assert names(found)[0] == "refunds"
    assert len(found) == 2
    assert names(await retriever.aretrieve("refunds question 3")) == names(found)
    every = TunedToolRetriever(selector, tools(), top_k=9).retrieve("refunds question 3")
    assert "weather" in names(every)


def test_some_tools_are_always_shown(selector):
    retriever = TunedToolRetriever(selector, tools(), top_k=1, always=["weather"])
    assert names(retriever.retrieve("orders question 3")) == ["orders", "weather"]
    assert names(retriever.retrieve("")) == ["orders", "weather"]


def test_its_nodes_are_the_same_ranking(selector):
    retriever = TunedToolRetriever(selector, tools(), top_k=3)
    nodes = retriever.retriever.retrieve("orders question 3")
    assert [node.node_id for node in nodes] == names(retriever.retrieve("orders question 3"))
    assert nodes[0].score > nodes[1].score


async def test_an_agent_takes_it(selector):
    retriever = TunedToolRetriever(selector, tools(), top_k=2)
    agent = FunctionAgent(tool_retriever=retriever, llm=MockLLM())
    found = await agent.get_tools("outages question 3")
    assert names(found)[0] == "outages"
