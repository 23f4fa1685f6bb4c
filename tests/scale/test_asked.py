"""What an LLM is asked about a folder: shard by shard, no call twice, failures beside."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from llama_index.core.evaluation import FaithfulnessEvaluator
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning import LightReranker, RetrievalDataset, TunedReranker
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.errors import GenerationError, RunFileError
from llama_index.tuning.generate import mine_hard_negatives as mine_in_memory
from llama_index.tuning.scale import (
    ScaleOptions,
    embed_corpus,
    generate_questions,
    judge_answers,
    label_relevance,
    mine_hard_negatives,
    rerank,
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


def found_lists():
    """Three queries, each with the passage that answers it last."""
    topics = ["refund", "delivery", "invoice"]
    texts = [f"The {topic} takes a week." for topic in topics]
    for place, topic in enumerate(topics):
        others = [(f"d{n}", text) for n, text in enumerate(texts) if n != place]
        names, passages = zip(*others, (f"d{place}", texts[place]), strict=True)
        query = f"How long does a {topic} take?"
        yield {"id": topic, "query": query, "candidates": names, "texts": passages}


def test_candidates_come_in_the_order_of_the_reranker(tmp_path):
    rows = [{**row, "scores": [0.5, 0.5, 0.5]} for row in found_lists()]
    rows += [
        {**rows[0], "id": "no candidates", "candidates": [], "texts": []},
        {**rows[0], "id": "a text short", "texts": ["one"]},
        {**rows[0], "id": "a score short", "scores": [1.0]},
        {**rows[0], "id": "one twice", "candidates": ["d1", "d1", "d2"]},
        {**rows[0], "query": "The id was there before"},
        {**rows[0], "id": "no query", "query": " "},
    ]
    (tmp_path / "found.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out, reranker = tmp_path / "out", LightReranker(top_n=2)
    report = rerank(tmp_path / "found.jsonl", out, reranker)
    assert (report.read, report.written, report.failed) == (9, 3, 6)
    found = {row["id"]: row for row in rows_in(out)}
    for row in rows[:3]:
        nodes = [
            NodeWithScore(node=TextNode(id_=id_, text=text), score=score)
            for id_, text, score in zip(row["candidates"], row["texts"], row["scores"], strict=True)
        ]
        wanted = reranker.postprocess_nodes(nodes, query_str=row["query"])
        assert found[row["id"]]["candidates"] == [item.node.node_id for item in wanted]
        assert found[row["id"]]["candidates"][0] == row["candidates"][-1]
        np.testing.assert_allclose(
            found[row["id"]]["scores"], [item.score for item in wanted], rtol=1e-6
        )
    assert set(failed_in(out)) == {
        *("no candidates", "a text short", "a score short", "one twice", "refund", "no query")
    }


def test_a_reranker_by_an_llm_is_asked_for_what_is_missing_alone(tmp_path):
    (tmp_path / "found.jsonl").write_text("\n".join(map(json.dumps, found_lists())))
    asked = []

    def answer(prompt):
        asked.append(prompt)
        if len(asked) == 3:
            raise NoCredit
        return "Doc: 3, Relevance: 9\nDoc: 1, Relevance: 2"

    llm, out, one = ScriptedLLM(answer=answer), tmp_path / "out", RunOptions(num_workers=1)
    with pytest.raises(GenerationError, match="no call to the LLM can succeed"):
        rerank(tmp_path / "found.jsonl", out, LLMRerank(llm=llm, top_n=2), run=one)
    report = rerank(tmp_path / "found.jsonl", out, LLMRerank(llm=llm, top_n=2), run=one)
    assert (report.written, len(asked)) == (3, 4)
    for given, row in zip(found_lists(), rows_in(out), strict=True):
        assert row["candidates"] == [given["candidates"][2], given["candidates"][0]]
        assert row["scores"] == [9.0, 2.0]


def test_a_list_with_other_scores_is_another_list(tmp_path):
    class ByScore(BaseNodePostprocessor):
        def _postprocess_nodes(self, nodes, query_bundle=None):
            return sorted(nodes, key=lambda item: -item.score)

    (row, *_) = found_lists()
    rows = [
        {**row, "id": str(n), "scores": scores} for n, scores in enumerate([[1, 2, 3], [3, 2, 1]])
    ]
    (tmp_path / "found.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rerank(tmp_path / "found.jsonl", tmp_path / "out", ByScore(), run=RunOptions(num_workers=1))
    one, other = (found["candidates"] for found in rows_in(tmp_path / "out"))
    assert one == other[::-1]


def test_another_reranker_does_not_go_on_in_the_folder(tmp_path):
    (tmp_path / "found.jsonl").write_text("\n".join(map(json.dumps, found_lists())))

    class Length:
        def __init__(self, sign):
            self.sign = sign

        def predict(self, pairs, **_):
            return [self.sign * len(text) for _, text in pairs]

    rerank(tmp_path / "found.jsonl", tmp_path / "out", TunedReranker(Length(1)))
    again = rerank(tmp_path / "found.jsonl", tmp_path / "out", TunedReranker(Length(1)))
    assert again.resumed == again.shards
    with pytest.raises(RunFileError, match="settings"):
        rerank(tmp_path / "found.jsonl", tmp_path / "out", TunedReranker(Length(-1)))


def test_a_rate_limit_for_a_component_that_asks_nobody_is_refused(tmp_path):
    (tmp_path / "found.jsonl").write_text("\n".join(map(json.dumps, found_lists())))
    limited = ScaleOptions(requests_per_minute=60)
    with pytest.raises(ValueError, match="requests_per_minute: LightReranker sends no requests"):
        rerank(tmp_path / "found.jsonl", tmp_path / "out", LightReranker(), options=limited)
