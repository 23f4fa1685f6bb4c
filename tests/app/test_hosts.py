"""A tuned app where LlamaIndex's retrievers and query engines go."""

import pytest
from llama_index.core import StorageContext, SummaryIndex, VectorStoreIndex
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import HierarchicalNodeParser, get_leaf_nodes
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.retrievers import AutoMergingRetriever
from llama_index.core.schema import Document, NodeRelationship, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step

from llama_index.tuning import RetrievalDataset, load_app, tune_app
from llama_index.tuning.app import tune_router
from llama_index.tuning.errors import ArtifactError, DatasetError
from tests.app.conftest import nodes_of, page
from tests.selectors import ScriptedSelector

QUESTION = "What does pump number 17 cost?"


@pytest.fixture
def app(index, questions):
    return tune_app(index, questions.subset(list(questions.queries)[:20]), run_folder=None)


def first(nodes):
    return nodes[0].node.node_id


def test_chat_engines_and_streams_answer_from_what_is_served(app):
    llm = MockLLM(max_tokens=4)
    for kind in (CondensePlusContextChatEngine, ContextChatEngine):
        chat = kind.from_defaults(retriever=app.retriever, llm=llm)
        assert first(chat.chat(QUESTION).source_nodes) == "n17"
        chat.reset()  # or the question would be condensed with what was said
        streamed = chat.stream_chat(QUESTION)
        assert "".join(streamed.response_gen)
        assert first(streamed.source_nodes) == "n17"
    streamed = app.as_query_engine(llm=llm, streaming=True).query(QUESTION)
    assert "".join(streamed.response_gen)
    assert first(streamed.source_nodes) == "n17"


async def test_async_engines_tools_and_workflows_find_the_same(app):
    engine = app.as_query_engine(llm=MockLLM(max_tokens=4))
    assert first((await engine.aquery(QUESTION)).source_nodes) == "n17"
    tool = QueryEngineTool.from_defaults(engine, name="pumps", description="Pumps.")
    assert first((await tool.acall(QUESTION)).raw_output.source_nodes) == "n17"
    tool = RetrieverTool.from_defaults(app.retriever, name="pumps", description="Pumps.")
    assert page(17)[:30] in str((await tool.acall(QUESTION)).content)

    class Asking(Workflow):
        @step
        async def ask(self, event: StartEvent) -> StopEvent:
            return StopEvent(result=await app.retriever.aretrieve(event.question))

    assert first(await Asking().run(question=QUESTION)) == "n17"


async def test_tuning_inside_an_event_loop(index, questions):
    few = questions.subset(list(questions.queries)[:20])
    assert tune_app(index, few, run_folder=None).report.changed


def test_of_a_chat_engine_the_retriever_is_tuned(index):
    chat = index.as_chat_engine(chat_mode="context", llm=MockLLM())
    app = tune_app(chat, run_folder=None)
    assert any("only its retriever is seen" in note for note in app.report.notes)


def test_leaves_are_tuned_under_an_auto_merging_retriever(model):
    documents = [
        Document(text=" ".join(page(4 * i + j) for j in range(4)), id_=f"d{i}") for i in range(10)
    ]
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[512, 64], chunk_overlap=0)
    nodes = parser.get_nodes_from_documents(documents)
    leaves = get_leaf_nodes(nodes)
    store = SimpleDocumentStore()
    store.add_documents(nodes)
    context = StorageContext.from_defaults(docstore=store)
    index = VectorStoreIndex(leaves, storage_context=context, embed_model=model)
    merging = AutoMergingRetriever(index.as_retriever(similarity_top_k=6), context)
    texts = [f"What does pump number {i} cost?" for i in range(25)]
    answers = [f"number {i} is in" for i in range(25)]
    right = [[n.node_id for n in leaves if answer in n.text] for answer in answers]
    kept = [row for row, ids in enumerate(right) if ids]
    questions = RetrievalDataset.from_nodes(
        leaves,
        {f"q{row}": texts[row] for row in kept},
        {f"q{row}": right[row] for row in kept},
    )
    app = tune_app(merging, questions, run_folder=None)
    ours = {leaf.node_id for leaf in leaves}
    found = app.as_retriever(20).retrieve(QUESTION)
    assert {item.node.node_id for item in found} <= ours
    assert app.report.counts["nodes"] == len(leaves)
    assert any("AutoMergingRetriever" in note for note in app.report.notes)
    served = AutoMergingRetriever(app.as_retriever(6), context)
    parents = {leaf.node_id: leaf.relationships.get(NodeRelationship.PARENT) for leaf in leaves}
    answer = next(leaf.node_id for leaf in leaves if "number 17 is in" in leaf.text)
    wanted = {answer, parents[answer].node_id if parents[answer] else answer}
    assert wanted & {item.node.node_id for item in served.retrieve(QUESTION)}


