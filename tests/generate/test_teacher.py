import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore
from pydantic import Field, PrivateAttr

from llama_index.tuning import LightReranker, RelevanceDataset, TunedRetriever, label_by_reranker
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.errors import DatasetError, GenerationError, RunFileError
from llama_index.tuning.generate import LabelledRelevance
from tests.generate.scripted import ScriptedLLM, Untouched, WordEmbedding, subjects

FAST = RunOptions(retry_wait=0.001)
QUERIES = {f"q{i}": f"All about subject-{i}" for i in range(4)}


class ScriptedTeacher(BaseNodePostprocessor):
    """`answer(query, nodes)` is what it returns, or raises."""

    answer: object = Field(exclude=True)
    name: str = "scripted"
    top_n: int = 100
    _queries: list = PrivateAttr(default_factory=list)

    def _postprocess_nodes(self, nodes, query_bundle=None):
        self._queries.append(query_bundle.query_str)
        return self.answer(query_bundle.query_str, nodes)[: self.top_n]


def index():
    return VectorStoreIndex(subjects(4), embed_model=WordEmbedding())


def retriever(top_k=3):
    return index().as_retriever(similarity_top_k=top_k)


def ranked(*scores):
    """The given nodes, turned around, with these scores."""

    def answer(query, nodes):
        pairs = zip(nodes[::-1], scores, strict=False)
        return [NodeWithScore(node=item.node, score=score) for item, score in pairs]

    return answer


def scores_of(found):
    return [[candidate.score for candidate in item.candidates] for item in found.lists]


def write_scores(query, nodes):
    """As stock re-rankers do: into the nodes that were given."""
    for place, item in enumerate(nodes):
        item.node.metadata["retrieval_score"] = item.score
        item.score = float(place)
    return nodes[::-1]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((0.9, 0.5, 0.2), [0.2, 0.5, 0.9]),
        ((7.0,), [0.0, 0.0, 7.0]),
        ((-1.0, -2.0, -4.0), [0.0, 2.0, 3.0]),
        ((None, None), [0.0, 0.5, 1.0]),
        ((3, None), [0.0, 0.5, 1.0]),
    ],
)
def test_candidates_in_the_retrievers_order_get_the_teachers_scores(given, wanted):
    found = label_by_reranker(QUERIES, retriever(), ScriptedTeacher(answer=ranked(*given)))
    assert scores_of(found) == [wanted] * 4
    assert [(item.query_id, item.query) for item in found.lists] == list(QUERIES.items())
    first = found.lists[0].candidates
    assert first[0].node_id == "n0"
    assert first[0].retrieval_score > first[1].retrieval_score > 0
    assert (found.failures, found.requests) == ([], 4)


def test_a_teacher_that_only_orders_is_known_by_the_scores_that_it_leaves():
    teacher = ScriptedTeacher(answer=lambda query, nodes: nodes[::-1])
    assert scores_of(label_by_reranker(QUERIES, retriever(), teacher)) == [[1 / 3, 1 / 2, 1]] * 4


def test_the_apps_nodes_are_left_as_they_are():
    ours = index()
    label_by_reranker(
        QUERIES, ours.as_retriever(similarity_top_k=3), ScriptedTeacher(answer=write_scores)
    )
    assert all(node.metadata == {} for node in ours.docstore.docs.values())


def test_depth_decides_what_the_teacher_sees_and_a_list_of_texts_is_numbered():
    teacher = ScriptedTeacher(answer=ranked(0.9, 0.8, 0.7))
    found = label_by_reranker(["All about subject-2", " "], retriever(), teacher, depth=2)
    assert scores_of(found) == [[0.8, 0.9]]
    assert found.lists[0].query_id == "q0"


