"""A folder embedded in shards: every text once, whatever happens in between."""

import json
import sys
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from llama_index.core.bridge.pydantic import Field

from llama_index.tuning import EmbeddingAdapterFinetuneEngine, RetrievalDataset
from llama_index.tuning.errors import (
    DatasetError,
    GenerationError,
    MissingExtraError,
    RunFileError,
    VectorError,
)
from llama_index.tuning.scale import ScaleOptions, embed_corpus, vectors_to_array
from tests.conftest import TableEmbedding, rotated_problem

TEN = ScaleOptions(rows_per_shard=10)


class Picky(TableEmbedding):
    """Fails on texts with `poison` in them, if it is picky; goes down after `lives` calls."""

    lives: int = Field(default=1000, exclude=True)
    picky: bool = Field(default=True, exclude=True)

    def _get_text_embeddings(self, texts):
        if self.picky and any("poison" in text for text in texts):
            raise ValueError("this text is refused")
        if len(self.calls) >= self.lives:
            raise KeyboardInterrupt
        return super()._get_text_embeddings(texts)


@pytest.fixture
def folder(tmp_path):
    """35 documents: 25 in a Parquet file of three row groups, 10 in a file of JSON Lines."""
    source = tmp_path / "docs"
    source.mkdir()
    ids = [f"d{i}" for i in range(25)]
    table = pa.table({"id": ids, "text": [f"text {i}" for i in range(25)], "more": ids})
    pq.write_table(table, source / "a.parquet", row_group_size=9)
    lines = [json.dumps({"id": i, "text": f"text {i}"}) for i in range(25, 35)]
    (source / "b.jsonl").write_text("\n".join(lines))
    (source / "_notes.jsonl").write_text("not ours")
    return source


def vectors_in(output):
    rows = pq.read_table(output).to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["vector"] for row in rows}


def failures_in(output):
    files = sorted((output / "_failures").iterdir())
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_every_text_of_both_formats_has_its_vector(folder, tmp_path):
    model = TableEmbedding(dim=3)
    report = embed_corpus(folder, tmp_path / "out", model, options=TEN)
    found = vectors_in(tmp_path / "out")
    names = [*(f"d{i}" for i in range(25)), *map(str, range(25, 35))]
    assert (report.read, report.written, report.failed) == (35, 35, 0)
    assert list(found) == names
    for number, name in enumerate(names):
        np.testing.assert_allclose(found[name], model.vector(f"text {number}"), rtol=1e-6)


def test_a_finished_shard_is_never_done_again(folder, tmp_path):
    dying = Picky(lives=2, embed_batch_size=10)
    with pytest.raises(KeyboardInterrupt):
        embed_corpus(folder, tmp_path / "out", dying, options=TEN)
    assert len(list((tmp_path / "out").glob("part-*"))) == 2
    rested = Picky(embed_batch_size=10)
    report = embed_corpus(folder, tmp_path / "out", rested, options=TEN)
    again = {text for call in rested.calls for text in call}
    assert again == {f"text {i}" for i in range(20, 35)}
    assert (report.resumed, report.read, report.written) == (2, 35, 35)
    assert len(vectors_in(tmp_path / "out")) == 35
    assert embed_corpus(folder, tmp_path / "out", Picky(lives=0), options=TEN).written == 35


def test_failed_items_lie_beside_the_results_and_can_be_tried_again(folder, tmp_path):
    rows = [{"id": "p", "text": "poison"}, {"id": "e", "text": " "}, {"id": ["?"], "text": "a"}]
    lines = [*map(json.dumps, rows), '{"id": "torn', json.dumps({"id": "fine", "text": "fine"})]
    (folder / "c.jsonl").write_text("\n".join(lines))
    model = Picky(embed_batch_size=4)
    report = embed_corpus(folder, tmp_path / "out", model, options=TEN)
    failed = {row["id"]: row["message"] for row in failures_in(tmp_path / "out")}
    assert (report.read, report.written, report.failed) == (40, 36, 4)
    assert failed["p"] == "this text is refused"
    assert failed["e"] == "the text is empty"
    assert "fine" in vectors_in(tmp_path / "out")
    once_more = ScaleOptions(rows_per_shard=10, retry_failed=True)
    patient = Picky(picky=False, embed_batch_size=4)
    report = embed_corpus(folder, tmp_path / "out", patient, options=once_more)
    assert (report.written, report.failed) == (37, 3)
    assert {row["id"] for row in failures_in(tmp_path / "out")} & {"p"} == set()


