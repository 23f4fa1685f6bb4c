import pytest
from llama_index.core.tools import ToolMetadata

from llama_index.tuning import RoutingDataset
from llama_index.tuning.generate import generate_routing_examples
from tests.generate.scripted import ScriptedLLM


def data():
    return RoutingDataset.from_pairs(
        [("where is it", "orders"), ("money back", ["refunds", "orders"]), ("hello", None)],
        choices={"orders": "Tracking", "refunds": "Returns"},
    )


def test_it_survives_both_file_formats(tmp_path):
    data().save_json(tmp_path / "all.json")
    assert RoutingDataset.load(tmp_path / "all.json") == data()
    data().save_jsonl(tmp_path / "train.jsonl", tmp_path / "labels.json")
    assert RoutingDataset.load(tmp_path / "train.jsonl") == data()


def test_counts_and_fingerprint_say_what_is_in_it():
    assert data().class_counts() == {"orders": 2, "refunds": 1}
    assert data().fingerprint() == data().fingerprint()
    assert data().subset([0]).fingerprint() != data().fingerprint()


def test_tools_as_names_are_refused_with_what_takes_them():
    tool = ToolMetadata(name="a", description="A")
    with pytest.raises(TypeError, match=r"item 0 is ToolMetadata; from_metadata\(tools, pairs\)"):
        RoutingDataset.from_pairs([("Where?", "a")], choices=[tool])


def test_the_same_query_with_two_labels_warns_and_is_listed():
    with pytest.warns(UserWarning, match="1 queries occur more than once"):
        found = RoutingDataset.from_pairs([("Where?", "a"), ("where? ", "b"), ("x", "a")])
    assert found.conflicts() == [[0, 1]]
    train, test = RoutingDataset.from_pairs([(f"q{i}", "ab"[i % 2]) for i in range(20)]).split(0.3)
    assert test.class_counts() == {"a": 3, "b": 3}
    assert not set(train.queries) & set(test.queries)


def test_selections_with_feedback_become_examples():
    choices = [{"name": "a", "description": "A"}, {"name": "b", "description": "B"}]
    found = RoutingDataset.from_selections(
        [
            {"query": "1", "choices": choices, "selected": [0]},
            {"query": "2", "choices": choices, "selected": "a", "feedback": {"correct": "b"}},
            {"query": "3", "choices": choices, "selected": 1, "feedback": False},
            {"query": "4", "choices": choices, "selected": 1, "feedback": "up"},
            {"query": "5", "choices": choices, "selected": 1, "feedback": {"correct": None}},
        ]
    )
    assert found.choices == {"a": "A", "b": "B"}
    assert [(e.query, e.choices, e.weight) for e in found.examples] == [
        ("1", ("a",), 1.0),
        ("2", ("b",), 3.0),
        ("4", ("b",), 3.0),
        ("5", (), 3.0),
    ]


def test_it_becomes_a_retrieval_dataset_for_the_embedding_engines():
    found = data().to_retrieval()
    assert found.corpus == {"orders": "Tracking", "refunds": "Returns"}
    assert list(found.queries.values()) == ["where is it", "money back"]
    assert found.relevant_docs["q1"] == ["refunds", "orders"]


def test_tools_give_their_choices():
    tools = [ToolMetadata(name="a", description="A"), ToolMetadata(description="B only")]
    assert RoutingDataset.from_metadata(tools).choices == {"a": "A", "B only": "B only"}


def test_an_llm_writes_examples_and_its_preamble_is_no_question(caplog):
    def answer(prompt):
        name = "orders" if '"orders"' in prompt else "refunds"
        return f"Here are two questions:\n1. Where is my {name}?\n- What about both?"

    found = generate_routing_examples(data(), llm=ScriptedLLM(answer=answer))
    assert found.queries == ["Where is my orders?", "Where is my refunds?"]
    assert "1 of 3 questions came up for several choices" in caplog.text
