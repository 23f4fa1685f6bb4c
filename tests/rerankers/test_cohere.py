import json

import pytest

from llama_index.tuning import (
    CohereRerankerFinetuneEngine,
    RelevanceDataset,
    generate_cohere_reranker_finetuning_dataset,
)
from llama_index.tuning.errors import DatasetError, HostedEndedError

TEXTS = {"a": "Fees", "b": "Cats", "c": "Dogs"}


def data():
    return RelevanceDataset.from_labels(
        {"q": "fees?", "r": "cats?"}, TEXTS, {"q": {"b": 0, "a": 1, "c": 0}, "r": {"c": 0}}
    )


def test_the_engine_says_that_it_is_over_and_what_to_use():
    with pytest.raises(HostedEndedError, match=r"15 September 2025.*LightRerankerFinetuneEngine"):
        CohereRerankerFinetuneEngine("train.jsonl", model_name="m")


def test_the_format_is_still_written(tmp_path):
    path = tmp_path / "train.jsonl"
    assert generate_cohere_reranker_finetuning_dataset(data(), path) == 1
    assert json.loads(path.read_text()) == {
        "query": "fees?",
        "relevant_passages": ["Fees"],
        "hard_negatives": ["Cats", "Dogs"],
    }
    generate_cohere_reranker_finetuning_dataset(data(), path, num_negatives=1)
    assert json.loads(path.read_text())["hard_negatives"] == ["Cats"]


def test_nothing_to_write_and_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="num_negatives must be a whole number >= 0, got -1"):
        generate_cohere_reranker_finetuning_dataset(data(), tmp_path / "x", num_negatives=-1)
    only = data().subset(["r"])
    with pytest.raises(DatasetError, match="no query has a relevant candidate"):
        generate_cohere_reranker_finetuning_dataset(only, tmp_path / "x")