def test_an_outage_ends_the_job_and_marks_nothing_as_failed(folder, tmp_path):
    (folder / "a.parquet").unlink()
    lines = [json.dumps({"id": str(i), "text": f"poison {i}"}) for i in range(10)]
    (folder / "b.jsonl").write_text("\n".join(lines))
    with pytest.raises(GenerationError, match="this text is refused"):
        embed_corpus(folder, tmp_path / "out", Picky())
    assert not list((tmp_path / "out").glob("part-*"))


def test_rows_without_text_are_no_outage(tmp_path):
    lines = [json.dumps({"id": str(i), "text": ""}) for i in range(20)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    report = embed_corpus(tmp_path / "x.jsonl", tmp_path / "out", TableEmbedding())
    assert (report.written, report.failed) == (0, 20)


def test_a_row_group_larger_than_a_shard_and_shards_across_row_groups(tmp_path):
    table = pa.table({"n": list(range(1000)), "words": [f"text {i}" for i in range(1000)]})
    for name, size in [("one", 1000), ("many", 7)]:
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=size)
        embed_corpus(
            tmp_path / f"{name}.parquet",
            tmp_path / name,
            TableEmbedding(dim=2, embed_batch_size=100),
            columns={"id": "n", "text": "words"},
            options=ScaleOptions(rows_per_shard=64),
        )
    one, many = (vectors_in(tmp_path / name) for name in ("one", "many"))
    assert list(one) == [str(i) for i in range(1000)]
    assert one == many


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_lines_of_any_length_belong_to_one_shard_each(tmp_path, rows):
    lengths = [1, 500, 2, 30, 30, 4000, 1, 1, 80, 7]
    lines = [json.dumps({"id": str(i), "text": "é" * n}) for i, n in enumerate(lengths)]
    (tmp_path / "x.jsonl").write_text("\n\n".join(lines) + "\n")
    report = embed_corpus(
        tmp_path / "x.jsonl",
        tmp_path / "out",
        TableEmbedding(),
        options=ScaleOptions(rows_per_shard=rows),
    )
    assert (report.read, report.written) == (10, 10)
    assert sorted(vectors_in(tmp_path / "out")) == [str(i) for i in range(10)]


def test_another_jobs_folder_and_a_strangers_are_refused(folder, tmp_path):
    embed_corpus(folder, tmp_path / "out", TableEmbedding(), options=TEN)
    with pytest.raises(RunFileError, match="its model is 'table'"):
        embed_corpus(folder, tmp_path / "out", TableEmbedding(model_name="other"), options=TEN)
    with pytest.raises(RunFileError, match="embedded_as"):
        embed_corpus(folder, tmp_path / "out", TableEmbedding(), kind="query", options=TEN)
    (folder / "new.jsonl").write_text(json.dumps({"id": "n", "text": "new"}))
    with pytest.raises(RunFileError, match="source"):
        embed_corpus(folder, tmp_path / "out", TableEmbedding(), options=TEN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFileError, match="no job of ours"):
        embed_corpus(folder, tmp_path / "mine", TableEmbedding())
    with pytest.raises(RunFileError, match=r"thesis\.txt is a file"):
        embed_corpus(folder, tmp_path / "mine" / "thesis.txt", TableEmbedding())


