"""What is no file of ours ends in an error that names it: every reader, every kind of damage."""

import os

import pytest

from llama_index.tuning import TunedJudge, TunedSelector, load_app, load_reranker
from llama_index.tuning.app import AppReport
from llama_index.tuning.artifacts import CONFIG, WEIGHTS, read_arrays
from llama_index.tuning.collect import Traffic
from llama_index.tuning.datasets import (
    ChatDataset,
    JudgmentDataset,
    RelevanceDataset,
    RetrievalDataset,
    RoutingDataset,
)
from llama_index.tuning.errors import ArtifactError, TuningError
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.rerankers import LightReranker

READERS = {
    "retrieval.json": RetrievalDataset.load,
    "table.json": RetrievalDataset.from_table,
    "table.csv": RetrievalDataset.from_table,
    "routing.json": RoutingDataset.load,
    "routing.jsonl": RoutingDataset.load,
    "chat.jsonl": ChatDataset.from_jsonl,
    "judgments.jsonl": JudgmentDataset.from_jsonl,
    "relevance.jsonl": RelevanceDataset.from_jsonl,
    "report.json": FinetuneReport.from_json,
    "app.json": AppReport.from_json,
    "traffic.jsonl": Traffic.load,
}
DAMAGE = {
    "deep": lambda file: file.write_text("[" * 100_000),
    "deep object": lambda file: file.write_text('{"a":' * 100_000),
    "a huge number": lambda file: file.write_text('{"a": ' + "9" * 9999 + "}"),
    "bytes": lambda file: file.write_bytes(b"\xff\xfe\x81"),
    "a list of numbers": lambda file: file.write_text("[1, 2]"),
    "a text": lambda file: file.write_text('"text"'),
    "a folder": lambda file: file.mkdir(),
    "a pipe": os.mkfifo,
    "a circle of links": lambda file: file.symlink_to(file.name),
}
READ_AS_ROWS = ("a list of numbers", "a text", "deep", "deep object", "a huge number")
"""A table of these has no column of that name; a report of these has no field."""


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_none_of_ours_is_refused_by_name(tmp_path, name, damage):
    file = tmp_path / name
    DAMAGE[damage](file)
    with pytest.raises(TuningError) as caught:
        READERS[name](file)
    if damage not in READ_AS_ROWS:
        assert name in str(caught.value)


@pytest.mark.parametrize("damage", [each for each in DAMAGE if each != "a folder"])
@pytest.mark.parametrize("load", [load_reranker, TunedJudge.load, TunedSelector.load])
def test_settings_of_a_component_that_are_none(tmp_path, load, damage):
    LightReranker().save(tmp_path / "saved")
    settings = tmp_path / "saved" / CONFIG
    settings.unlink()
    DAMAGE[damage](settings)
    with pytest.raises(ArtifactError, match="saved"):
        load(tmp_path / "saved")


@pytest.mark.parametrize("damage", [each for each in DAMAGE if each != "a folder"])
def test_weights_that_are_none(tmp_path, damage):
    DAMAGE[damage](tmp_path / WEIGHTS)
    with pytest.raises(ArtifactError, match=WEIGHTS):
        read_arrays(tmp_path)


@pytest.mark.parametrize("path", [5, b"saved", "", "a\0b"])
@pytest.mark.parametrize("load", [load_reranker, TunedJudge.load, TunedSelector.load, load_app])
def test_a_path_of_another_type_is_named(load, path):
    arguments = (path, None) if load is load_app else (path,)
    with pytest.raises(TypeError, match="path must be a path"):
        load(*arguments)


def test_a_report_without_numbers_is_none():
    gain = {"base": 0, "tuned": "0.5", "low": 0, "high": 0, "n": 1, "confidence": 0.9}
    report = {"title": "t", "method": "m", "primary": "x", "gains": {"x": gain}, "slices": {}}
    with pytest.raises(ArtifactError, match="tuned must be a number"):
        FinetuneReport.from_dict(report)
