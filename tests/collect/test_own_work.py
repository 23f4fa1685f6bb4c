"""What this package asks, for training or measuring, is no traffic of the app's users."""

import asyncio
import inspect

import pytest
from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.selectors import LLMSingleSelector

import llama_index.tuning as tuning
from llama_index.tuning import (
    LightRerankerFinetuneEngine,
    RelevanceDataset,
    RetrievalDataset,
    RoutingDataset,
    aevaluate_retriever,
    evaluate_retriever,
)
from llama_index.tuning._running import at_own_work, own_work, run_async
from llama_index.tuning.base import BaseFinetuneEngine
from llama_index.tuning.evaluate.routing import evaluate_selector
from llama_index.tuning.llms.tasks.knowledge import texts_of

NODES = [TextNode(id_=f"n{n}", text=f"Passage about topic {n} and word{n}") for n in range(24)]
DATA = RetrievalDataset(
    {f"q{n}": f"What about word{n}?" for n in range(24)},
    {node.node_id: node.text for node in NODES},
    {f"q{n}": [f"n{n}"] for n in range(24)},
)


@pytest.fixture
def retriever():
    return VectorStoreIndex(NODES, embed_model=MockEmbedding(4)).as_retriever(similarity_top_k=5)


def nothing(recorder):
    recorder.flush()
    return not recorder.path.exists() or recorder.path.read_bytes() == b""


@pytest.mark.parametrize("workers", [1, 4])
def test_measuring_a_retriever_records_nothing(recorder, retriever, workers):
    evaluate_retriever(retriever, DATA)
    asyncio.run(aevaluate_retriever(retriever, DATA, num_workers=workers))
    RelevanceDataset.from_retriever(DATA, retriever, num_workers=workers)
    assert nothing(recorder)
    retriever.retrieve("a user's question")
    assert recorder.traffic().stats()["requests"] == 1


def test_an_engine_records_nothing(recorder, retriever):
    LightRerankerFinetuneEngine(DATA, retriever=retriever).finetune()
    assert nothing(recorder)


def test_measuring_a_selector_records_nothing(recorder, scripted):
    data = RoutingDataset.from_pairs([("a", "x"), ("b", "y")], choices={"x": "X", "y": "Y"})
    selector = LLMSingleSelector.from_defaults(llm=scripted('[{"choice": 1, "reason": "r"}]'))
    evaluate_selector(selector, data)
    assert nothing(recorder)


def test_generated_questions_are_no_traffic(recorder, scripted):
    Settings.llm = None
    dataset = tuning.generate_qa_embedding_pairs(
        NODES[:2], scripted("What is it?"), num_questions_per_chunk=1
    )
    assert len(dataset.dataset if hasattr(dataset, "dataset") else dataset) >= 1
    assert nothing(recorder)


def test_questions_asked_in_worker_threads_are_no_traffic(recorder, scripted):
    assert (
        texts_of(scripted(), [[{"role": "user", "content": "q"}]] * 4, workers=2)
        == ["An answer."] * 4
    )
    assert nothing(recorder)


def test_work_inside_a_users_request_is_told_from_it(recorder, retriever):
    with recorder.trace("user"):
        retriever.retrieve("a user's question")
        evaluate_retriever(retriever, DATA)
        retriever.retrieve("another")
    assert recorder.traffic().stats()["records"] == {"retrieval": 2}


ASK_NOBODY = {
    *("adapt_index", "restore_index"),  # embed texts, which is not recorded
    *("get_engine", "list_engines", "load_app", "load_reranker"),
    *("generate_sentence_queries", "generate_cohere_reranker_finetuning_dataset"),
    "recalibrate_judge",
    # what asks within them is marked itself
    *("call_task", "check_task", "distillation_task", "knowledge_task", "sql_task", "style_task"),
}


def test_every_entry_point_is_marked_unless_it_asks_nobody():
    functions = {name: getattr(tuning, name) for name in tuning.__all__}
    unmarked = {
        name
        for name, function in functions.items()
        if inspect.isfunction(function) and not hasattr(function, "__own_work__")
    }
    assert unmarked == ASK_NOBODY


def test_an_engine_of_ones_own_is_marked_too():
    class Mine(BaseFinetuneEngine):
        def finetune(self):
            return at_own_work.get()

        def get_finetuned_model(self, **kwargs):
            return None

    assert (at_own_work.get(), Mine().finetune(), at_own_work.get()) == (False, True, False)


def test_the_mark_goes_along_to_other_threads_and_ends_with_an_error():
    async def seen():
        return at_own_work.get(), await asyncio.to_thread(at_own_work.get)

    async def nested():
        return run_async(seen())

    assert own_work(lambda: run_async(seen()))() == (True, True)
    assert own_work(lambda: run_async(nested()))() == (True, True)
    with pytest.raises(ZeroDivisionError):
        own_work(lambda: 1 / 0)()
    assert at_own_work.get() is False
