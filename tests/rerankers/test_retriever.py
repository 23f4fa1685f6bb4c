import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llama_index.core import MockEmbedding, Settings, StorageContext, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import IndexNode, NodeWithScore, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore

from llama_index.tuning import LightReranker, TunedRetriever, evaluate_retriever
from llama_index.tuning.errors import ArtifactError, StoreError
from llama_index.tuning.rerankers.serving import _tell
from llama_index.tuning.text.words import Analyzer

from ..embeddings.real_stores import new_store, nodes_of, unit
from .conftest import ids


class Reverse(BaseNodePostprocessor):
    def _postprocess_nodes(self, nodes, query_bundle=None):
        return nodes[::-1]


@pytest.fixture
def nodes():
    texts = ["Fees are due in May.", "A refund is paid within ten days.", "Cats sleep.", "Dogs."]
    return [TextNode(id_=str(i), text=text) for i, text in enumerate(texts)]


@pytest.fixture
def index(nodes):
    return VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))


def test_bm25_finds_what_the_retriever_does_not(index, nodes):
    base = index.as_retriever(similarity_top_k=1)
    retriever = TunedRetriever(base, nodes, top_k=2)
    query = "When is a refund paid?"
    missed = [node for node in ("1",) if node not in ids(base.retrieve(query))]
    assert missed == ["1"]
    assert ids(retriever.retrieve(query))[0] == "1"
    scores = {item.node.node_id: item.score for item in retriever.candidates(query)}
    assert scores["1"] is None
    assert any(score is not None for score in scores.values())


def test_async_gives_the_same(index, nodes):
    retriever = TunedRetriever(index.as_retriever(similarity_top_k=2), nodes)
    one = retriever.retrieve("refund paid")
    other = asyncio.run(retriever.aretrieve("refund paid"))
    assert [(i.node.node_id, i.score) for i in one] == [(i.node.node_id, i.score) for i in other]


def test_it_drops_into_a_query_engine(index, nodes):
    Settings.llm = MockLLM()
    engine = RetrieverQueryEngine.from_args(
        TunedRetriever(index.as_retriever(), nodes, top_k=1), llm=MockLLM()
    )
    assert ids(engine.query("refund paid").source_nodes) == ["1"]


def test_the_docstore_of_an_index_is_enough(index):
    retriever = TunedRetriever(index.as_retriever(), docstore=index.docstore)
    assert ids(retriever.retrieve("refund paid"))[0] == "1"


def test_nodes_come_and_go_without_a_rebuild(index, nodes):
    retriever = TunedRetriever(index.as_retriever(similarity_top_k=1), nodes, top_k=3)
    retriever.insert_nodes([TextNode(id_="new", text="Vouchers expire.")])
    assert ids(retriever.retrieve("When do vouchers expire?"))[0] == "new"
    retriever.insert_nodes([TextNode(id_="new", text="Coupons expire.")])
    assert ids(retriever.retrieve("coupons"))[0] == "new"
    retriever.delete_nodes(["new", "1", "unknown"])
    assert "new" not in ids(retriever.retrieve("coupons"))
    assert "1" not in ids(retriever.retrieve("refund paid"))


def test_nodes_come_and_go_while_others_search_and_save(index, nodes, tmp_path):
    base = index.as_retriever(similarity_top_k=2)
    retriever = TunedRetriever(base, nodes)
    stop = threading.Event()

    def churn():
        for i in range(10_000):
            if stop.is_set():
                return
            retriever.insert_nodes([TextNode(id_=f"n{i % 40}", text=f"Refund rule {i}.")])
            retriever.delete_nodes([f"n{(i + 7) % 40}"])

    with ThreadPoolExecutor(3) as pool:
        writing = pool.submit(churn)
        try:
            searches = [pool.submit(retriever.retrieve, "refund paid") for _ in range(100)]
            for _ in range(20):
                retriever.save(tmp_path / "r")
                again = TunedRetriever.load(tmp_path / "r", base)
                assert set(again.index.ids) == set(again.docstore.docs)
            assert all("1" in ids(search.result()) for search in searches)
        finally:
            stop.set()
        writing.result()


