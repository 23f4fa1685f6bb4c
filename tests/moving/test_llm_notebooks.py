"""The calls of the old package's notebooks on LLMs and LLM judges, with the import changed.

The LLMs are scripted; OpenAI's files, jobs and chat are a server on this machine, found where the
client looks for any server: in its environment variables.
"""

import json

import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.evaluation import (
    CorrectnessEvaluator,
    DatasetGenerator,
    PairwiseComparisonEvaluator,
)
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.program import FunctionCallingProgram
from pydantic import BaseModel

from llama_index.tuning import OpenAIFinetuneEngine
from llama_index.tuning.callbacks import OpenAIFineTuningHandler
from tests.collect.conftest import ScriptedLLM
from tests.generate.scripted import WordEmbedding
from tests.jobs_server import JobsServer

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated class")  # DatasetGenerator's


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with JobsServer(
        stages=("queued",), answer=lambda model, messages: f"{model}: 5 euros"
    ) as server:
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield server


@pytest.fixture
def finetuning_handler():
    return OpenAIFineTuningHandler()


def uploaded(server):
    return [json.loads(line) for line in server.files["file-1"]["content"].splitlines()]


def test_a_large_llm_is_distilled_into_a_small_one(server, finetuning_handler, monkeypatch):
    documents = [Document(text="The fee is 5 euros. Loans take five days.")]
    dataset_generator = DatasetGenerator(
        SentenceSplitter().get_nodes_from_documents(documents),
        llm=ScriptedLLM("1. What is the fee?\n2. How long do loans take?"),
    )
    questions = dataset_generator.generate_questions_from_nodes(num=2)
    gpt_4 = ScriptedLLM("5 euros.", name="gpt-4")
    monkeypatch.setattr(Settings, "_callback_manager", CallbackManager([finetuning_handler]))
    index = VectorStoreIndex.from_documents(documents, embed_model=WordEmbedding())
    query_engine = index.as_query_engine(similarity_top_k=2, llm=gpt_4)
    for number in range(6):
        for question in questions:
            query_engine.query(f"{number}. {question}")

    finetuning_handler.save_finetuning_events("finetuning_events.jsonl")
    finetune_engine = OpenAIFinetuneEngine(
        "gpt-3.5-turbo",
        "finetuning_events.jsonl",
        # start_job_id="<start-job-id>"  # if you have an existing job, can specify id here
    )
    finetune_engine.finetune()
    assert finetune_engine.get_current_job().status == "succeeded"
    ft_llm = finetune_engine.get_finetuned_model(temperature=0.3)

    answer = index.as_query_engine(llm=ft_llm).query("What is the fee?")
    assert str(answer) == "ft:gpt-3.5-turbo:org::ftjob-1: 5 euros"
    lines = uploaded(server)
    assert len(lines) == 12
    assert "The fee is 5 euros." in lines[0]["messages"][-2]["content"]
    assert lines[0]["messages"][-1] == {"role": "assistant", "content": "5 euros."}


def test_the_engine_comes_from_the_handler_or_a_job(server, finetuning_handler):
    llm = ScriptedLLM("5 euros.")
    llm.callback_manager = CallbackManager([finetuning_handler])
    for number in range(10):
        llm.complete(f"Fee {number}?")
    engine = OpenAIFinetuneEngine.from_finetuning_handler(
        finetuning_handler, "gpt-3.5-turbo", "finetuning_events.jsonl"
    )
    engine.finetune()
    later = OpenAIFinetuneEngine("gpt-3.5-turbo", "finetuning_events.jsonl", start_job_id="ftjob-1")
    assert later.get_finetuned_model().complete("Fee?").text.endswith("5 euros")
    assert len(server.jobs) == 1


class Song(BaseModel):
    """A song."""

    title: str
    length_seconds: int


class Album(BaseModel):
    """An album."""

    name: str
    songs: list[Song]


