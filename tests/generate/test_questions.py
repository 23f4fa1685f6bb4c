import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import MetadataMode, TextNode

from llama_index.tuning import (
    RetrievalDataset,
    generate_multi_hop_queries,
    generate_qa_embedding_pairs,
    generate_sentence_queries,
)
from llama_index.tuning.asking import CallOptions
from llama_index.tuning.errors import DatasetError, GenerationError, RunFileError
from tests.generate.scripted import ScriptedLLM, WordEmbedding, subjects
from tests.servers import ChatServer, Faults, client, two_questions

FAST = CallOptions(retry_wait=0.001, timeout=20)


@pytest.mark.parametrize(
    ("nodes", "llm", "words"),
    [
        (["a text"], None, r"nodes\[0\] must be a node, got str"),
        (TextNode(text="x"), None, "nodes must be a list of nodes, got TextNode"),
        (VectorStoreIndex([], embed_model=MockEmbedding(2)), None, "got VectorStoreIndex"),
        ([TextNode(text="x")], "gpt-4", "llm must be an LLM of LlamaIndex, got 'gpt-4'"),
    ],
)
def test_what_is_no_node_and_no_llm_is_named(nodes, llm, words):
    with pytest.raises(TypeError, match=words):
        generate_qa_embedding_pairs(nodes, llm)


def test_sentences_come_from_texts_by_id_or_nodes():
    with pytest.raises(TypeError, match="mapping of id → text, or nodes, got str"):
        generate_sentence_queries("x")
    with pytest.raises(TypeError, match="must be a node, got str"):
        generate_sentence_queries(["x"])


def test_the_old_call_with_positional_arguments_works(tmp_path):
    path = tmp_path / "train.json"
    template = "Write {num_questions_per_chunk} questions on {context_str}"
    dataset = generate_qa_embedding_pairs(
        subjects(3), ScriptedLLM(answer=two_questions), template, 2, 3, "continue", 500, str(path)
    )
    assert list(dataset.queries.values())[:2] == ["What is subject-0?", "Who needs subject-0?"]
    assert set(map(tuple, dataset.relevant_docs.values())) == {("n0",), ("n1",), ("n2",)}
    assert RetrievalDataset.from_json(path).queries == dataset.queries


def test_a_run_started_again_asks_nothing_twice(tmp_path):
    llm = ScriptedLLM(answer=two_questions)
    first = generate_qa_embedding_pairs(subjects(3), llm, output_path=tmp_path / "a.json")
    assert len(llm.prompts) == 3
    more = generate_qa_embedding_pairs(subjects(5), llm, output_path=tmp_path / "a.json")
    assert len(llm.prompts) == 5
    assert list(more.queries.items())[:6] == list(first.queries.items())


def test_nodes_split_anew_with_other_ids_are_recognised_by_their_text(tmp_path):
    llm = ScriptedLLM(answer=two_questions)
    for _ in range(2):
        nodes = [TextNode(text=f"subject-{i}") for i in range(3)]
        dataset = generate_qa_embedding_pairs(nodes, llm, output_path=tmp_path / "a.json")
        assert set(dataset.corpus) == {node.node_id for node in nodes}
        assert len(dataset) == 6
    assert len(llm.prompts) == 3


def test_a_node_whose_text_changed_is_asked_again(tmp_path):
    llm = ScriptedLLM(answer=two_questions)
    for text in ("subject-old", "subject-new"):
        nodes = [TextNode(id_="n", text=text)]
        dataset = generate_qa_embedding_pairs(nodes, llm, output_path=tmp_path / "a.json")
    assert "What is subject-new?" in dataset.queries.values()
    assert len(dataset) == 2


def test_training_and_validation_never_mix(tmp_path):
    llm = ScriptedLLM(answer=two_questions)
    nodes = subjects(4)
    generate_qa_embedding_pairs(nodes[:2], llm, output_path=tmp_path / "train.json")
    same_file = generate_qa_embedding_pairs(nodes[2:], llm, output_path=tmp_path / "train.json")
    assert set(same_file.corpus) == {"n2", "n3"}
    assert {doc for docs in same_file.relevant_docs.values() for doc in docs} == {"n2", "n3"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"qa_generate_prompt_tmpl": "Other: {context_str}"}, "its prompt is"),
        ({"llm": ScriptedLLM(answer=two_questions, name="other")}, "its model is"),
        ({"num_questions_per_chunk": 1}, "its num_questions_per_chunk is 2, this run's is 1"),
        ({"verify": True}, "its verify is False"),
        ({"question_styles": ["typos"]}, "its question_styles is"),
    ],
)
def test_a_run_file_of_another_run_is_refused(tmp_path, change, named):
    options = {"llm": ScriptedLLM(answer=two_questions), "output_path": tmp_path / "a.json"}
    generate_qa_embedding_pairs(subjects(1), **options)
    with pytest.raises(RunFileError, match=named):
        generate_qa_embedding_pairs(subjects(1), **{**options, **change})


