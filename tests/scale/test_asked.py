"""What an LLM is asked about a folder: shard by shard, no call twice, failures beside."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from llama_index.core.evaluation import FaithfulnessEvaluator

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.errors import GenerationError
from llama_index.tuning.generate import mine_hard_negatives as mine_in_memory
from llama_index.tuning.scale import (
    ScaleOptions,
    embed_corpus,
    generate_questions,
    judge_answers,
    label_relevance,
    mine_hard_negatives,
    vectors_to_array,
)
from tests.conftest import rotated_problem
from tests.generate.scripted import ScriptedLLM

FOUR = ScaleOptions(rows_per_shard=4)
QUICK = RunOptions(retry_wait=0.0, num_workers=2, verbose=False)


@pytest.fixture
def folder(tmp_path):
    """Ten passages; the last has no text."""
    rows = [{"id": f"d{i}", "text": f"The fee of plan {i} is {i} euros."} for i in range(9)]
    pq.write_table(pa.Table.from_pylist([*rows, {"id": "d9", "text": ""}]), tmp_path / "d.parquet")
    return tmp_path / "d.parquet"


def rows_in(output):
    return pq.read_table(output).to_pylist()


def failed_in(output):
    files = sorted((output / "_failures").iterdir())
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return {row["id"]: row["message"] for row in rows}


class NoCredit(Exception):
    status_code = 403


def asked_for(prompt):
    """A question about the plan of the prompt."""
    plan = prompt.split("plan ")[1].split()[0]
    return f"What is the fee of plan {plan}?"


def test_questions_of_a_folder_go_on_behind_the_last_answered_call(folder, tmp_path):
    calls = []

    def answer(prompt):
        if len(calls) == 6:
            raise NoCredit
        calls.append(prompt)
        return asked_for(prompt)

    out = tmp_path / "out"
    with pytest.raises(GenerationError, match="no call to the LLM can succeed"):
        generate_questions(folder, out, ScriptedLLM(answer=answer), run=QUICK, options=FOUR)
    again = []

    def rested(prompt):
        again.append(prompt)
        return asked_for(prompt)

    report = generate_questions(folder, out, ScriptedLLM(answer=rested), run=QUICK, options=FOUR)
    assert (report.read, report.written, report.failed) == (10, 9, 1)
    assert len(again) == 3
    found = {row["question"]: row["relevant"] for row in rows_in(out)}
    assert found == {f"What is the fee of plan {i}?": [f"d{i}"] for i in range(9)}
    assert failed_in(out) == {"d9": "the text is empty"}


def test_a_passage_whose_call_failed_is_asked_about_again_and_no_other(folder, tmp_path):
    def moody(prompt):
        return "" if "plan 2" in prompt else asked_for(prompt)

    out = tmp_path / "out"
    report = generate_questions(folder, out, ScriptedLLM(answer=moody), run=QUICK, options=FOUR)
    assert (report.written, set(failed_in(out))) == (8, {"d2", "d9"})
    again = []

    def patient(prompt):
        again.append(prompt)
        return asked_for(prompt)

    once_more = ScaleOptions(rows_per_shard=4, retry_failed=True)
    report = generate_questions(
        folder, out, ScriptedLLM(answer=patient), run=QUICK, options=once_more
    )
    assert report.written == 9
    assert ["plan 2" in prompt for prompt in again] == [True]


def test_a_budget_of_calls_is_refused_for_a_folder(folder, tmp_path):
    with pytest.raises(ValueError, match="max_calls"):
        generate_questions(
            folder, tmp_path / "o", ScriptedLLM(answer=str), run=RunOptions(max_calls=5)
        )


def test_pairs_are_graded(tmp_path):
    rows = [
        {"query_id": "q", "query": "What is the fee?", "id": f"d{i}", "text": f"passage {i}"}
        for i in range(6)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    llm = ScriptedLLM(answer=lambda prompt: "Yes" if "passage 3" in prompt else "No")
    out = tmp_path / "out"
    label_relevance(tmp_path / "pairs.jsonl", out, llm, run=QUICK, options=FOUR)
    assert {row["id"]: row["score"] for row in rows_in(out)} == {
        f"d{i}": float(i == 3) for i in range(6)
    }


def test_answers_are_judged_with_their_ids(tmp_path):
    rows = [
        {"id": f"a{i}", "response": f"The fee is {i % 3} euros.", "contexts": ["It is 1 euros."]}
        for i in range(6)
    ]
    rows += [{"id": "no contexts", "response": "The fee is 1 euros."}, {"id": "no response"}]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def verdict(prompt):
        return "YES" if "The fee is 1 euros" in prompt else "NO"

    teacher = FaithfulnessEvaluator(ScriptedLLM(answer=verdict))
    out = tmp_path / "out"
    judge_answers(tmp_path / "answers.jsonl", out, teacher, run=QUICK, options=FOUR)
    assert {row["id"]: row["passing"] for row in rows_in(out)} == {
        f"a{i}": i % 3 == 1 for i in range(6)
    }
    assert set(failed_in(out)) == {"no contexts", "no response"}


def test_negatives_of_a_folder_are_those_of_memory(tmp_path):
    dataset, model = rotated_problem()
    documents = [{"id": id_, "text": text} for id_, text in dataset.corpus.items()]
    queries = [
        {"id": id_, "text": text, "relevant": dataset.relevant_docs[id_]}
        for id_, text in dataset.queries.items()
    ]
    pq.write_table(pa.Table.from_pylist(documents), tmp_path / "d.parquet")
    pq.write_table(pa.Table.from_pylist(queries), tmp_path / "q.parquet")
    embed_corpus(tmp_path / "d.parquet", tmp_path / "d", model)
    keep = {"relevant": "list<string>"}
    embed_corpus(tmp_path / "q.parquet", tmp_path / "q", model, kind="query", keep=keep)
    vectors_to_array(tmp_path / "d", tmp_path / "d.npy")
    settings = {"rank_range": (2, 30), "relative_margin": 0.1, "near_duplicate": 0.4}
    mine_hard_negatives(
        tmp_path / "q", tmp_path / "n", tmp_path / "d.npy", options=FOUR, **settings
    )
    vectors = np.load(tmp_path / "d.npy")
    # Texts in words of their own: the rule on texts, which a folder has not, leaves none out.
    apart = RetrievalDataset(
        dataset.queries,
        {id_: " ".join(f"{word}{id_}" for word in "abcdefg") for id_ in dataset.corpus},
        dataset.relevant_docs,
    )
    wanted = mine_in_memory(apart, embed_model=model, vectors=vectors, **settings)
    assert {row["id"]: row["negatives"] for row in rows_in(tmp_path / "n")} == wanted.negatives
    assert 0 < sum(map(len, wanted.negatives.values())) < 5 * len(dataset)


def test_a_query_without_a_known_document_or_vector_is_a_failure(tmp_path):
    rows = [
        {"id": "fine", "vector": [1.0, 0.1], "relevant": ["a"]},
        {"id": "unknown", "vector": [1.0, 0.0], "relevant": ["z"]},
        {"id": "none", "vector": [1.0, 0.0], "relevant": None},
        {"id": "short", "vector": [1.0], "relevant": ["a"]},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    np.save(tmp_path / "d.npy", np.eye(2, dtype=np.float32))
    pq.write_table(pa.table({"id": ["a", "b"]}), tmp_path / "d.npy.ids.parquet")
    mine_hard_negatives(tmp_path / "q.jsonl", tmp_path / "out", tmp_path / "d.npy")
    assert [(row["id"], row["negatives"]) for row in rows_in(tmp_path / "out")] == [("fine", ["b"])]
    assert set(failed_in(tmp_path / "out")) == {"unknown", "none", "short"}