def test_refresh_takes_over_what_others_did_to_the_docstore(index):
    retriever = TunedRetriever(index.as_retriever(similarity_top_k=1), docstore=index.docstore)
    index.insert_nodes([TextNode(id_="new", text="Vouchers expire.")])
    index.docstore.delete_document("1")
    assert retriever.refresh() == (1, 1)
    assert ids(retriever.retrieve("When do vouchers expire?"))[0] == "new"
    assert "1" not in ids(retriever.retrieve("refund paid"))
    assert retriever.refresh() == (0, 0)


@pytest.mark.parametrize("saved", [False, True])
def test_refresh_takes_a_text_that_changed_under_its_id(index, tmp_path, saved):
    base = index.as_retriever(similarity_top_k=1)
    retriever = TunedRetriever(base, docstore=index.docstore)
    if saved:
        retriever.save(tmp_path / "r")
        retriever = TunedRetriever.load(tmp_path / "r", base, docstore=index.docstore)
    changed = TextNode(id_="1", text="Vouchers expire.")
    index.docstore.add_documents([changed], allow_update=True)
    assert retriever.refresh() == (1, 0)
    assert ids(retriever.retrieve("When do vouchers expire?"))[0] == "1"
    assert retriever.refresh() == (0, 0)


def test_refresh_of_nodes_from_nowhere_is_refused(index, nodes):
    retriever = TunedRetriever(index.as_retriever(), nodes)
    with pytest.raises(ValueError, match=r"which index the nodes= are of: insert_nodes\(\) and"):
        retriever.refresh()


def test_refresh_lets_the_indexs_retriever_see_what_came(index):
    retriever = TunedRetriever.from_index(index)
    index.insert_nodes([TextNode(id_="new", text="Vouchers expire.")])
    assert score_of(retriever, "new") is None  # LlamaIndex's retriever keeps to the nodes it had
    retriever.refresh()
    assert score_of(retriever, "new") is not None
    retriever.retriever = mine = index.as_retriever(similarity_top_k=1)
    retriever.refresh()
    assert retriever.retriever is mine


def score_of(retriever, node_id):
    found = {item.node.node_id: item.score for item in retriever.candidates("vouchers expire")}
    return found.get(node_id)


def test_with_reranker_keeps_a_subclass_and_shares_nodes(index, nodes):
    class Mine(TunedRetriever):
        pass

    one = Mine(index.as_retriever(similarity_top_k=1), nodes)
    other = one.with_reranker(None)
    assert type(other) is Mine
    one.insert_nodes([TextNode(id_="new", text="Vouchers expire.")])
    assert "new" in ids(other.retrieve("vouchers"))


def test_a_copy_goes_its_own_way(index, nodes):
    retriever = TunedRetriever(index.as_retriever(similarity_top_k=1), nodes)
    other = copy.deepcopy(retriever)
    other.delete_nodes(["1"])
    assert ids(retriever.retrieve("refund paid"))[0] == "1"
    assert "1" not in other.index


def test_language_is_that_of_words_and_of_the_untuned_reranker(index, nodes, tmp_path):
    texts = ["Gebühren im Mai", "Häuser werden verkauft", "Katzen schlafen"]
    german = [TextNode(id_=str(i), text=text) for i, text in enumerate(texts)]
    base = VectorStoreIndex(german, embed_model=MockEmbedding(embed_dim=4)).as_retriever()
    retriever = TunedRetriever(base, german, language="german")
    assert ids(retriever.retrieve("Wer verkauft ein Haus?"))[0] == "1"
    retriever.save(tmp_path / "r")
    again = TunedRetriever.load(tmp_path / "r", base)
    assert again.index.analyzer.language == again.reranker.analyzer.language == "german"
    built = TunedRetriever(base, german, index=retriever.index)
    assert built.reranker.analyzer.language == "german"
    alone = TunedRetriever(base, german, language="german", reranker=None)
    assert alone.index.analyzer.language == "german"
    with pytest.raises(ValueError, match="unknown language 'x'"):
        TunedRetriever(base, german, language="x")
    with pytest.raises(ValueError, match="language is 'german', but the words are split as 'engl"):
        TunedRetriever(base, german, language="german", reranker=LightReranker())


