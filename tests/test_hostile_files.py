"""What is no file of ours ends in an error that names it: every reader, every kind of damage."""

import os
import sqlite3
from contextlib import closing

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode

from llama_index.tuning import (
    TunedJudge,
    TunedSelector,
    generate_qa_embedding_pairs,
    load_app,
    load_reranker,
    tune_app,
)
from llama_index.tuning.app import AppReport
from llama_index.tuning.artifacts import CONFIG, WEIGHTS, read_arrays
from llama_index.tuning.collect import FinetuningRecorder, Traffic
from llama_index.tuning.datasets import (
    ChatDataset,
    JudgmentDataset,
    RelevanceDataset,
    RetrievalDataset,
    RoutingDataset,
)
from llama_index.tuning.errors import ArtifactError, DatasetError, TuningError, VectorError
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.rerankers import LightReranker
from llama_index.tuning.vectors.embedder import Embedder

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


NODES = [TextNode(id_=id_, text=f"The fee of {id_} is 5 euros.") for id_ in "ab"]
DATA = RetrievalDataset(
    {f"q{i}": f"Fee {i}?" for i in range(10)},
    {node.node_id: node.text for node in NODES},
    {f"q{i}": ["ab"[i % 2]] for i in range(10)},
)
ROUTES = RoutingDataset.from_pairs([("Fee?", "a"), ("Loan?", "b")], choices={"a": "x", "b": "y"})
MODEL = MockEmbedding(embed_dim=2)
WRITERS = {
    "dataset": DATA.save_json,
    "routes": lambda place: ROUTES.save_jsonl(place, place.with_name("labels.json")),
    "labels": lambda place: ROUTES.save_jsonl(place.with_name("routes.jsonl"), place),
    "questions": lambda place: generate_qa_embedding_pairs(
        NODES, MockLLM(max_tokens=8), output_path=place
    ),
    "re-ranker": LightReranker().save,
    "vectors": lambda place: Embedder(MODEL, cache=place).queries(["Fee?"]),
    "traffic": FinetuningRecorder,
    "app": lambda place: tune_app(index(), DATA, run_folder=place),
}
OTHERS = {
    "a pipe": os.mkfifo,
    "a circle of links": lambda place: place.symlink_to(place.name),
    "a folder of files": lambda place: (place.mkdir(), (place / "diary.txt").write_text("mine")),
}


def index():
    return VectorStoreIndex(NODES, embed_model=MODEL)


def contents(folder):
    return {file: (file.lstat().st_mode, file.lstat().st_mtime_ns) for file in folder.rglob("*")}


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", WRITERS)
def test_nothing_of_others_is_written_over(tmp_path, name, other):
    OTHERS[other](tmp_path / "place")
    before = contents(tmp_path)
    with pytest.raises((TuningError, OSError, ValueError), match="place"):
        WRITERS[name](tmp_path / "place")
    assert contents(tmp_path) == before


@pytest.mark.skipif(os.name != "posix", reason="links")
@pytest.mark.parametrize("there", [True, False])
def test_a_file_is_written_where_its_link_points(tmp_path, there):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    if there:
        real.write_text("{}")
    link.symlink_to(real)
    DATA.save_json(link)
    assert link.is_symlink()
    assert RetrievalDataset.load(real).queries == DATA.queries


def test_a_log_and_a_cache_are_not_added_to_what_others_wrote(tmp_path):
    diary, accounts = tmp_path / "diary", tmp_path / "accounts"
    diary.write_text("mine\n")
    with closing(sqlite3.connect(accounts)) as database:
        database.execute("CREATE TABLE account (id)")
    before = diary.read_bytes(), accounts.read_bytes()
    with pytest.raises(DatasetError, match="diary holds something else than recorded traffic"):
        FinetuningRecorder(diary)
    with pytest.raises(VectorError, match="accounts is a database of something else"):
        Embedder(MODEL, cache=accounts).queries(["Fee?"])
    assert (diary.read_bytes(), accounts.read_bytes()) == before