def test_a_file_that_no_run_wrote_is_not_written_over(tmp_path):
    path = tmp_path / "precious.json"
    path.write_text("{}")
    with pytest.raises(RunFileError, match="would be overwritten"):
        generate_qa_embedding_pairs(subjects(1), MockLLM(), output_path=path)
    assert path.read_text() == "{}"


def test_a_failed_node_is_data_and_is_tried_again_next_time(tmp_path, caplog):
    def answer(prompt):
        if "subject-1" in prompt and broken:
            raise ConnectionError("no route, key sk-abcdefghijkl")
        return two_questions(prompt)

    broken = True
    llm = ScriptedLLM(answer=answer)
    with caplog.at_level(logging.WARNING):
        dataset = generate_qa_embedding_pairs(
            subjects(3), llm, output_path=tmp_path / "a.json", options=FAST
        )
    (failure,) = dataset.failures
    assert (failure.id, failure.error, failure.attempts) == ("n1", "ConnectionError", 3)
    assert "sk-abc" not in failure.message + (tmp_path / "a.json.run.jsonl").read_text()
    assert "questions of 'n1' failed: no route" in caplog.text
    assert dataset.counts["failed"] == 1
    assert "n1" in dataset.corpus
    broken = False
    again = generate_qa_embedding_pairs(
        subjects(3), llm, output_path=tmp_path / "a.json", options=FAST
    )
    assert not again.failures
    assert len(again) == 6
    assert len(llm.prompts) == 2 + 3 + 1


def test_on_failure_fail_raises_and_keeps_what_was_finished(tmp_path):
    def answer(prompt):
        if "subject-2" in prompt:
            raise ConnectionError("no route")
        return two_questions(prompt)

    llm = ScriptedLLM(answer=answer)
    with pytest.raises(GenerationError, match="questions of 'n2' failed after 2 tries: no route"):
        generate_qa_embedding_pairs(
            subjects(3), llm, retry_limit=2, on_failure="fail", num_workers=1,
            output_path=tmp_path / "a.json", options=FAST,
        )  # fmt: skip
    rows = (tmp_path / "a.json.run.jsonl").read_text().splitlines()[1:]
    assert {json.loads(row)["id"] for row in rows if "value" in json.loads(row)} == {"n0", "n1"}


def test_a_wrong_key_ends_the_run_at_once():
    class WrongKeyError(Exception):
        status_code = 401

    def answer(prompt):
        raise WrongKeyError("wrong key sk-secret123")

    llm = ScriptedLLM(answer=answer)
    with pytest.raises(GenerationError, match="no call to the LLM can succeed") as caught:
        generate_qa_embedding_pairs(subjects(50), llm, num_workers=1)
    assert "secret123" not in str(caught.value)
    assert len(llm.prompts) < 5


def test_a_refused_request_is_not_repeated():
    class TooLongError(Exception):
        status_code = 400

    def answer(prompt):
        raise TooLongError("too long")

    llm = ScriptedLLM(answer=answer)
    dataset = generate_qa_embedding_pairs(subjects(2), llm)
    assert [failure.attempts for failure in dataset.failures] == [1, 1]


def test_answers_are_asked_for_and_kept(tmp_path):
    llm = ScriptedLLM(answer=lambda _: '[{"question": "Fee?", "answer": "5 euros"}]')
    node = TextNode(id_="n", text="The fee is 5 euros.")
    dataset = generate_qa_embedding_pairs([node], llm, with_answers=True)
    (row,) = dataset.question_answers()
    assert (row.question, row.answer, row.node_id) == ("Fee?", "5 euros", "n")
    assert row.context == "The fee is 5 euros."
    dataset.save_question_answers(tmp_path / "qa.jsonl")
    assert json.loads((tmp_path / "qa.jsonl").read_text())["answer"] == "5 euros"