class Asked(ScriptedSelector):
    """Always chooses the first, and counts how often it was asked."""

    def __init__(self):
        self.count = 0

    def number(self, choices, query):
        self.count += 1
        return 0


def router_of(model):
    """A router over pumps, bells and a tool that cannot be seen; questions about its nodes."""
    pumps = VectorStoreIndex(nodes_of(20, "pump-{}"), embed_model=model)
    rules = [f"The rule {i} of the town is that a bell is rung {i} times." for i in range(20)]
    nodes = [TextNode(id_=f"rule-{i}", text=text) for i, text in enumerate(rules)]
    bells = VectorStoreIndex(nodes, embed_model=model)
    llm = MockLLM(max_tokens=4)
    tools = [
        QueryEngineTool.from_defaults(index.as_query_engine(llm=llm), name=name, description=name)
        for name, index in (("machines", pumps), ("customs", bells))
    ]
    plain = SummaryIndex([TextNode(text="Nothing.")]).as_query_engine(llm=llm)
    tools.append(QueryEngineTool.from_defaults(plain, name="other", description="the rest"))
    router = RouterQueryEngine(Asked(), tools, llm=llm)
    texts = {f"p{i}": f"What does pump number {i} cost?" for i in range(20)}
    texts |= {f"r{i}": f"How often is the bell rung by rule {i}?" for i in range(20)}
    docs = {f"p{i}": [f"pump-{i}"] for i in range(20)} | {f"r{i}": [f"rule-{i}"] for i in range(20)}
    questions = RetrievalDataset.from_nodes([*nodes_of(20, "pump-{}"), *nodes], texts, docs)
    return router, questions


def test_a_router_and_its_tools_are_tuned_from_the_same_questions(model, tmp_path):
    router, questions = router_of(model)
    tuned = tune_app(router, questions, run_folder=None)
    assert set(tuned.apps) == {"machines", "customs"}
    assert tuned.apps["customs"].report.counts["questions"] == 20
    assert tuned.report.accepted
    assert router._selector.count == 40
    assert any("other stays as it is" in note for note in tuned.notes)
    tuned.save(tmp_path / "tuned")
    loaded = load_app(tmp_path / "tuned", router)
    assert loaded.report == tuned.report
    for served in (tuned.as_query_engine(), loaded.as_query_engine()):
        for text, answer in (
            ("How often is the bell rung by rule 7?", "rule-7"),
            (QUESTION, "pump-17"),
        ):
            assert first(served.query(text).source_nodes) == answer
    machines = QueryEngineTool(router._query_engines[0], ToolMetadata("", "machines"))
    fewer = RouterQueryEngine(Asked(), [machines], llm=MockLLM())
    with pytest.raises(ArtifactError, match="no 'customs'"):
        load_app(tmp_path / "tuned", fewer)
    with pytest.raises(ArtifactError, match="not a 'tuned_app'"):
        load_app(tmp_path / "tuned", router._query_engines[0])


def test_what_cannot_tune_a_router_is_said_before_any_call(model):
    router, questions = router_of(model)
    model.texts.clear()
    with pytest.raises(DatasetError, match="none were given"):
        tune_router(router)
    with pytest.raises(ValueError, match="write questions"):
        tune_app(router, llm=MockLLM())
    with pytest.raises(TypeError, match="judgments must be"):
        tune_app(router, questions, judgments=7)
    with pytest.raises(ValueError, match="generate questions for each tool"):
        tune_app(router, "generate")
    assert not model.texts
    assert not router._selector.count