def test_a_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{\n")
    with pytest.raises(DatasetError, match=r"bad\.jsonl, line 1: not valid JSON"):
        embed_corpus(tmp_path / "bad.jsonl", tmp_path / "out", TableEmbedding())


def test_wrong_input_is_refused_before_any_call(folder, tmp_path):
    model = TableEmbedding()
    out = tmp_path / "out"
    with pytest.raises(DatasetError, match=r"no column words; it has id, text, more"):
        embed_corpus(folder, out, model, columns={"text": "words"})
    with pytest.raises(ValueError, match="unknown column 'body'"):
        embed_corpus(folder, out, model, columns={"body": "words"})
    with pytest.raises(ValueError, match="choose one of: local, ray"):
        embed_corpus(folder, out, model, backend="spark")
    with pytest.raises(TypeError, match=r"BaseEmbedding, or functools\.partial"):
        embed_corpus(folder, out, "minilm")
    with pytest.raises(TypeError, match="options must be ScaleOptions"):
        embed_corpus(folder, out, model, options=8)
    with pytest.raises(DatasetError, match="does not exist"):
        embed_corpus(tmp_path / "nowhere", out, model)
    with pytest.raises(ValueError, match="rows_per_shard"):
        ScaleOptions(rows_per_shard=0)
    assert model.calls == []
    assert not out.exists()


def test_a_model_is_built_where_it_works(folder, tmp_path):
    made = partial(TableEmbedding, dim=5)
    embed_corpus(folder, tmp_path / "out", made)
    assert {len(vector) for vector in vectors_in(tmp_path / "out").values()} == {5}


def test_any_file_system_of_fsspec_will_do(folder):
    memory = MemoryFileSystem()
    for file in folder.iterdir():
        memory.pipe_file(f"/corpus/{file.name}", file.read_bytes())
    report = embed_corpus("memory://corpus", "memory://vectors", TableEmbedding(), options=TEN)
    assert report.written == 35
    report = embed_corpus("memory://corpus", "memory://vectors", TableEmbedding(), options=TEN)
    assert report.resumed == report.shards
    assert len(memory.glob("/vectors/part-*.parquet")) == report.shards


def test_the_array_of_a_folder_is_its_vectors_in_order_and_trains_an_adapter_alike(tmp_path):
    dataset, model = rotated_problem()
    table = pa.table({"id": list(dataset.corpus), "text": list(dataset.corpus.values())})
    pq.write_table(table, tmp_path / "docs.parquet")
    embed_corpus(tmp_path / "docs.parquet", tmp_path / "out", model, options=TEN)
    assert vectors_to_array(tmp_path / "out", tmp_path / "v.npy") == 60
    ids = pq.read_table(tmp_path / "v.npy.ids.parquet").column("id").to_pylist()
    assert ids == list(dataset.corpus)
    whole = np.array([model.vector(text) for text in dataset.corpus.values()], np.float32)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy", mmap_mode="r"), whole)
    reports = [
        EmbeddingAdapterFinetuneEngine(
            dataset, model, vectors=given, model_output_path=None
        ).finetune()
        for given in (whole, tmp_path / "v.npy")
    ]
    assert reports[0].gains == reports[1].gains
    turned = RetrievalDataset(
        dataset.queries, dict(reversed(dataset.corpus.items())), dataset.relevant_docs
    )
    with pytest.raises(VectorError, match=f"row 0 is the vector of '{ids[0]}'.* is '{ids[-1]}'"):
        EmbeddingAdapterFinetuneEngine(turned, model, vectors=tmp_path / "v.npy").finetune()


def test_an_array_needs_vectors_of_one_size(tmp_path):
    table = pa.table({"id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]})
    (tmp_path / "v").mkdir()
    pq.write_table(table, tmp_path / "v" / "part-0.parquet")
    with pytest.raises(VectorError, match="of one size"):
        vectors_to_array(tmp_path / "v", tmp_path / "v.npy")
    assert not (tmp_path / "v.npy").exists()
    with pytest.raises(ValueError, match=r"end in \.npy"):
        vectors_to_array(tmp_path / "v", tmp_path / "v.bin")


def test_requests_wait_for_the_rate_limit(folder, tmp_path):
    class Noted(TableEmbedding):
        pass

    waited = []

    class Limiter:
        def acquire(self, num_tokens=0):
            waited.append(num_tokens)

    from llama_index.tuning.scale.components import built

    model = Noted(embed_batch_size=1)
    limited = built(model, Limiter())
    limited.get_text_embedding_batch(["a", "b", "c"])
    assert len(waited) == 3
    assert model.rate_limiter is None


def test_without_ray_there_is_one_clear_error(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"llama-index-tuning\[ray\]"):
        embed_corpus(folder, tmp_path / "out", TableEmbedding(), backend="ray")


def test_without_pyarrow_there_is_one_clear_error(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"llama-index-tuning\[tables\]"):
        embed_corpus(folder, tmp_path / "out", TableEmbedding())