def test_questions_that_the_passage_does_not_answer_are_dropped_and_counted(tmp_path):
    def answer(prompt):
        if "Can the question be answered" not in prompt:
            return two_questions(prompt)
        return "No" if "Who needs" in prompt else "Yes"

    llm = ScriptedLLM(answer=answer)
    dataset = generate_qa_embedding_pairs(
        subjects(2), llm, verify=True, output_path=tmp_path / "a.json"
    )
    assert list(dataset.queries.values()) == ["What is subject-0?", "What is subject-1?"]
    assert dataset.counts["unverified"] == 2
    generate_qa_embedding_pairs(subjects(2), llm, verify=True, output_path=tmp_path / "a.json")
    assert len(llm.prompts) == 6


def test_styles_take_turns_and_are_recorded():
    llm = ScriptedLLM(answer=two_questions)
    dataset = generate_qa_embedding_pairs(
        subjects(40), llm, question_styles={"clerk": "as a bank clerk", "child": "as a child"}
    )
    assert 20 < list(dataset.styles.values()).count("clerk") < 60
    assert {"as a bank clerk" in prompt for prompt in llm.prompts} == {True, False}
    with pytest.raises(ValueError, match="unknown question style 'keyword'; choose from: question"):
        generate_qa_embedding_pairs(subjects(1), llm, question_styles=["keyword"])


def test_one_question_of_two_passages_is_one_query_relevant_to_both():
    llm = ScriptedLLM(answer=lambda p: "What is it?" if "subject-0" in p else "what is it")
    dataset = generate_qa_embedding_pairs(subjects(2), llm)
    assert list(dataset.queries.values()) == ["What is it?"]
    assert list(dataset.relevant_docs.values()) == [["n0", "n1"]]
    assert dataset.counts["duplicates"] == 1


def test_near_duplicates_are_dropped_with_an_embedding_model():
    llm = ScriptedLLM(
        answer=lambda p: "how long does a refund take now?\nhow long does a refund take?\nfees?"
    )
    options = {"num_questions_per_chunk": 3, "embed_model": WordEmbedding()}
    dataset = generate_qa_embedding_pairs(subjects(1), llm, **options, near_duplicate=0.85)
    assert list(dataset.queries.values()) == ["how long does a refund take now?", "fees?"]
    assert dataset.counts["near_duplicates"] == 1


def test_a_node_that_comes_twice_is_asked_about_once():
    llm = ScriptedLLM(answer=two_questions)
    assert len(generate_qa_embedding_pairs(subjects(2) * 2, llm)) == 4
    assert len(llm.prompts) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"qa_generate_prompt_tmpl": "no field"}, ValueError, r"must hold \{context_str\}"),
        ({"qa_generate_prompt_tmpl": "{context_str} {x}"}, ValueError, "unknown fields x"),
        ({"qa_generate_prompt_tmpl": "{context_str"}, ValueError, "not a format string"),
        ({"num_questions_per_chunk": 0}, ValueError, "num_questions_per_chunk must be"),
        ({"num_workers": 0}, ValueError, "num_workers must be"),
        ({"retry_limit": 0}, ValueError, "retry_limit must be"),
        ({"save_every": 0}, ValueError, "save_every must be"),
        ({"on_failure": "skip"}, ValueError, "unknown on_failure 'skip'; choose one of"),
        ({"near_duplicate": 2}, ValueError, "near_duplicate must be a number from 0 to 1"),
        (
            {"nodes": [*subjects(1), TextNode(id_="n0", text="Another")]},
            DatasetError,
            "'n0' has 2 different texts",
        ),
        ({"nodes": [TextNode(id_="e", text=" ")]}, DatasetError, "has a text, such as 'e'"),
    ],
)
def test_bad_arguments_are_named_before_any_call(arguments, error, message):
    llm = ScriptedLLM(answer=two_questions)
    with pytest.raises(error, match=message):
        generate_qa_embedding_pairs(**{"nodes": subjects(1), "llm": llm, **arguments})
    assert not llm.prompts


async def test_it_runs_inside_a_running_event_loop():
    llm = ScriptedLLM(answer=two_questions)
    assert len(generate_qa_embedding_pairs(subjects(2), llm)) == 4


