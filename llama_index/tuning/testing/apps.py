"""The places of an app that a component is put into, each asked a question."""

from __future__ import annotations

from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.evaluation import BatchEvalRunner
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.query_engine import CustomQueryEngine, RetrieverQueryEngine, RouterQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.tools import QueryEngineTool
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step

from llama_index.tuning._running import run_async
from llama_index.tuning.testing.kinds import Kind, Probe, verdict


class _Found(BaseRetriever):
    """Finds the probe's nodes, whatever is asked."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe = probe

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.probe.found()


class _Named(CustomQueryEngine):
    """Answers with its name."""

    name: str

    def custom_query(self, query_str: str) -> str:
        return self.name


class _Asks(Workflow):
    """One step that asks the component."""

    component: Any = None
    kind: Any = None
    probe: Any = None

    @step
    async def ask(self, event: StartEvent) -> StopEvent:
        """Ask it what the start event holds."""
        question = event.get("question")
        return StopEvent(result=await self.kind.aask(self.component, self.probe, question))


def in_a_workflow(component: Any, kind: Kind, probe: Probe, question: str) -> Any:
    """The component's answer from a step of a workflow."""
    workflow = _Asks(timeout=600)
    workflow.component, workflow.kind, workflow.probe = component, kind, probe

    async def run() -> Any:
        return await workflow.run(question=question)

    return run_async(run())


def ingested(model: BaseEmbedding, probe: Probe) -> list[Any]:
    """The nodes' vectors after an `IngestionPipeline`."""
    nodes = IngestionPipeline(transformations=[model]).run(nodes=probe.nodes())
    return [node.embedding for node in nodes]


def retrieved(model: BaseEmbedding, probe: Probe, question: str) -> list[str]:
    """Ids that an index finds with the model from `Settings`."""
    before = Settings._embed_model
    Settings.embed_model = model
    try:
        index = VectorStoreIndex(probe.nodes())
        found = index.as_retriever(similarity_top_k=len(probe.texts)).retrieve(question)
    finally:
        Settings._embed_model = before
    return [node.node_id for node in found]


def routed(selector: Any, probe: Probe, question: str) -> str:
    """The choice's name that a `RouterQueryEngine` asks."""
    tools = [
        QueryEngineTool.from_defaults(
            _Named(name=tool.name), name=tool.name, description=tool.description
        )
        for tool in probe.tools()
    ]
    engine = RouterQueryEngine(selector, tools, llm=MockLLM())
    return str(engine.query(question))


def source_nodes(
    probe: Probe, question: str, *, retriever: Any = None, reranker: Any = None
) -> list[Any]:
    """Ids and scores of the nodes that a `RetrieverQueryEngine` answers from."""
    engine = RetrieverQueryEngine.from_args(
        retriever or _Found(probe),
        llm=MockLLM(),
        node_postprocessors=[reranker] if reranker is not None else [],
    )
    return [(node.node_id, node.score) for node in engine.query(question).source_nodes]


def judged_together(judge: Any, probe: Probe) -> list[Any]:
    """Verdicts of a `BatchEvalRunner` on all questions."""
    runner = BatchEvalRunner({"judge": judge}, workers=2)
    questions = list(probe.questions)
    results = run_async(
        runner.aevaluate_response_strs(
            queries=questions,
            response_strs=[probe.texts[0]] * len(questions),
            contexts_list=[list(probe.texts)] * len(questions),
        )
    )
    return [verdict(result) for result in results["judge"]]


def answered(llm: LLM, probe: Probe, question: str) -> str:
    """The answer of a query engine whose LLM comes from `Settings`."""
    before = Settings._llm
    Settings.llm = llm
    try:
        synthesizer = get_response_synthesizer(response_mode=ResponseMode.GENERATION)
        return str(RetrieverQueryEngine(_Found(probe), synthesizer).query(question))
    finally:
        Settings._llm = before
