"""`adapt_index` and `restore_index` on real stores, killed for real."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryResult

from llama_index.tuning.embeddings.adapter.maps import LinearMap
from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.embeddings.reindex.index import adapt_index, restore_index
from llama_index.tuning.errors import ArtifactError, StoreError, VectorError
from llama_index.tuning.vectors.stores import open_store
from tests.embeddings.real_stores import (
    KINDS,
    everything_but_vectors,
    new_store,
    node_id,
    nodes_of,
    unit,
)

# Qdrant's embedded mode says so where LlamaIndex asks for an index of document ids.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

ROWS, DIM = 30, 4
EXACT = {"simple", "chroma", "chroma-path"}  # the others scale whatever they are given


def an_adapter(seed=1, side="both"):
    weight = np.eye(DIM) + 0.3 * np.random.default_rng(seed).normal(size=(DIM, DIM))
    return Adapter(LinearMap(weight.astype(np.float32)), side=side)


class CountingAdapter:
    """An adapter that remembers how many vectors it was given."""

    side = "both"
    fingerprint = "counting"

    def __init__(self, change=lambda vectors: -vectors):
        self.change, self.seen = change, 0

    def map_documents(self, vectors):
        self.seen += len(vectors)
        return self.change(vectors)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def vectors():
    return unit(np.random.default_rng(0).normal(size=(ROWS, DIM)))


@pytest.fixture
def store(kind, vectors, tmp_path):
    store = new_store(kind, tmp_path)
    store.add(nodes_of(kind, vectors))
    yield store
    if kind.startswith("qdrant"):
        store.client.close()


@pytest.fixture
def simple(vectors):
    store = SimpleVectorStore()
    store.add(nodes_of("simple", vectors))
    return store


@pytest.fixture
def backup(tmp_path):
    return tmp_path / "backup"


def held(store, kind):
    """The store's vectors, in the order of the nodes' numbers."""
    found, matrix = open_store(store).get([node_id(kind, n) for n in range(ROWS)])
    assert len(found) == ROWS
    return matrix


def test_every_vector_is_mapped_once_and_nothing_else_changes(kind, store, vectors, backup):
    before, rest = held(store, kind), everything_but_vectors(store)

    first = adapt_index(store, an_adapter(), backup=backup, batch_size=7)
    wanted = an_adapter().map_documents(before)
    np.testing.assert_allclose(held(store, kind), wanted, atol=1e-6)
    second = adapt_index(store, an_adapter(), backup=backup)

    assert (first.mapped, first.skipped, first.already_done) == (ROWS, 0, False)
    assert (second.mapped, second.skipped, second.already_done) == (0, ROWS, True)
    assert "nothing to do" in str(second)
    np.testing.assert_allclose(held(store, kind), wanted, atol=1e-6)
    assert everything_but_vectors(store) == rest


def test_restoring_puts_the_originals_back(kind, store, backup):
    before, rest = held(store, kind), everything_but_vectors(store)
    adapt_index(store, an_adapter(), backup=backup, batch_size=16)

    result = restore_index(store, backup)

    after = held(store, kind)
    if kind in EXACT:
        assert after.tobytes() == before.tobytes()
        assert result.largest_difference == 0.0
    np.testing.assert_allclose(after, before, rtol=0, atol=3e-7)
    assert result.largest_difference <= 3e-7
    assert (result.restored, result.missing) == (ROWS, 0)
    assert everything_but_vectors(store) == rest
    if kind in EXACT:
        assert restore_index(store, backup).skipped == ROWS


class Words(MockEmbedding):
    """A base model that knows the vectors of its few texts."""

    def _get_query_embedding(self, query):
        return np.random.default_rng(len(query)).normal(size=DIM).tolist()


def test_a_retriever_finds_what_a_search_over_the_mapped_matrix_finds(kind, store, vectors, backup):
    model = AdapterEmbeddingModel(Words(embed_dim=DIM), an_adapter())
    if kind == "simple":
        index = VectorStoreIndex(nodes_of(kind, vectors), embed_model=model)
    else:
        index = VectorStoreIndex.from_vector_store(store, embed_model=model)
    adapt_index(index, model, backup=backup)

    query = np.array(model.get_query_embedding("which?"), dtype=np.float32)
    scores = an_adapter().map_documents(vectors) @ query
    nodes = index.as_retriever(similarity_top_k=5).retrieve(QueryBundle("which?"))
    wanted = [f"text {n} ü" for n in np.argsort(-scores)[:5]]
    assert [node.node.get_content() for node in nodes] == wanted


def test_an_empty_store_needs_no_backup(kind, tmp_path, backup):
    store = new_store(kind, tmp_path)
    result = adapt_index(store, an_adapter(), backup=backup)
    assert (result.mapped, result.skipped) == (0, 0)
    assert not backup.exists()
    with pytest.raises(StoreError, match="holds no backup"):
        restore_index(store, backup)
    assert not backup.exists()


def test_vectors_added_later_are_left_alone(kind, store, vectors, backup):
    adapt_index(store, an_adapter(), backup=backup)
    late = TextNode(id_=node_id(kind, 999), text="late", embedding=vectors[0].tolist())
    store.add([late])
    result = adapt_index(store, an_adapter(), backup=backup)
    assert (result.mapped, result.added) == (0, 1)
    restore_index(store, backup)
    np.testing.assert_allclose(open_store(store).get([late.node_id])[1], vectors[:1], atol=1e-6)


def test_vectors_deleted_since_the_backup_stay_deleted(kind, store, backup):
    adapt_index(store, an_adapter(), backup=backup)
    store.delete_nodes([node_id(kind, 3), node_id(kind, 4)])
    assert adapt_index(store, an_adapter(), backup=backup).missing == 2
    assert restore_index(store, backup).missing == 2
    assert len(open_store(store).ids()) == ROWS - 2


def test_vectors_rewritten_by_somebody_else_are_left_alone_and_told(simple, backup, caplog):
    adapt_index(simple, an_adapter(), backup=backup)
    simple.data.embedding_dict[node_id("simple", 5)] = [9.0, 9.0, 9.0, 9.0]
    result = adapt_index(simple, an_adapter(), backup=backup)
    assert (result.mapped, result.skipped, result.changed) == (0, ROWS - 1, 1)
    assert simple.get(node_id("simple", 5)) == [9.0] * 4
    assert "1 vectors are neither the originals nor mapped" in caplog.text


def test_a_simple_store_loaded_again_without_having_been_persisted_is_mapped_again(
    simple, backup, tmp_path
):
    simple.persist(str(tmp_path / "store" / "vectors.json"))
    adapt_index(simple, an_adapter(), backup=backup)
    loaded = SimpleVectorStore.from_persist_path(str(tmp_path / "store" / "vectors.json"))
    assert adapt_index(loaded, an_adapter(), backup=backup).mapped == ROWS
    assert held(loaded, "simple").tobytes() == held(simple, "simple").tobytes()


def test_a_memory_store_says_that_it_has_to_be_persisted(simple, backup, caplog):
    caplog.set_level(logging.INFO, logger="llama_index.tuning")
    adapt_index(simple, an_adapter(), backup=backup)
    assert "storage_context.persist()" in caplog.text


def test_an_adapter_that_changes_nothing_leaves_every_vector_as_it_is(kind, store, backup):
    before = held(store, kind)
    same = CountingAdapter(change=lambda vectors: vectors)
    assert adapt_index(store, same, backup=backup).skipped == ROWS
    assert held(store, kind).tobytes() == before.tobytes()


def test_an_adapter_that_writes_into_its_argument_does_no_harm(simple, vectors, backup):
    def negate_in_place(vectors):
        vectors *= -1
        return vectors

    adapt_index(simple, CountingAdapter(negate_in_place), backup=backup, batch_size=10)
    np.testing.assert_array_equal(held(simple, "simple"), -vectors)
    restore_index(simple, backup)
    np.testing.assert_array_equal(held(simple, "simple"), vectors)


def test_a_failure_half_way_is_finished_by_the_next_call(kind, store, backup):
    before = held(store, kind)

    class Failing(CountingAdapter):
        def map_documents(self, vectors):
            if self.seen > ROWS // 2:
                raise KeyboardInterrupt
            return super().map_documents(vectors)

    with pytest.raises(KeyboardInterrupt):
        adapt_index(store, Failing(), backup=backup, batch_size=10)
    done = int((np.abs(held(store, kind) - before).max(axis=1) > 1e-3).sum())
    assert 0 < done < ROWS
    result = adapt_index(store, CountingAdapter(), backup=backup)
    assert (result.mapped, result.skipped) == (ROWS - done, done)
    np.testing.assert_allclose(held(store, kind), -before, atol=1e-6)


def test_an_adapter_of_the_query_side_is_refused(simple, vectors, backup):
    for adapter in (
        an_adapter(side="query"),
        AdapterEmbeddingModel(MockEmbedding(DIM), an_adapter(side="query")),
    ):
        with pytest.raises(ValueError, match="stored vectors must stay as they are"):
            adapt_index(simple, adapter, backup=backup)
    assert not backup.exists()
    np.testing.assert_array_equal(held(simple, "simple"), vectors)


def nameless():
    adapter = CountingAdapter()
    adapter.fingerprint = ""
    return adapter


@pytest.mark.parametrize(
    ("adapter", "options", "error", "words"),
    [
        (MockEmbedding(3), {}, TypeError, "must have map_documents"),
        (np.eye(3), {}, TypeError, "must have map_documents"),
        (nameless(), {}, TypeError, "fingerprint must be a non-empty string"),
        (an_adapter(), {"batch_size": 0}, ValueError, "batch_size must be a whole number >= 1"),
        (CountingAdapter(lambda v: v[:, :2]), {}, VectorError, "cannot change their dimension"),
        (CountingAdapter(lambda v: v[:-1]), {}, VectorError, "cannot change their dimension"),
        (CountingAdapter(lambda v: v * np.nan), {}, VectorError, "mapped vector is not finite"),
        (Adapter(LinearMap(np.eye(9, dtype=np.float32)), side="both"), {}, VectorError, "9, got 4"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    simple, vectors, backup, adapter, options, error, words
):
    with pytest.raises(error, match=words):
        adapt_index(simple, adapter, backup=backup, **options)
    assert not backup.exists()
    np.testing.assert_array_equal(held(simple, "simple"), vectors)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([float("nan")] * DIM, "a vector of SimpleVectorStore is not finite.*Knoten 29"),
        ([float("inf")] * DIM, "a vector of SimpleVectorStore is not finite.*Knoten 29"),
        ([1.0] * (DIM + 1), "different dimensions"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_one_bad_stored_vector_stops_before_any_is_changed(
    simple, vectors, backup, bad, words, batch_size
):
    simple.data.embedding_dict[node_id("simple", 29)] = bad
    with pytest.raises(VectorError, match=words):
        adapt_index(simple, an_adapter(), backup=backup, batch_size=batch_size)
    assert not backup.exists()
    np.testing.assert_array_equal(simple.get(node_id("simple", 0)), vectors[0])


def test_the_backup_of_another_adapter_is_refused(simple, backup):
    adapt_index(simple, an_adapter(1), backup=backup)
    mapped = held(simple, "simple")
    with pytest.raises(StoreError, match=f"not for {an_adapter(2).fingerprint}"):
        adapt_index(simple, an_adapter(2), backup=backup)
    np.testing.assert_array_equal(held(simple, "simple"), mapped)


def test_the_backup_of_another_kind_of_store_is_refused(kind, store, backup, tmp_path):
    adapt_index(store, an_adapter(), backup=backup)
    other = new_store("chroma" if kind == "simple" else "simple", tmp_path)
    other.add(nodes_of(kind, np.ones((ROWS, DIM))))
    with pytest.raises(StoreError, match="is the backup of another store"):
        adapt_index(other, an_adapter(), backup=backup)
    with pytest.raises(StoreError, match="is the backup of another store"):
        restore_index(other, backup)


def test_the_backup_of_another_store_of_that_kind_is_refused(simple, vectors, backup):
    adapt_index(simple, an_adapter(), backup=backup)
    same_ids = SimpleVectorStore()
    same_ids.add(nodes_of("simple", vectors[::-1] + 1))
    with pytest.raises(StoreError, match="neither as they were nor mapped"):
        adapt_index(same_ids, an_adapter(), backup=backup)
    other_ids = SimpleVectorStore()
    other_ids.add(nodes_of("qdrant", vectors))
    for call in (
        lambda: adapt_index(other_ids, an_adapter(), backup=backup),
        lambda: restore_index(other_ids, backup),
    ):
        with pytest.raises(StoreError, match="is the backup of another store"):
            call()


def test_a_store_built_anew_with_another_dimension_is_refused(simple, backup):
    adapt_index(simple, an_adapter(), backup=backup)
    anew = SimpleVectorStore()
    anew.add(nodes_of("simple", np.ones((ROWS, DIM + 2))))
    for call in (
        lambda: adapt_index(anew, an_adapter(), backup=backup),
        lambda: restore_index(anew, backup),
    ):
        with pytest.raises(VectorError, match="now holds vectors of 6 numbers, the backup of 4"):
            call()


def test_a_restored_backup_is_not_used_to_map_again(simple, backup):
    adapt_index(simple, an_adapter(), backup=backup)
    restore_index(simple, backup)
    with pytest.raises(StoreError, match="new backup folder"):
        adapt_index(simple, an_adapter(), backup=backup)
    assert adapt_index(simple, an_adapter(), backup=backup.with_name("two")).mapped == ROWS


def test_a_folder_of_other_files_and_a_file_are_refused(simple, backup):
    backup.mkdir()
    (backup / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds other files \(notes.txt"):
        adapt_index(simple, an_adapter(), backup=backup)
    with pytest.raises(StoreError, match="must be a folder"):
        adapt_index(simple, an_adapter(), backup=backup / "notes.txt")
    assert [file.name for file in backup.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("journal.json", lambda data: data[:40]),
        ("journal.json", lambda data: b"[]"),
        ("journal.json", lambda data: data.replace(b'"format": 1', b'"format": 2')),
        ("part-000001.safetensors", lambda data: data[:-1]),
        ("part-000001.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("part-000001.safetensors", None),
    ],
)
def test_a_damaged_backup_is_told_and_never_written_to_the_store(simple, backup, file, damage):
    adapt_index(simple, an_adapter(), backup=backup, batch_size=20)
    path = backup / "originals" / file
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    mapped = held(simple, "simple")
    with pytest.raises(ArtifactError, match=path.stem):
        adapt_index(simple, an_adapter(), backup=backup)
    with pytest.raises(ArtifactError, match=path.stem):
        restore_index(simple, backup)
    np.testing.assert_array_equal(held(simple, "simple")[20:], mapped[20:])


def test_a_store_that_cannot_be_rewritten_is_named_before_anything_happens(backup):
    class OtherStore(BasePydanticVectorStore):
        stores_text: bool = True

        @property
        def client(self):
            return None

        def add(self, nodes, **kwargs):
            return []

        def delete(self, ref_doc_id, **kwargs):
            return None

        def query(self, query, **kwargs):
            return VectorStoreQueryResult()

    with pytest.raises(StoreError, match="OtherStore has no way to replace"):
        adapt_index(OtherStore(), an_adapter(), backup=backup)
    assert not backup.exists()


HOLD_THE_LOCK = """
import sys, pathlib
from llama_index.tuning.embeddings.reindex.backup import locked_backup
with locked_backup(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_use_one_backup_and_a_dead_one_does_not_block(simple, backup):
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(backup)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match="is in use by another"):
            adapt_index(simple, an_adapter(), backup=backup)
        other.send_signal(signal.SIGKILL)
    assert adapt_index(simple, an_adapter(), backup=backup).mapped == ROWS