def test_faults_of_a_server_are_survived_concurrently():
    faults = Faults(rate_limit=0.1, error=0.1, garbage=0.1, slow=0.05, hang=0.02)
    with ChatServer(latency=0.01, faults=faults) as server:
        dataset = generate_qa_embedding_pairs(
            subjects(80), client(server, timeout=0.5), num_workers=16, retry_limit=8, options=FAST
        )
    assert not dataset.failures
    assert len(dataset) == 160
    assert all(count == 1 for count in server.good.values())
    assert 8 < server.most <= 16
    assert min(server.kinds[kind] for kind in ("rate_limit", "error", "garbage")) > 0


def test_waiting_for_a_rate_limit_uses_up_no_tries():
    limits = iter([True] * 6)

    class Limited(ChatServer):
        def _kind(self):
            return "rate_limit" if next(limits, False) else "good"

    with Limited(faults=Faults(retry_after=0.02)) as server:
        dataset = generate_qa_embedding_pairs(
            subjects(2), client(server), retry_limit=1, num_workers=1, options=FAST
        )
    assert not dataset.failures
    assert server.kinds == {"rate_limit": 6, "good": 2}


def test_structured_replies_where_the_llm_calls_functions():
    def answer(prompt):
        return json.dumps({"questions": ["What is it?", "Why?"]})

    with ChatServer(answer=answer) as server:
        llm = client(server, is_function_calling_model=True)
        dataset = generate_qa_embedding_pairs(subjects(2), llm, options=FAST)
    assert list(dataset.queries.values()) == ["What is it?", "Why?"]
    assert server.kinds == {"good": 2}
    assert server.tools == 2


def test_an_llm_that_only_claims_to_call_functions_is_asked_for_text():
    with ChatServer() as server:
        llm = client(server, is_function_calling_model=True)
        dataset = generate_qa_embedding_pairs(subjects(6), llm, num_workers=1, options=FAST)
    assert len(dataset) == 12
    assert server.kinds["good"] == 6 + 3


RUN = """
import sys
from tests.generate.scripted import subjects
from tests.servers import client
from llama_index.tuning import generate_qa_embedding_pairs
class Server:
    base_url = sys.argv[1]
generate_qa_embedding_pairs(subjects(60), client(Server), num_workers=4, output_path=sys.argv[2])
"""


def test_killed_and_started_again_no_finished_call_is_repeated(tmp_path):
    path = tmp_path / "a.json"
    file = tmp_path / "a.json.run.jsonl"
    with ChatServer(latency=0.1) as server:
        process = subprocess.Popen([sys.executable, "-c", RUN, server.base_url, str(path)])
        deadline = time.monotonic() + 300
        while not file.exists() or file.read_bytes().count(b"\n") < 12:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        with pytest.raises(RunFileError, match="being written by another run"):
            generate_qa_embedding_pairs(subjects(1), client(server), output_path=path)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        finished = {json.loads(row)["id"] for row in file.read_text().splitlines()[1:]}
        with file.open("a") as torn:
            torn.write('{"step": "questions", "id": "n5')
        dataset = generate_qa_embedding_pairs(
            subjects(60), client(server), num_workers=4, output_path=path
        )
    assert len(dataset) == 120
    repeated = [prompt for prompt, count in server.good.items() if count > 1]
    assert len(repeated) <= 4
    assert not any(f"subject-{id_[1:]}." in prompt for id_ in finished for prompt in repeated)


@pytest.mark.parametrize("generate", [generate_qa_embedding_pairs, generate_multi_hop_queries])
def test_texts_are_kept_with_the_metadata_that_is_asked_for(generate):
    nodes = [
        TextNode(id_=id_, text=f"The fee is {id_}.", metadata={"file_path": f"/home/ann/{id_}.txt"})
        for id_ in "ab"
    ]
    assert generate(nodes, MockLLM()).corpus["a"] == "file_path: /home/ann/a.txt\n\nThe fee is a."
    for mode in (MetadataMode.NONE, "none"):
        made = generate(nodes, MockLLM(), metadata_mode=mode)
        assert made.corpus == {"a": "The fee is a.", "b": "The fee is b."}
    with pytest.raises(ValueError, match="metadata_mode must be one of: all, embed, llm, none"):
        generate(nodes, MockLLM(), metadata_mode="nothing")