def test_an_llm_grades_and_an_unreadable_reply_is_a_failure():
    def answer(prompt):
        query = prompt.rsplit("Question:", 1)[1]
        if "subject-3" in query:
            return "I would rather not say."
        if "subject-1" in query:
            return "Doc: 1, Relevance: 9"
        return "Doc: 2, Relevance: 8\nDoc: 1, Relevance: 5"

    llm = ScriptedLLM(answer=answer)
    found = label_by_reranker(
        QUERIES, retriever(), LLMRerank(llm=llm, top_n=3), run=RunOptions(retry_limit=2)
    )
    assert scores_of(found) == [[5.0, 8.0, 0.0], [9.0, 0.0, 0.0], [5.0, 8.0, 0.0]]
    [failure] = found.failures
    assert (failure.id, failure.attempts, found.requests) == ("q3", 2, 5)
    assert failure.message == "the teacher returned none of its 3 passages"


def test_candidates_of_a_tuned_retriever_are_those_before_its_reranking():
    nodes = subjects(4)
    tuned = TunedRetriever(retriever(2), nodes, top_k=1, depth=3)
    found = label_by_reranker(QUERIES, tuned, LightReranker())
    assert {len(item.candidates) for item in found.lists} == {3}
    by_words = [c for item in found.lists for c in item.candidates if c.retrieval_score is None]
    assert len(by_words) == 4
    assert all(0 < score < 1 for scores in scores_of(found) for score in scores)


def test_a_file_holds_the_lists_and_a_second_run_asks_nothing(tmp_path):
    path = tmp_path / "lists.jsonl"
    teacher = ScriptedTeacher(answer=ranked(0.9, 0.5))
    first = label_by_reranker(QUERIES, retriever(), teacher, output_path=path)
    again = label_by_reranker(QUERIES, retriever(), teacher, output_path=path)
    assert len(teacher._queries) == 4
    assert again.requests == 0
    assert again.lists == first.lists == RelevanceDataset.from_jsonl(path).lists
    more = {"other": "What of subject-9?", **QUERIES}
    assert label_by_reranker(more, retriever(), teacher, output_path=path).requests == 1
    other = ScriptedTeacher(answer=ranked(0.9), name="another")
    with pytest.raises(RunFileError, match="belongs to another run: its settings"):
        label_by_reranker(QUERIES, retriever(), other, output_path=path)


def test_failed_queries_are_kept_apart_and_asked_again_next_time(tmp_path):
    broken = {"All about subject-1"}

    def answer(query, nodes):
        if query in broken:
            raise ConnectionError("no route")
        return ranked(float("nan") if query.endswith("2") else 0.9)(query, nodes)

    teacher = ScriptedTeacher(answer=answer)
    arguments = {"output_path": tmp_path / "a.jsonl", "run": replace(FAST, retry_limit=2)}
    found = label_by_reranker(QUERIES, retriever(), teacher, **arguments)
    assert isinstance(found, LabelledRelevance)
    assert [item.query_id for item in found.lists] == ["q0", "q3"]
    assert [(f.id, f.message, f.attempts) for f in found.failures] == [
        ("q1", "no route", 2),
        ("q2", "the teacher gave the score nan", 2),
    ]
    broken.clear()
    again = label_by_reranker(QUERIES, retriever(), teacher, **arguments)
    assert [item.query_id for item in again.lists] == ["q0", "q1", "q3"]
    fail = {**arguments, "run": replace(FAST, retry_limit=2, on_failure="fail")}
    with pytest.raises(GenerationError, match="rerank of 'q2' failed after 2 tries"):
        label_by_reranker(QUERIES, retriever(), teacher, **fail)


def test_a_query_that_finds_nothing_is_a_failure_too():
    found = retriever()
    find = type(found)._retrieve

    class Picky(type(found)):
        def _retrieve(self, query_bundle):
            return [] if query_bundle.query_str.endswith("0") else find(self, query_bundle)

    found.__class__ = Picky
    labelled = label_by_reranker(QUERIES, found, ScriptedTeacher(answer=ranked(0.9)))
    assert [(f.id, f.step) for f in labelled.failures] == [("q0", "retrieve")]
    assert len(labelled) == 3