def test_a_call_from_within_a_call_is_refused_too(simple, backup):
    def again(vectors):
        adapt_index(simple, an_adapter(), backup=backup)

    with pytest.raises(StoreError, match="is in use by another"):
        adapt_index(simple, CountingAdapter(again), backup=backup)


def test_show_progress_draws_bars_and_silence_is_the_default(simple, backup, capsys):
    adapt_index(simple, an_adapter(), backup=backup)
    assert capsys.readouterr().err == ""
    restore_index(simple, backup, show_progress=True)
    assert "restore vectors" in capsys.readouterr().err


# A process that forks: one child is killed with SIGKILL at a given point, the next finishes.
KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
import numpy as np
from llama_index.tuning.embeddings.reindex import backup, index
from llama_index.tuning.vectors import stores
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.embeddings.adapter.maps import LinearMap

kind, root, points = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
if kind == "chroma":
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore
elif kind == "qdrant":
    from qdrant_client import QdrantClient
    from llama_index.vector_stores.qdrant import QdrantVectorStore
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

ROWS, DIM = 24, 4
rng = np.random.default_rng(3)
vectors = rng.normal(size=(ROWS, DIM)).astype(np.float32)
adapter = Adapter(LinearMap(rng.normal(size=(DIM, DIM)).astype(np.float32)), side="both")
ids = ["%08x-0000-0000-0000-000000000000" % n for n in range(ROWS)]
nodes = [TextNode(id_=i, text=i, embedding=v.tolist()) for i, v in zip(ids, vectors)]


