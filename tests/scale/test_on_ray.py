"""The same jobs on a cluster of two raylets on this machine."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import TextNode

from llama_index.tuning import LightReranker
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.cli.models import language_model
from llama_index.tuning.embeddings.adapter.maps import LinearMap
from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.errors import GenerationError
from llama_index.tuning.scale import ScaleOptions, embed_corpus, generate_questions, rerank
from tests.conftest import TableEmbedding
from tests.scale.test_embed import vectors_in
from tests.servers import ChatServer, Faults

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

TWO = ScaleOptions(workers=2, cpus_per_worker=1, rows_per_shard=10)


class Mortal(TableEmbedding):
    """Takes its process with it as long as there are lives, each a file, in the folder."""

    lives: str = Field(default="", exclude=True)

    def _get_text_embeddings(self, texts):
        for life in Path(self.lives).iterdir() if self.lives else ():
            try:
                life.unlink()
            except FileNotFoundError:  # the other worker was faster
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._get_text_embeddings(texts)


class Down(TableEmbedding):
    def _get_text_embeddings(self, texts):
        raise ValueError("no answer from the server")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.add_node(num_cpus=1)
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()
    patch.undo()


@pytest.fixture
def folder(tmp_path):
    table = pa.table({"id": range(200), "text": [f"text {i}" for i in range(200)]})
    pq.write_table(table, tmp_path / "docs.parquet", row_group_size=33)
    return tmp_path / "docs.parquet"


def test_a_worker_that_is_killed_five_times_leaves_each_item_once(cluster, folder, tmp_path):
    lives = tmp_path / "lives"
    lives.mkdir()
    for number in range(5):
        (lives / str(number)).touch()
    model = Mortal(lives=str(lives), embed_batch_size=10)
    report = embed_corpus(folder, tmp_path / "ray", model, backend="ray", options=TWO)
    assert not list(lives.iterdir())
    assert (report.read, report.written, report.failed) == (200, 200, 0)
    embed_corpus(folder, tmp_path / "local", Mortal(), options=TWO)
    assert vectors_in(tmp_path / "ray") == vectors_in(tmp_path / "local")
    # What was begun on Ray is the same job here.
    again = embed_corpus(folder, tmp_path / "ray", Mortal(), options=TWO)
    assert again.resumed == again.shards == 20


def test_candidates_come_in_the_same_order_as_here(cluster, tmp_path):
    texts = [f"The price of subject-{i} is {i} euros." for i in range(5)]
    rows = [
        {"id": f"q{i}", "query": f"What is subject-{i % 5}?", "candidates": [*"abcde"]}
        for i in range(40)
    ]
    found = pa.Table.from_pylist([{**row, "texts": texts} for row in rows])
    pq.write_table(found, tmp_path / "found.parquet")
    for backend in ("local", "ray"):
        out, how = tmp_path / backend, {"backend": backend, "options": TWO}
        report = rerank(tmp_path / "found.parquet", out, LightReranker(top_n=3), **how)
        assert (report.shards, report.written, report.failed) == (4, 40, 0)
    here, there = (pq.read_table(tmp_path / name).to_pylist() for name in ("local", "ray"))
    assert here == there


def test_an_error_of_a_worker_is_the_callers(cluster, folder, tmp_path):
    with pytest.raises(GenerationError, match="no answer from the server"):
        embed_corpus(folder, tmp_path / "out", Down(), backend="ray", options=TWO)


def passages(tmp_path, count):
    texts = [f"The price of subject-{i} is {i} euros." for i in range(count)]
    pq.write_table(pa.table({"id": range(count), "text": texts}), tmp_path / "passages.parquet")
    return tmp_path / "passages.parquet"


def test_questions_from_a_faulty_server_are_each_asked_until_answered_once(cluster, tmp_path):
    faults = Faults(rate_limit=0.1, error=0.1, garbage=0.1, hang=0.02, hang_seconds=60.0)
    run = RunOptions(retry_limit=20, retry_wait=0.05, timeout=3.0, verbose=False)
    with ChatServer(faults=faults) as server:
        report = generate_questions(
            passages(tmp_path, 60),
            tmp_path / "out",
            partial(language_model, "any", server.base_url),
            run=run,
            backend="ray",
            options=TWO,
        )
    assert (report.read, report.written, report.failed) == (60, 120, 0)
    assert set(server.good.values()) == {1}
    assert len(server.good) == 60
    found = pq.read_table(tmp_path / "out").to_pylist()
    assert sorted(int(row["relevant"][0]) for row in found) == sorted([*range(60)] * 2)


def test_two_workers_share_one_rate_limit(cluster, tmp_path):
    times = []

    def answer(prompt):
        times.append(time.monotonic())
        return "What is it?"

    with ChatServer(answer=answer) as server:
        generate_questions(
            passages(tmp_path, 8),
            tmp_path / "out",
            partial(language_model, "any", server.base_url),
            run=RunOptions(verbose=False),
            backend="ray",
            options=ScaleOptions(workers=2, rows_per_shard=1, requests_per_minute=6),
        )
    assert len(times) == 8
    # 6 may go at once, and then one in ten seconds; with a limit each, none would have waited.
    # The first may be slow to arrive: 20 seconds less ten.
    assert max(times) - min(times) >= 10


def test_llama_index_s_own_ingestion_on_ray_takes_our_embedding_model(cluster, tmp_path):
    component = pytest.importorskip("llama_index.ingestion.ray").RayTransformComponent
    utils = pytest.importorskip("llama_index.ingestion.ray.utils")
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0].astype(np.float32)
    Adapter(LinearMap(turn), side="both").save(tmp_path / "adapter")
    how = {"base_embed_model": TableEmbedding(), "adapter_path": str(tmp_path / "adapter")}
    nodes = [TextNode(text=f"text {i}", id_=str(i)) for i in range(20)]
    asked = ray.data.from_arrow(utils.ray_serialize_node_batch(nodes))
    found = component(AdapterEmbeddingModel, transform_kwargs=how)(asked)
    batch = found.take_batch(20, batch_format="pyarrow")
    back = {node.node_id: node.embedding for node in utils.ray_deserialize_node_batch(batch)}
    here = AdapterEmbeddingModel(**how)
    assert back == {
        n.node_id: pytest.approx(here.get_text_embedding(n.text), abs=1e-5) for n in nodes
    }