@pytest.mark.parametrize(
    ("texts", "query"),
    [
        (["猫在睡觉", "如何申请退款", "天气很好"], "退款怎么申请"),
        (["الرسوم في مايو", "المدارس الكبيرة", "القطط تنام"], "أين المدرسة الكبيرة؟"),
        (["ค่าธรรมเนียม", "การคืนเงินภายในสิบวัน", "แมวนอน"], "คืนเงินเมื่อไร"),
    ],
)
def test_other_scripts_are_found_by_their_words(texts, query):
    nodes = [TextNode(id_=str(i), text=text) for i, text in enumerate(texts)]
    base = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4)).as_retriever()
    language = "arabic" if "ا" in texts[0] else "none"
    retriever = TunedRetriever(base, nodes, language=language)
    assert ids(retriever.retrieve(query))[0] == "1"
    assert ids(asyncio.run(retriever.aretrieve(query)))[0] == "1"


def test_an_empty_docstore_is_said(index, caplog):
    base = index.as_retriever()
    TunedRetriever(base, docstore=SimpleDocumentStore())
    assert "the docstore is empty, so BM25 finds nothing" in caplog.text


def test_what_the_reranker_cuts_is_saved_with_it(index, nodes, tmp_path):
    base = index.as_retriever(similarity_top_k=4)
    light = LightReranker(min_score=0.2, top_n=2, keep_retrieval_score=False)
    retriever = TunedRetriever(base, nodes, reranker=light)
    retriever.save(tmp_path / "r")
    again = TunedRetriever.load(tmp_path / "r", base)
    assert (again.reranker.min_score, again.reranker.top_n) == (0.2, 2)
    assert not again.reranker.keep_retrieval_score
    found, before = again.retrieve("refund paid"), retriever.retrieve("refund paid")
    assert ids(found) == ids(before)


def test_fusion_alone_and_any_postprocessor(index, nodes):
    base = index.as_retriever(similarity_top_k=4)
    fused = TunedRetriever(base, nodes, reranker=None).retrieve("cats sleep")
    assert [item.score for item in fused] == sorted((i.score for i in fused), reverse=True)
    reverse = TunedRetriever(base, nodes, reranker=Reverse())
    assert ids(reverse.retrieve("cats sleep")) == ids(fused)[::-1]
    assert ids(asyncio.run(reverse.aretrieve("cats sleep"))) == ids(fused)[::-1]


def test_top_k_and_depth_cut(index, nodes):
    base = index.as_retriever(similarity_top_k=4)
    assert len(TunedRetriever(base, nodes, top_k=2).retrieve("cats")) == 2
    assert len(TunedRetriever(base, nodes, depth=3).retrieve("cats")) == 3
    limited = TunedRetriever(base, nodes, reranker=LightReranker(top_n=1))
    assert len(limited.retrieve("cats")) == 1


