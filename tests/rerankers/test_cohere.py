import json

import pytest

from llama_index.tuning import (
    CohereRerankerFinetuneEngine,
    RelevanceDataset,
    RetrievalDataset,
    generate_cohere_reranker_finetuning_dataset,
)
from llama_index.tuning.errors import DatasetError, HostedEndedError
from llama_index.tuning.rerankers.dataset_gen import generate_hard_negatives
from tests.generate.scripted import WordEmbedding

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
    assert generate_cohere_reranker_finetuning_dataset(data(), finetune_dataset_file_name=path) == 1
    assert json.loads(path.read_text()) == {
        "query": "fees?",
        "relevant_passages": ["Fees"],
        "hard_negatives": ["Cats", "Dogs"],
    }
    generate_cohere_reranker_finetuning_dataset(
        data(), num_negatives=1, finetune_dataset_file_name=path
    )
    assert json.loads(path.read_text())["hard_negatives"] == ["Cats"]


def test_nothing_to_write_and_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="num_negatives must be a whole number >= 0, got -1"):
        generate_cohere_reranker_finetuning_dataset(data(), num_negatives=-1)
    only = data().subset(["r"])
    with pytest.raises(DatasetError, match="no query has a relevant candidate"):
        generate_cohere_reranker_finetuning_dataset(only)


def questions():
    return RetrievalDataset(
        {"q": "fees?", "r": "cats?", "s": "dogs?"}, TEXTS, {"q": ["a"], "r": ["b", "c"], "s": ["c"]}
    )


def test_the_old_packages_calls_write_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert generate_cohere_reranker_finetuning_dataset(questions()) == 3
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [row["hard_negatives"] for row in rows] == [[], [], []]
    assert rows[1] == {
        "query": "cats?",
        "relevant_passages": ["Cats", "Dogs"],
        "hard_negatives": [],
    }
    for method in ("random", "cosine_similarity"):
        generate_cohere_reranker_finetuning_dataset(
            questions(),
            num_negatives=5,
            hard_negatives_gen_method=method,
            finetune_dataset_file_name="with.jsonl",
            embed_model=WordEmbedding(),
        )
        rows = [json.loads(line) for line in (tmp_path / "with.jsonl").read_text().splitlines()]
        assert [sorted(row["hard_negatives"]) for row in rows] == [
            ["Cats", "Dogs"],
            ["Fees"],
            ["Cats", "Fees"],
        ]


def test_negatives_by_similarity_are_the_nearest_of_other_passages():
    queries = ["fees and cats?", "cats?", "dogs?"]
    passages = ["the fees", "cats eat", "dogs"]
    found = generate_hard_negatives(queries, passages, WordEmbedding(), 1, "cosine_similarity")
    assert found[0] == ["cats eat"]
    drawn = generate_hard_negatives(queries, passages, num_negatives=1, seed=3)
    assert drawn == generate_hard_negatives(queries, passages, num_negatives=1, seed=3)
    assert all(own not in negatives for own, negatives in zip(passages, drawn, strict=True))


def test_wrong_methods_and_lengths_are_named():
    with pytest.raises(ValueError, match=r"unknown method 'near' .*: random, cosine_similarity"):
        generate_hard_negatives(["q"], ["a"], method="near")
    with pytest.raises(ValueError, match="need embed_model"):
        generate_hard_negatives(["q"], ["a"], method="cosine_similarity")
    with pytest.raises(ValueError, match="1 queries, 0 relevant_contexts"):
        generate_hard_negatives(["q"], [])
