import numpy as np
import pytest

from llama_index.tuning.vectors import search as module, top_k


def brute_force(queries, documents, k):
    scores = module.unit_rows(queries) @ module.unit_rows(documents).T
    order = np.lexsort((np.broadcast_to(np.arange(len(documents)), scores.shape), -scores))
    return order[:, :k], np.take_along_axis(scores, order, 1)[:, :k]


@pytest.mark.parametrize("seed", range(4))
def test_blocks_give_the_same_as_brute_force(monkeypatch, seed):
    monkeypatch.setattr(module, "QUERY_BLOCK", 7)
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((23, 6)).astype(np.float32)
    documents = rng.standard_normal((5000, 6)).astype(np.float32)
    indices, scores = top_k(queries, documents, 12)
    expected, values = brute_force(queries, documents, 12)
    np.testing.assert_allclose(scores, values, atol=1e-6)
    assert (indices == expected).mean() > 0.999  # rounding may swap near-equal neighbours


def test_ties_go_to_the_document_that_comes_first():
    documents = np.tile(np.eye(4, dtype=np.float32), (700, 1))  # 2,800 rows, ties everywhere
    indices, scores = top_k(np.eye(4, dtype=np.float32)[:2], documents, 5)
    assert indices.tolist() == [[0, 4, 8, 12, 16], [1, 5, 9, 13, 17]]
    assert scores.tolist() == [[1.0] * 5] * 2


def test_fewer_documents_than_k_and_a_zero_vector():
    documents = np.array([[1, 0], [0, 0]], dtype=np.float32)
    indices, scores = top_k(np.array([[2, 0]], dtype=np.float32), documents, 10)
    assert indices.tolist() == [[0, 1]]
    assert scores.tolist() == [[1.0, 0.0]]


def test_a_memory_mapped_file_is_searched_and_mapped_block_by_block(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "v.npy", rng.standard_normal((3000, 4)).astype(np.float32))
    documents = np.load(tmp_path / "v.npy", mmap_mode="r")
    seen = []

    def turn(block):
        seen.append(len(block))
        return block[:, ::-1]

    query = rng.standard_normal((1, 4)).astype(np.float32)
    indices, _ = top_k(query, documents, 3, map_documents=turn)
    expected, _ = brute_force(query, np.asarray(documents)[:, ::-1], 3)
    assert indices.tolist() == expected.tolist()
    assert sum(seen) == 3000
    assert max(seen) < 3000
