"""How a run asks is said once, and means the same in every function that asks."""

import inspect

import pytest

import llama_index.tuning as tuning
from llama_index.tuning import generate, generate_paraphrases, label_judgments
from llama_index.tuning.asking import CallOptions, RunOptions
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.errors import GenerationError
from llama_index.tuning.llms import distillation_dataset, style_dataset
from tests.generate.scripted import ScriptedLLM

OLD_NAMES = {"generate_qa_embedding_pairs"}
ASKING = [
    *(getattr(generate, n) for n in generate.__all__ if n.startswith(("generate_", "label_"))),
    generate.mine_hard_negatives,
    label_judgments,
    distillation_dataset,
    style_dataset,
    tuning.distillation_task,
    tuning.style_task,
]


@pytest.mark.parametrize("function", ASKING, ids=lambda function: function.__name__)
def test_a_function_that_asks_takes_run_and_none_of_its_fields(function):
    names = set(inspect.signature(function).parameters)
    if function.__name__ in OLD_NAMES | {"generate_sentence_queries"}:  # the second asks nobody
        return
    assert "run" in names
    assert not names & set(inspect.signature(RunOptions).parameters)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_workers": 0}, "num_workers must be a whole number >= 1, got 0"),
        ({"retry_limit": 0}, "retry_limit must be a whole number >= 1, got 0"),
        ({"save_every": True}, "save_every must be a whole number >= 1, got True"),
        ({"max_calls": -1}, "max_calls must be a whole number >= 0, got -1"),
        ({"on_failure": "stop"}, "unknown on_failure 'stop'; choose one of: continue, fail"),
        ({"timeout": 0}, "timeout must be above 0, got 0"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        RunOptions(**fields)


def dataset():
    return RetrievalDataset({"q": "Fee?", "r": "Rate?"}, {"d": "5"}, {"q": ["d"], "r": ["d"]})


def test_a_budget_and_a_failure_mean_what_they_say():
    llm = ScriptedLLM(answer=lambda prompt: "What does it cost?")
    found = generate_paraphrases(dataset(), llm, run=RunOptions(max_calls=1, num_workers=1))
    assert len(llm.prompts) == 1
    assert found.counts["paraphrases"] == 1

    def down(prompt):
        raise RuntimeError("down")

    run = RunOptions(on_failure="fail", retry_limit=1)
    with pytest.raises(GenerationError, match="down"):
        generate_paraphrases(dataset(), ScriptedLLM(answer=down), run=run)


def test_options_of_single_calls_are_not_those_of_a_run():
    with pytest.raises(TypeError, match="run must be RunOptions, got CallOptions"):
        generate_paraphrases(dataset(), ScriptedLLM(answer=str), run=CallOptions())