def test_function_calling_is_distilled(server, finetuning_handler):
    album = {"name": "Fees", "songs": [{"title": "Five Euros", "length_seconds": 200}]}

    def answer(messages, tools=None):
        call = {"tool_call_id": "c", "tool_name": "Album", "tool_kwargs": album}
        return ChatMessage(role="assistant", blocks=[{"block_type": "tool_call", **call}])

    llm = MockFunctionCallingLLM(response_generator=answer)
    llm.callback_manager = CallbackManager([finetuning_handler])
    program = FunctionCallingProgram.from_defaults(
        output_cls=Album,
        llm=llm,
        prompt_template_str="Generate an album, using {movie_name} as inspiration.",
    )
    for number in range(10):
        output = program(movie_name=f"Film {number}")
    assert output == Album(**album)

    finetuning_handler.save_finetuning_events("mock_finetune_songs.jsonl")
    finetune_engine = OpenAIFinetuneEngine(
        "gpt-3.5-turbo",
        "mock_finetune_songs.jsonl",
        validate_json=False,  # openai validate json code doesn't support function calling yet
    )
    finetune_engine.finetune()
    assert finetune_engine.get_finetuned_model(temperature=0.3).model.startswith("ft:")
    line = uploaded(server)[3]
    assert line["messages"][0]["content"].endswith("using Film 3 as inspiration.")
    [call] = line["messages"][-1]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == album
    assert line["tools"][0]["function"]["name"] == "Album"


async def test_a_pairwise_judge_is_distilled(server, finetuning_handler):
    gpt_4_llm = ScriptedLLM("Assistant A names the fee. [[A]]", "Assistant B names it. [[B]]")
    gpt_4_llm.callback_manager = CallbackManager([finetuning_handler])
    gpt4_judge = PairwiseComparisonEvaluator(llm=gpt_4_llm)
    for number in range(5):
        result = await gpt4_judge.aevaluate(
            f"What is fee {number}?",
            response="5 euros.",
            second_response="I do not know.",
            reference="5 euros.",
        )
    assert result.score == 1.0

    finetuning_handler.save_finetuning_events("pairwise_finetuning_events.jsonl")
    finetune_engine = OpenAIFinetuneEngine("gpt-3.5-turbo", "pairwise_finetuning_events.jsonl")
    finetune_engine.finetune()
    finetune_engine.get_current_job()
    ft_llm = finetune_engine.get_finetuned_model()
    server.answer = lambda model, messages: "[[A]]" if "A]\n5" in str(messages) else "[[C]]"
    judged = await PairwiseComparisonEvaluator(llm=ft_llm).aevaluate(
        "Fee?", response="5 euros.", second_response="No.", reference="5 euros."
    )
    assert judged.response is not None
    lines = uploaded(server)
    assert len(lines) == 10  # a pair is judged in both orders
    assert lines[1]["messages"][-1]["content"] == "Assistant B names it. [[B]]"


async def test_a_correctness_judge_is_distilled(server, finetuning_handler):
    gpt_4_llm = ScriptedLLM("4.5\nIt names the fee.")
    gpt_4_llm.callback_manager = CallbackManager([finetuning_handler])
    gpt4_judge = CorrectnessEvaluator(llm=gpt_4_llm)
    for number in range(10):
        result = await gpt4_judge.aevaluate(
            query=f"What is fee {number}?", response="5 euros.", reference="5 euros a month."
        )
    assert result.score == 4.5

    finetuning_handler.save_finetuning_events("correction_finetuning_events.jsonl")
    finetune_engine = OpenAIFinetuneEngine("gpt-3.5-turbo", "correction_finetuning_events.jsonl")
    finetune_engine.finetune()
    server.answer = lambda model, messages: f"2.0\n{model} knows better."
    judge = CorrectnessEvaluator(llm=finetune_engine.get_finetuned_model())
    judged = await judge.aevaluate(query="Fee?", response="6 euros.", reference="5 euros.")
    assert (judged.score, judged.passing) == (2.0, False)
    assert judged.feedback.startswith("ft:gpt-3.5-turbo")
    [user, answer] = uploaded(server)[0]["messages"]
    assert answer["content"] == "4.5\nIt names the fee."
    assert "5 euros a month." in user["content"]
