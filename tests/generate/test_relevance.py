from dataclasses import replace

import pytest
from llama_index.core import Document, VectorStoreIndex

from llama_index.tuning import (
    RetrievalDataset,
    generate_ce_fine_tuning_dataset,
    generate_synthetic_queries_over_documents,
    label_relevance,
)
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.errors import DatasetError, RunFileError
from llama_index.tuning.generate import RelevanceLabels
from tests.generate.scripted import ScriptedLLM, Untouched, WordEmbedding, subjects

FAST = RunOptions(retry_wait=0.001)
QUERIES = ["All about subject-0", "All about subject-1"]


def retriever(top_k=3):
    index = VectorStoreIndex(subjects(4), embed_model=WordEmbedding())
    return index.as_retriever(similarity_top_k=top_k)


def same_subject(prompt):
    passage, query = prompt.rsplit("Document:", 1)[1], prompt.rsplit("Query:", 1)[1]
    return "Yes" if query.split("subject-")[1][0] == passage.split("subject-")[1][0] else "No"


def test_every_retrieved_passage_is_labelled_once(tmp_path):
    llm = ScriptedLLM(answer=same_subject)
    for _ in range(2):
        labels = label_relevance(QUERIES, retriever(), llm, output_path=tmp_path / "labels.jsonl")
    assert len(llm.prompts) == len(labels) == 6
    assert [(row.query, row.node_id) for row in labels if row.score] == [
        (QUERIES[0], "n0"),
        (QUERIES[1], "n1"),
    ]
    assert RelevanceLabels.from_jsonl(tmp_path / "labels.jsonl") == labels


def test_graded_labels():
    llm = ScriptedLLM(answer=lambda prompt: "Grade: 3")
    labels = label_relevance({"a": QUERIES[0]}, retriever(1), llm, scale="graded")
    assert [(row.query_id, row.score) for row in labels] == [("a", 3)]


def test_a_dry_run_estimates_calls_and_tokens_and_asks_nothing():
    llm = ScriptedLLM(answer=same_subject)
    labels = label_relevance(QUERIES, retriever(), llm, dry_run=True, run=RunOptions(max_calls=4))
    assert not labels
    assert not llm.prompts
    assert (labels.estimate.calls, labels.estimate.calls_within_budget) == (6, 4)
    assert 4 * 100 < labels.estimate.prompt_tokens < 4 * 250
    assert str(labels.estimate).startswith("4 of 6 calls, about")


def test_the_budget_goes_to_the_first_ranks_of_all_queries(tmp_path):
    llm = ScriptedLLM(answer=same_subject)
    out, run = tmp_path / "labels.jsonl", RunOptions(max_calls=2, num_workers=1)
    labels = label_relevance(QUERIES, retriever(), llm, output_path=out, run=run)
    assert {row.node_id for row in labels} == {"n0", "n1"}
    assert (labels.requests, labels.not_asked) == (2, 4)
    run = replace(run, max_calls=4)
    more = label_relevance(QUERIES, retriever(), llm, output_path=out, run=run)
    assert (len(more), more.requests, more.not_asked) == (6, 4, 0)


def test_tries_after_errors_count_towards_the_budget():
    def answer(prompt):
        raise ConnectionError("no route")

    llm = ScriptedLLM(answer=answer)
    labels = label_relevance(
        QUERIES, retriever(), llm, run=replace(FAST, max_calls=5, num_workers=1)
    )
    assert len(llm.prompts) == labels.requests == 5
    assert len(labels.failures) + labels.not_asked == 6


def test_the_old_function_and_its_rows():
    documents = [Document(text=f"All about subject-{i}.") for i in range(3)]
    llm = ScriptedLLM(answer=same_subject)
    rows = generate_ce_fine_tuning_dataset(
        documents, [QUERIES[0], ""], 1000, llm, top_k=2, embed_model=WordEmbedding()
    )
    assert next((row.query, row.context, row.score) for row in rows) == (
        QUERIES[0],
        "All about subject-0.",
        1,
    )
    assert len(rows) == 2


def test_questions_over_documents():
    llm = ScriptedLLM(answer=lambda p: "1. Why?\n2. How?" if "banking" in p else "")
    found = generate_synthetic_queries_over_documents(
        [Document(text="one"), Document(text="two")], qa_topic="banking", llm=llm
    )
    assert found == ["Why?", "How?"]


def test_bad_arguments_are_named():
    llm = ScriptedLLM(answer=same_subject)
    with pytest.raises(ValueError, match="unknown scale 'stars'; choose one of: yes_no, graded"):
        label_relevance(QUERIES, retriever(), llm, scale="stars")
    with pytest.raises(ValueError, match=r"prompt must hold \{document\}"):
        label_relevance(QUERIES, retriever(), llm, prompt="{query}")
    with pytest.raises(TypeError, match=r"got RetrievalDataset; pass its \.queries"):
        label_relevance(RetrievalDataset({}, {}, {}), retriever(), llm)
    with pytest.raises(TypeError, match="got a string"):
        label_relevance("one query", retriever(), llm)
    with pytest.raises(ValueError, match="max_calls must be a whole number >= 0"):
        label_relevance(QUERIES, retriever(), llm, run=RunOptions(max_calls=-1))
    with pytest.raises(DatasetError, match="documents hold no text"):
        generate_ce_fine_tuning_dataset([], ["q"], llm=llm, embed_model=WordEmbedding())


def test_what_is_wrong_with_a_run_is_said_before_the_retriever_is_asked(tmp_path):
    mine = tmp_path / "mine.jsonl"
    mine.write_text("{}\n")
    given = QUERIES, Untouched(), ScriptedLLM(answer=same_subject)
    with pytest.raises(RunFileError, match=r"mine\.jsonl exists and no run file lies beside it"):
        label_relevance(*given, output_path=mine)
    with pytest.raises(TypeError, match="run must be RunOptions, got dict"):
        label_relevance(*given, run={"retry_limit": 1})
