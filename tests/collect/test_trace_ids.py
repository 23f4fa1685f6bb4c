"""`last_trace_id()` gives the id of one's own last request, or says that it cannot know."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step

ELSEWHERE = "made in another thread or task"


async def test_a_request_in_a_thread_pool_is_never_answered_with_an_older_id(recorder, scripted):
    llm = scripted()
    llm.complete("warm-up")
    warm = recorder.last_trace_id()

    async def endpoint(n):
        await asyncio.to_thread(llm.complete, f"user {n}")
        with pytest.raises(RuntimeError, match=ELSEWHERE):
            recorder.last_trace_id()

    await asyncio.gather(*(endpoint(n) for n in range(5)))
    with pytest.raises(RuntimeError, match=ELSEWHERE):
        recorder.last_trace_id()
    llm.complete("again")
    assert recorder.last_trace_id() != warm


async def test_a_task_that_made_its_own_request_before_the_threads_says_so(recorder, scripted):
    llm = scripted()
    llm.complete("mine")
    recorder.last_trace_id()
    await asyncio.to_thread(llm.complete, "in a thread")
    with pytest.raises(RuntimeError, match=ELSEWHERE):
        recorder.last_trace_id()


async def test_a_workflow_is_not_mistaken_for_the_request_before_it(recorder, scripted):
    llm = scripted()

    class Flow(Workflow):
        @step
        async def ask(self, event: StartEvent) -> StopEvent:
            return StopEvent(result=(await llm.acomplete("inside")).text)

    llm.complete("before")
    await Flow().run()
    with pytest.raises(RuntimeError, match=ELSEWHERE):
        recorder.last_trace_id()


async def test_inside_a_trace_its_id_is_known_whatever_thread_works(recorder, scripted):
    llm = scripted()
    with recorder.trace("ticket"):
        await asyncio.to_thread(llm.complete, "q")
        assert recorder.last_trace_id() == "ticket"


async def test_an_endpoint_that_works_in_its_thread_asks_there(recorder, scripted):
    llm = scripted()

    def endpoint(n):
        llm.complete(f"user {n}")
        return recorder.last_trace_id()

    llm.complete("warm-up")
    traces = await asyncio.gather(*(asyncio.to_thread(endpoint, n) for n in range(5)))
    assert len({*traces, None}) == 6
    questions = {r.trace: r.data["messages"][0]["content"] for r in recorder.traffic().records}
    assert [questions[trace] for trace in traces] == [f"user {n}" for n in range(5)]


def test_others_that_go_on_with_a_copied_context_do_not_disturb(recorder, scripted):
    llm = scripted()
    llm.complete("mine")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(copy_context().run, lambda: [llm.complete("a"), llm.complete("b")]).result()
    llm.complete("mine again")
    found = recorder.traffic().records[-1]
    assert recorder.last_trace_id() == found.trace
