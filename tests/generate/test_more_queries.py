import itertools
import random
import re

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from llama_index.tuning import (
    RetrievalDataset,
    generate_multi_hop_queries,
    generate_paraphrases,
    generate_unanswerable_queries,
)
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate import UnansweredQueries, compare_queries
from tests.generate.scripted import ScriptedLLM, WordEmbedding, subjects

DATASET = RetrievalDataset(
    {"q1": "What is the fee?", "q2": "When do you open?"},
    {"d1": "The fee is 5.", "d2": "We open at nine."},
    {"q1": ["d1"], "q2": ["d2"]},
)


def test_paraphrases_are_relevant_to_the_same_documents(tmp_path):
    def answer(prompt):
        fee = "fee?" in prompt
        return "1. How much?\n2. what is the fee" if fee else "1. How much?\n2. Hours?"

    llm = ScriptedLLM(answer=answer)
    for _ in range(2):
        made = generate_paraphrases(DATASET, llm, output_path=tmp_path / "p.json")
    assert len(llm.prompts) == 2
    by_text = {text: made.relevant_docs[id_] for id_, text in made.queries.items()}
    assert by_text == {
        "What is the fee?": ["d1"], "When do you open?": ["d2"], "How much?": ["d1"],
        "Hours?": ["d2"],
    }  # fmt: skip
    assert made.counts == {"queries": 2, "failed": 0, "paraphrases": 2, "duplicates": 2}
    assert RetrievalDataset.load(tmp_path / "p.json").queries == made.queries


def test_paraphrases_in_a_style():
    llm = ScriptedLLM(answer=lambda p: "fee cost" if "fee?" in p else "opening hours")
    made = generate_paraphrases(DATASET, llm, num_paraphrases=1, question_styles=["keywords"])
    written = set(made.queries.values()) - set(DATASET.queries.values())
    assert written == {"fee cost", "opening hours"}
    assert set(made.styles.values()) == {"keywords"}
    assert all("two to six keywords" in prompt for prompt in llm.prompts)


def test_multi_hop_questions_are_relevant_to_all_their_passages():
    numbers = itertools.count()
    llm = ScriptedLLM(answer=lambda p: f"How do they compare, number {next(numbers)}?")
    dataset = generate_multi_hop_queries(subjects(6), llm, num_groups=4, nodes_per_group=3)
    assert len(dataset) == 4
    assert all(len(set(docs)) == 3 for docs in dataset.relevant_docs.values())
    texts = [dataset.corpus[doc] for doc in next(iter(dataset.relevant_docs.values()))]
    assert all(text in llm.prompts[0] for text in texts)
    again = generate_multi_hop_queries(subjects(6), llm, num_groups=4, nodes_per_group=3)
    assert sorted(again.relevant_docs.values()) == sorted(dataset.relevant_docs.values())


def test_passages_of_one_document_are_grouped():
    nodes = []
    for i in range(9):
        link = RelatedNodeInfo(node_id=f"doc{i // 3}")
        relationships = {NodeRelationship.SOURCE: link}
        nodes.append(TextNode(id_=f"n{i}", text=f"subject {i}", relationships=relationships))
    llm = ScriptedLLM(answer=lambda p: "How " + " ".join(re.findall(r"subject \d", p)) + "?")
    dataset = generate_multi_hop_queries(nodes, llm)
    for docs in dataset.relevant_docs.values():
        assert len({int(doc[1:]) // 3 for doc in docs}) == 1


def test_related_passages_are_grouped_with_an_embedding_model():
    texts = ["card fee abroad euro", "card fee home euro", "cat sat on mat", "cat lay on mat",
             "cat sat on mat"]  # fmt: skip
    nodes = [TextNode(id_=f"n{i}", text=text) for i, text in enumerate(texts)]
    llm = ScriptedLLM(answer=lambda p: "Why " + p[60:160].replace("\n", " ") + "?")
    many = generate_multi_hop_queries(nodes, llm, embed_model=WordEmbedding())
    assert {"n2", "n4"} not in [set(docs) for docs in many.relevant_docs.values()]


def test_multi_hop_questions_that_one_passage_answers_are_dropped():
    def answer(prompt):
        if "Can the question be answered" not in prompt:
            return "1. Both needed?\n2. One enough?"
        both = "subject-0." in prompt and "subject-1." in prompt
        return "Yes" if both or "One enough" in prompt else "No"

    dataset = generate_multi_hop_queries(
        subjects(2), ScriptedLLM(answer=answer), groups=[["n0", "n1"]], verify=True,
        num_questions_per_group=2,
    )  # fmt: skip
    assert list(dataset.queries.values()) == ["Both needed?"]
    assert dataset.counts["unverified"] == 1


def test_bad_groups_are_named():
    llm = ScriptedLLM(answer=lambda p: "Why?")
    with pytest.raises(DatasetError, match="unknown node id 'x'"):
        generate_multi_hop_queries(subjects(2), llm, groups=[["n0", "x"]])
    with pytest.raises(DatasetError, match="at least 2 different nodes"):
        generate_multi_hop_queries(subjects(2), llm, groups=[["n0", "n0"]])
    with pytest.raises(DatasetError, match="too few for groups of 3"):
        generate_multi_hop_queries(subjects(2), llm, nodes_per_group=3)


def test_unanswerable_queries_are_checked_against_retrieved_passages(tmp_path):
    def answer(prompt):
        if "Can the question be answered" not in prompt:
            return f"What about subject-{1 if 'subject-0' in prompt else 9}?"
        passage, question = prompt.split("Question:")
        return "Yes" if re.search(r"subject-\d", question).group() in passage else "No"

    nodes = subjects(2)
    index = VectorStoreIndex(nodes, embed_model=WordEmbedding())
    llm = ScriptedLLM(answer=answer)
    made = generate_unanswerable_queries(
        nodes, llm, verify=True, retriever=index.as_retriever(similarity_top_k=2),
        output_path=tmp_path / "none.jsonl",
    )  # fmt: skip
    assert list(made.queries.values()) == ["What about subject-9?"]
    assert list(made.near.values()) == ["n1"]
    assert made.counts["answered"] == 1
    assert UnansweredQueries.from_jsonl(tmp_path / "none.jsonl").queries == made.queries


def test_out_of_scope_queries_have_a_prompt_of_their_own():
    llm = ScriptedLLM(answer=lambda p: "Tell me a joke")
    made = generate_unanswerable_queries(subjects(3), llm, kind="out_of_scope")
    assert list(made.queries.values()) == ["Tell me a joke"]
    assert made.counts["duplicates"] == 2
    assert "nothing to do with" in llm.prompts[0]
    with pytest.raises(ValueError, match="unknown kind 'other'; choose one of"):
        generate_unanswerable_queries(subjects(3), llm, kind="other")


def test_a_classifier_tells_queries_apart_where_they_differ():
    pytest.importorskip("sklearn")
    real = [f"{a} {b}" for a in ("fee", "card", "cost", "rate") for b in "abcdefghij"]
    other = [f"what is the exact {a} of {b}?" for a in ("fee", "card") for b in "klmnopqrst"]
    apart = compare_queries(other, real, WordEmbedding())
    assert apart.auc > 0.95
    assert apart.told_apart
    assert set(apart.most_artificial) <= set(other)
    assert "are told apart: AUC" in str(apart)
    random.Random(0).shuffle(real)
    alike = compare_queries(real[:20], real[20:], WordEmbedding())
    assert not alike.told_apart


def test_too_few_queries_are_named():
    with pytest.raises(DatasetError, match="real must hold at least 10"):
        compare_queries(["a b"] * 12, ["c"], WordEmbedding())