def opened(folder):
    if kind == "simple":
        path = folder / "simple.json"
        if not path.exists():
            return SimpleVectorStore()
        return SimpleVectorStore.from_persist_path(str(path))
    if kind == "chroma":
        client = chromadb.PersistentClient(str(folder / "chroma"))
        return ChromaVectorStore(client.get_or_create_collection("docs"))
    client = QdrantClient(path=str(folder / "qdrant"))
    return QdrantVectorStore("docs", client, index_doc_id=False)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point):
    what, nth = point
    home, name = {
        "backing up": (backup, "_write_durably"),
        "before the backup counts": (os, "rename"),
        "after the backup counts": (os, "rename"),
        "before a batch": (type(stores.open_store(opened_store)), "_write"),
        "within a batch": (type(stores.open_store(opened_store)), "_write"),
        "after a batch": (type(stores.open_store(opened_store)), "_write"),
        "before the end is noted": (os, "replace"),
        "after the end is noted": (os, "replace"),
        "within a batch of the restore": (type(stores.open_store(opened_store)), "_write"),
    }[what]
    real, calls = getattr(home, name), []

    def wrapped(*args):
        calls.append(args)
        if len(calls) == nth:
            if what.startswith("within"):
                store, names, matrix = args
                real(store, names[: len(names) // 2], matrix[: len(names) // 2])
            if what.startswith("after"):
                real(*args)
            die()
        return real(*args)

    setattr(home, name, wrapped)


def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fill():
    store = opened(root / "filled")
    store.add(nodes)
    if kind == "simple":
        store.persist(str(root / "filled" / "simple.json"))


def vectors_of(store):
    return stores.open_store(store).get(ids)[1].tobytes().hex()


def scenario(folder, point):
    shutil.copytree(root / "filled", folder)
    backup, told = folder / "backup", {"point": point}
    restoring = point is not None and point[0].endswith("restore")
    # Until the backup counts nothing has begun; from then on its own batches are kept.
    size = 6 if point is None or "backing" in point[0] or "before the backup" in point[0] else 5

    def first():
        global opened_store
        opened_store = opened(folder)
        if restoring:
            index.adapt_index(opened_store, adapter, backup=backup, batch_size=6)
        if point:
            arm(point)
        if restoring:
            index.restore_index(opened_store, backup)
        index.adapt_index(opened_store, adapter, backup=backup, batch_size=6)

    def second():
        store = opened(folder)
        told["before"] = vectors_of(store)
        if not restoring:
            result = index.adapt_index(store, adapter, backup=backup, batch_size=size)
            told["finished"] = [result.mapped, result.skipped, result.changed, result.missing]
            told["mapped"] = vectors_of(store)
            told["third"] = index.adapt_index(store, adapter, backup=backup).already_done
            told["third"] = told["third"] and vectors_of(store) == told["mapped"]
        told["difference"] = index.restore_index(store, backup).largest_difference
        told["restored"] = vectors_of(store)
        (folder / "told.json").write_text(json.dumps(told))

    codes = [child(first), child(second)]
    if codes[1] == 0:
        told = json.loads((folder / "told.json").read_text())
    return {"codes": codes, **told}


(root / "filled").mkdir()
assert child(fill) == 0
runs = [None, *points]
print(json.dumps([scenario(root / str(n), point) for n, point in enumerate(runs)]))
"""

POINTS = [
    ("backing up", 1),
    ("backing up", 3),
    ("backing up", 5),
    ("before the backup counts", 1),
    ("after the backup counts", 1),
    ("before a batch", 1),
    ("within a batch", 1),
    ("after a batch", 1),
    ("within a batch", 3),
    ("after a batch", 4),
    ("before the end is noted", 1),
    ("after the end is noted", 1),
    ("within a batch of the restore", 1),
    ("within a batch of the restore", 3),
]
FEW = [POINTS[1], POINTS[4], POINTS[8], POINTS[10], POINTS[13]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes that it kills")
@pytest.mark.parametrize(
    ("killed", "points"), [("simple", POINTS), ("chroma", FEW), ("qdrant", FEW)]
)
def test_kill_9_at_any_moment_and_a_second_call_end_as_if_uninterrupted(killed, points, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), killed, str(tmp_path), json.dumps(points)],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    undisturbed, *runs = json.loads(done.stdout)
    assert undisturbed["codes"] == [0, 0], done.stderr
    assert len(runs) == len(points)
    for run in runs:
        point, told = run["point"], done.stderr
        assert run["codes"] == [-signal.SIGKILL, 0], (point, told)
        if "mapped" in run:
            mapped, skipped, changed, missing = run["finished"]
            assert (mapped + skipped, changed, missing) == (24, 0, 0), point
            assert run["third"], point
            assert run["mapped"] == undisturbed["mapped"], point
        if "within" in point[0] and killed != "simple":  # it did die half way
            assert run["before"] not in (undisturbed["mapped"], undisturbed["restored"]), point
        if killed == "qdrant":  # scales unit vectors again, see QdrantVectors
            assert run["difference"] <= 3e-7, point
        else:
            assert run["restored"] == undisturbed["restored"], point
            assert run["difference"] == 0.0, point


def test_another_indexs_vectors_in_a_shared_store_stay(tmp_path):
    store = new_store("simple", tmp_path)
    context = StorageContext.from_defaults(vector_store=store)
    model = MockEmbedding(embed_dim=DIM)
    mine, theirs = (
        VectorStoreIndex(
            [TextNode(id_=f"{name}{i}", text=f"text {i}") for i in range(3)],
            storage_context=context,
            embed_model=model,
        )
        for name in ("mine", "theirs")
    )
    before = dict(store.data.embedding_dict)
    result = adapt_index(mine, an_adapter(), backup=tmp_path / "backup")
    assert (result.mapped, result.added) == (3, 0)
    changed = {id_ for id_, vector in store.data.embedding_dict.items() if vector != before[id_]}
    assert changed == {"mine0", "mine1", "mine2"}
    assert open_store(theirs).get(["mine0", "theirs0"])[0] == ["theirs0"]
    assert restore_index(mine, tmp_path / "backup").restored == 3