def test_a_cut_by_the_teacher_is_said(caplog):
    label_by_reranker(QUERIES, retriever(), ScriptedTeacher(answer=ranked(0.9, 0.8), top_n=1))
    assert "returns 1 (top_n) of up to 3 candidates" in caplog.text
    caplog.clear()
    label_by_reranker(QUERIES, retriever(), ScriptedTeacher(answer=ranked(0.9, 0.8), top_n=3))
    assert "top_n" not in caplog.text


def test_a_teacher_that_answers_nothing_is_an_error_that_says_why():
    def answer(query, nodes):
        raise ConnectionError("no route")

    with pytest.raises(DatasetError, match="labelled no query:\n  - query 'q0': no route"):
        label_by_reranker(QUERIES, retriever(), ScriptedTeacher(answer=answer), run=FAST)
    with pytest.raises(DatasetError, match="no candidate of any query is relevant"):
        label_by_reranker(QUERIES, retriever(), ScriptedTeacher(answer=lambda query, nodes: []))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"teacher": WordEmbedding()}, TypeError, "teacher must be a re-ranker .* WordEmbedding"),
        ({"retriever": "index"}, TypeError, "retriever must be a retriever of LlamaIndex"),
        ({"queries": "what"}, TypeError, "queries must be a list of texts or a mapping"),
        ({"queries": ["what", 3]}, TypeError, "query 'q1' must be a text, got int"),
        ({"queries": [""]}, DatasetError, "there are no queries to label"),
        ({"depth": 0}, ValueError, "depth must be a whole number >= 1, got 0"),
        ({"run": FAST.retry_limit}, TypeError, "run must be RunOptions, got int"),
    ],
)
def test_bad_arguments_are_named_and_nobody_is_asked(change, error, message):
    teacher = ScriptedTeacher(answer=ranked(0.9))
    arguments = {"queries": QUERIES, "retriever": retriever(), "teacher": teacher, **change}
    with pytest.raises(error, match=message):
        label_by_reranker(**arguments)
    assert teacher._queries == []


def test_what_is_wrong_with_a_run_is_said_before_the_retriever_is_asked(tmp_path):
    mine = tmp_path / "mine.jsonl"
    mine.write_text("{}\n")
    given = QUERIES, Untouched(), ScriptedTeacher(answer=ranked(0.9))
    with pytest.raises(RunFileError, match=r"mine\.jsonl exists and no run file lies beside it"):
        label_by_reranker(*given, output_path=mine)
    with pytest.raises(TypeError, match="run must be RunOptions, got dict"):
        label_by_reranker(*given, run={"retry_limit": 1})


RUN = """
import os, signal, sys
from tests.generate import test_teacher as t

def answer(query, nodes):
    if sys.argv[3] == "die" and query.endswith("2"):
        os.kill(os.getpid(), signal.SIGKILL)
    with open(sys.argv[2], "a") as file:
        file.write(query + chr(10))
    return t.ranked(0.9, 0.5)(query, nodes)

teacher = t.ScriptedTeacher(answer=answer)
t.label_by_reranker(t.QUERIES, t.retriever(), teacher, output_path=sys.argv[1])
"""


def test_killed_midway_and_started_again_each_query_is_asked_once(tmp_path):
    path, asked = tmp_path / "lists.jsonl", tmp_path / "asked.txt"

    def run(how):
        command = [sys.executable, "-c", RUN, str(path), str(asked), how]
        return subprocess.run(command, env={**os.environ}, capture_output=True, text=True)

    assert run("die").returncode == -signal.SIGKILL
    assert not path.exists()
    finished = run("live")
    assert finished.returncode == 0, finished.stderr
    assert sorted(asked.read_text().splitlines()) == list(QUERIES.values())
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["query_id"] for row in rows] == list(QUERIES)
