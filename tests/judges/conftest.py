import numpy as np
import pytest

from llama_index.tuning import JudgeFinetuneEngine, JudgmentDataset
from llama_index.tuning.judges import JudgeOptions

WORDS = ["river", "stone", "cloud", "amber", "wheel", "forest"]
WORDS += ["candle", "mirror", "harbour", "velvet", "copper", "meadow"]


def verdicts(count=60, seed=0, **fields):
    """Right answers name the context's word and number, wrong ones another's; equally long."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        word, other = rng.choice(WORDS, 2, replace=False)
        right = bool(number % 2)
        said = (word, 100 + number) if right else (other, 900 + number)
        rows.append(
            {
                "query": f"What is code {number} of list {seed}?",
                "contexts": [f"Code {number} is {word} {100 + number}. It was set in spring."],
                "response": f"The code is {said[0]} {said[1]}.",
                "passing": right,
                "source": "teacher",
                **fields,
            }
        )
    return rows


def pairs(count=60, seed=0, ties=0):
    """Of two answers, the one with the context's words is better."""
    one, two = verdicts(count, seed), verdicts(count, seed + 1)
    rows = []
    for number, (row, other) in enumerate(zip(one, two, strict=True)):
        del row["passing"], row["contexts"]
        right = f"Code {number} of the list is {WORDS[number % 12]}."
        wrong = other["response"]
        first = bool(number % 2)
        row["response"], row["second_response"] = (right, wrong) if first else (wrong, right)
        row["score"] = float(first)
        if number < ties:
            row["second_response"], row["score"] = row["response"], 0.5
        rows.append(row)
    return rows


def data(rows):
    return JudgmentDataset.from_records(rows)


@pytest.fixture(scope="session")
def engine():
    found = JudgeFinetuneEngine(data(verdicts()), options=JudgeOptions(folds=3), accept="always")
    found.finetune()
    return found


@pytest.fixture(scope="session")
def pair_engine():
    found = JudgeFinetuneEngine(data(pairs(ties=8)), options=JudgeOptions(folds=3), accept="always")
    found.finetune()
    return found


@pytest.fixture
def judge(engine):
    return engine.get_finetuned_model()


@pytest.fixture
def pair_judge(pair_engine):
    return pair_engine.get_finetuned_model()
