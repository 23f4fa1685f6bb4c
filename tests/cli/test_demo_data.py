import json
from collections import Counter
from importlib.resources import files

from llama_index.tuning.demo import questions_about, reference_nodes
from llama_index.tuning.text.words import normalise


def rows():
    text = files("llama_index.tuning.demo").joinpath("python_questions.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_questions_are_many_distinct_and_split():
    found = rows()
    splits = Counter(row["split"] for row in found)
    assert splits["train"] >= 240
    assert splits["held_out"] >= 120
    assert len({normalise(row["question"]) for row in found}) == len(found)


def test_nearly_every_question_finds_its_passage_on_this_python():
    nodes = reference_nodes()
    parts = [questions_about(nodes, split) for split in ("train", "held_out")]
    assert sum(map(len, parts)) >= 0.98 * len(rows())
    assert not set(parts[0].queries.values()) & set(parts[1].queries.values())
    assert len({node.node_id for node in nodes}) == len(nodes)