@pytest.mark.parametrize("name", ["top_k", "depth", "pool", "rrf_k"])
def test_sizes_start_at_one(index, nodes, name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number >= 1, got 0"):
        TunedRetriever(index.as_retriever(), nodes, **{name: 0})


def test_sizes_may_be_of_numpy(index, nodes, tmp_path):
    base = index.as_retriever()
    retriever = TunedRetriever(base, nodes, top_k=np.int64(2))
    assert len(retriever.retrieve("cats")) == 2
    retriever.save(tmp_path / "r")
    assert TunedRetriever.load(tmp_path / "r", base).top_k == 2


class Distances(BaseRetriever):
    """Finds all nodes, the best first, with scores of which the smaller is the better."""

    def __init__(self, nodes, sign):
        super().__init__()
        self.nodes, self.sign = nodes, sign

    def _retrieve(self, query_bundle):
        scores = [0.1, 0.5, 0.6, 0.9]
        return [
            NodeWithScore(node=node, score=self.sign * score)
            for node, score in zip(self.nodes, scores, strict=True)
        ]


def test_distances_are_known_by_rising_and_said_once(nodes, caplog):
    _tell.cache_clear()
    near, far = Distances(nodes, 1), Distances(nodes, -1)
    for query in ("refund paid", "zebra"):
        found = TunedRetriever(near, nodes).retrieve(query)
        same = TunedRetriever(far, nodes).retrieve(query)
        assert [(i.node_id, i.score) for i in found] == [(i.node_id, i.score) for i in same]
    assert ids(found) == ["0", "1", "2", "3"]
    light = LightReranker()
    given = near.retrieve("zebra")
    assert ids(light.postprocess_nodes(given, query_str="zebra")) == ["0", "1", "2", "3"]
    assert caplog.text.count("scores rise from its first node to its last") == 1


@pytest.mark.parametrize("sync", [True, False])
def test_a_trace_shows_the_re_ranking(nodes, sync):
    spans, events = SimpleSpanHandler(), LlamaDebugHandler(print_trace_on_end=False)
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    plain = TunedRetriever(
        index.as_retriever(), nodes, reranker=None, callback_manager=CallbackManager([events])
    )
    retriever = plain.with_reranker(LightReranker())
    dispatcher = get_dispatcher()
    dispatcher.add_span_handler(spans)
    try:
        asyncio.run(retriever.aretrieve("cats")) if not sync else retriever.retrieve("cats")
    finally:
        dispatcher.span_handlers.remove(spans)
    assert any("LightReranker._postprocess" in span.id_ for span in spans.completed_spans)
    assert len(events.get_event_pairs(CBEventType.RERANKING)) == 1


def test_a_retriever_around_it_knows_its_nodes(index, nodes):
    base = index.as_retriever(similarity_top_k=4)
    tuned = TunedRetriever(base, nodes)
    around = QueryFusionRetriever(
        [base, tuned], llm=MockLLM(), num_queries=1, use_async=False, mode="reciprocal_rerank"
    )
    scores = {item.node_id: item.score for item in around.retrieve("refund paid")}
    assert scores["1"] > 1 / 60  # the sum of both rankings
    assert tuned.retrieve("refund paid")[0].node.hash == nodes[1].hash


def test_index_nodes_that_only_bm25_found_stand_for_their_objects(nodes):
    table = IndexNode(
        id_="ix", text="Refund table", index_id="T", obj=TextNode(id_="o", text="5 %")
    )
    index = VectorStoreIndex(nodes, objects=[table], embed_model=MockEmbedding(embed_dim=4))
    retriever = TunedRetriever(index.as_retriever(similarity_top_k=1), docstore=index.docstore)
    assert ids(retriever.retrieve("refund table"))[0] == "o"


def test_misuse_is_named(index, nodes):
    base = index.as_retriever()
    with pytest.raises(TypeError, match="retriever must be a retriever of LlamaIndex, got str"):
        TunedRetriever("x", nodes)
    with pytest.raises(ValueError, match="pass nodes or docstore, one of the two"):
        TunedRetriever(base)
    with pytest.raises(TypeError, match="docstore must be a document store, got int"):
        TunedRetriever(base, docstore=5)
    with pytest.raises(TypeError, match="index must be a BM25Index, got str"):
        TunedRetriever(base, nodes, index="bm25")
    with pytest.raises(TypeError, match="node_ids must be a list"):
        TunedRetriever(base, nodes).delete_nodes("12")
    with pytest.raises(TypeError, match="reranker must be a node postprocessor"):
        TunedRetriever(base, nodes, reranker=3)
    german = LightReranker(analyzer=Analyzer("german"))
    with pytest.raises(ValueError, match="the re-ranker splits words by"):
        TunedRetriever(base, nodes).with_reranker(german)
    assert TunedRetriever(base, nodes, reranker=german).index.analyzer.language == "german"


def test_a_retriever_that_finds_nothing_leaves_bm25(nodes):
    empty = VectorStoreIndex([], embed_model=MockEmbedding(embed_dim=4)).as_retriever()
    retriever = TunedRetriever(empty, nodes)
    assert ids(retriever.retrieve("refund")) == ["1"]
    assert retriever.retrieve("zebra") == []


def test_it_comes_back_from_its_folder(tmp_path, index, nodes):
    base = index.as_retriever(similarity_top_k=2)
    retriever = TunedRetriever(base, nodes, top_k=2, depth=3)
    retriever.delete_nodes(["2"])
    retriever.save(tmp_path / "r")
    again = TunedRetriever.load(tmp_path / "r", base)
    assert (again.top_k, again.depth) == (2, 3)
    assert ids(again.retrieve("refund paid")) == ids(retriever.retrieve("refund paid"))
    again.insert_nodes([TextNode(id_="new", text="Vouchers expire.")])
    assert ids(again.retrieve("vouchers"))[0] == "new"
    again.save(tmp_path / "r")
    assert "new" in TunedRetriever.load(tmp_path / "r", base).index


def test_vectors_of_nodes_are_not_kept_twice(index, tmp_path):
    embedded = TextNode(id_="v", text="Vouchers expire.", embedding=[0.25] * 4)
    retriever = TunedRetriever(index.as_retriever(), [embedded])
    retriever.insert_nodes([TextNode(id_="w", text="Coupons.", embedding=[0.25] * 4)])
    retriever.save(tmp_path / "r")
    assert "0.25" not in (tmp_path / "r" / "nodes.json").read_text()
    assert embedded.embedding == [0.25] * 4


def test_an_apps_docstore_is_not_saved_but_asked_for(tmp_path, index):
    base = index.as_retriever()
    TunedRetriever(base, docstore=index.docstore, reranker=None).save(tmp_path / "r")
    with pytest.raises(ValueError, match=f"^{tmp_path}/r holds no nodes: pass docstore="):
        TunedRetriever.load(tmp_path / "r", base)
    with pytest.raises(TypeError, match=r"^retriever must be a retriever of LlamaIndex, got str"):
        TunedRetriever.load(tmp_path / "r", "base", docstore=index.docstore)
    again = TunedRetriever.load(tmp_path / "r", base, docstore=index.docstore)
    assert again.reranker is None
    assert "1" in ids(again.retrieve("refund"))


def test_another_embedding_model_is_refused(tmp_path, index, nodes):
    TunedRetriever(index.as_retriever(), nodes).save(tmp_path / "r")
    named = MockEmbedding(embed_dim=4, model_name="other")
    other = VectorStoreIndex(nodes, embed_model=named).as_retriever()
    config = (tmp_path / "r" / "tuning.json").read_text()
    (tmp_path / "r" / "tuning.json").write_text(config.replace('"unknown"', '"mine"'))
    with pytest.raises(ArtifactError, match="embedding model 'mine', not 'other'"):
        TunedRetriever.load(tmp_path / "r", other)


def test_damaged_folders_are_refused(tmp_path, index, nodes):
    path = tmp_path / "r"
    base = index.as_retriever()
    for name, content, message in (
        ("bm25.safetensors", b"x", "not a safetensors file"),
        ("ids.json", b"[", "not valid JSON"),
        ("ids.json", b'["a"]', "do not fit each other"),
        ("tuning.json", b'{"format": 1, "kind": "tuned_retriever"}', "is damaged: 'reranker'"),
        ("nodes.json", b"{", "is damaged"),
        ("nodes.json", b"5", "is damaged"),
        ("nodes.json", b"{}", "nodes.json has no node '0'"),
    ):
        TunedRetriever(base, nodes).save(path)
        (path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            TunedRetriever.load(path, base)


def test_it_is_measured_like_any_retriever(noisy, shop_data):
    tuned = TunedRetriever(noisy, noisy.nodes)
    before = evaluate_retriever(noisy, shop_data).mean()["ndcg@10"]
    after = evaluate_retriever(tuned, shop_data).mean()["ndcg@10"]
    assert after > before + 0.1
    assert isinstance(tuned.retrieve("refund rules")[0], NodeWithScore)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@pytest.mark.parametrize("kind", ["simple", "chroma", "qdrant"])
def test_an_index_gives_its_nodes_wherever_they_are(kind, tmp_path):
    matrix = unit(np.random.default_rng(0).standard_normal((12, 4)))
    store, nodes = new_store(kind, tmp_path), nodes_of(kind, matrix)
    for node in nodes:
        node.text += f" about subject{node.metadata['n']}"
    context = StorageContext.from_defaults(vector_store=store)
    model = MockEmbedding(embed_dim=4)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=model)
    if kind != "simple":  # an app started again: only the store knows
        index = VectorStoreIndex.from_vector_store(store, embed_model=model)
        assert not index.docstore.docs
    retriever = TunedRetriever.from_index(index, similarity_top_k=5, top_k=3)
    assert len(retriever.index) == 12
    [[best, _]] = retriever.index.search("what is subject7", 1)
    found = {item.node.node_id: item.node for item in retriever.candidates("what is subject7")}
    assert found[best].metadata["n"] == 7
    assert len(retriever.retrieve("what is subject7")) == 3


def test_an_index_without_texts_asks_for_nodes(nodes):
    store = SimpleVectorStore()
    store.add([node.model_copy(update={"embedding": [1.0, 0.0]}) for node in nodes])
    index = VectorStoreIndex([], embed_model=MockEmbedding(embed_dim=2))
    index._vector_store = store
    with pytest.raises(StoreError, match=r"does not hand out its nodes: pass nodes="):
        TunedRetriever.from_index(index)
