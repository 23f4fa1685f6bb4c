"""Labels whose nodes got new ids since: every engine learns and scores as with the right ones."""

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, TextNode

from llama_index.tuning import (
    CrossEncoderFinetuneEngine,
    EmbeddingAdapterFinetuneEngine,
    LightRerankerFinetuneEngine,
    QueryEncoderFinetuneEngine,
    RelevanceDataset,
    RetrievalDataset,
    TunedRetriever,
    tune_app,
)
from llama_index.tuning.embeddings import AdapterOptions
from llama_index.tuning.errors import DatasetError
from tests.app.conftest import WordEmbedding
from tests.conftest import TableEmbedding, rotated_problem
from tests.rerankers.conftest import NoisyRetriever, shop

SHOP = shop()
PROBLEM, TABLE = rotated_problem(n_documents=40, per_document=2)


def moved(dataset, share):
    """The same labels with ids of an earlier ingestion, of a share of the documents."""
    every = list(dataset.corpus)
    old = {id_: f"old-{id_}" for id_ in every[: round(share * len(every))]}
    return RetrievalDataset(
        dataset.queries,
        {old.get(id_, id_): text for id_, text in dataset.corpus.items()},
        {q: [old.get(id_, id_) for id_ in ids] for q, ids in dataset.relevant_docs.items()},
    )


def unknown(dataset):
    """Labels of texts that are nowhere."""
    corpus = {f"old-{id_}": f"Nowhere is word{n}." for n, id_ in enumerate(dataset.corpus)}
    relevant = {q: [f"old-{id_}" for id_ in ids] for q, ids in dataset.relevant_docs.items()}
    return RetrievalDataset(dataset.queries, corpus, relevant)


def an_index(dataset, model):
    return VectorStoreIndex(dataset.to_nodes(), embed_model=model)


def by_index(dataset):
    retriever = an_index(SHOP, WordEmbedding()).as_retriever(similarity_top_k=10)
    return LightRerankerFinetuneEngine(dataset, retriever).finetune()


def by_fusion(dataset):
    retriever = TunedRetriever.from_index(an_index(SHOP, WordEmbedding()), similarity_top_k=10)
    return LightRerankerFinetuneEngine(dataset, retriever).finetune()


def by_any_retriever(dataset):
    return LightRerankerFinetuneEngine(dataset, NoisyRetriever(SHOP)).finetune()


def by_validation(dataset):
    train = [id_ for id_ in SHOP.queries if id_.endswith("-0")]
    retriever = an_index(SHOP, WordEmbedding()).as_retriever(similarity_top_k=10)
    held_out = dataset.subset([id_ for id_ in dataset.queries if id_ not in train])
    engine = LightRerankerFinetuneEngine(SHOP.subset(train), retriever, val_dataset=held_out)
    return engine.finetune()


def by_adapter(dataset):
    engine = EmbeddingAdapterFinetuneEngine(
        dataset,
        TABLE,
        vectors=an_index(PROBLEM, TABLE),
        options=AdapterOptions(folds=2),
        model_output_path=None,
    )
    return engine.finetune()


RERANKERS = [by_index, by_fusion, by_any_retriever, by_validation]
ENGINES = [(SHOP, run) for run in RERANKERS] + [(PROBLEM, by_adapter)]


@pytest.mark.parametrize(("dataset", "run"), ENGINES)
def test_old_ids_cost_nothing_and_the_report_says_so(dataset, run):
    right = run(dataset)
    for share in (0.5, 1.0):
        report = run(moved(dataset, share))
        for name, gain in right.gains.items():
            assert report.gains[name].base == pytest.approx(gain.base), (share, name)
            assert report.gains[name].mean == pytest.approx(gain.mean, abs=0.02), (share, name)
        assert any("looked for by their texts" in note for note in report.notes)
    assert not any("by their texts" in note for note in right.notes)


@pytest.mark.parametrize(("dataset", "run"), ENGINES)
def test_texts_that_are_nowhere_are_refused_with_their_number(dataset, run):
    with pytest.raises(DatasetError, match=r"\d+ of \d+ labelled documents|none of them"):
        run(unknown(dataset))


def test_an_app_takes_questions_of_an_earlier_ingestion():
    index = an_index(SHOP, WordEmbedding())
    right = tune_app(index, SHOP, run_folder=None).report
    report = tune_app(index, moved(SHOP, 0.5), run_folder=None).report
    assert report.gains["ndcg@10"].base == pytest.approx(right.gains["ndcg@10"].base)
    assert any("looked for by their texts" in note for note in report.notes)


def test_a_cross_encoder_learns_from_the_same_candidates():
    retriever = an_index(SHOP, WordEmbedding()).as_retriever(similarity_top_k=10)
    found = []
    for dataset in (SHOP, moved(SHOP, 0.5)):
        engine = CrossEncoderFinetuneEngine(dataset, retriever=retriever, model_output_path=None)
        engine._check()
        found.append(engine._candidates(engine._data[0]))
    assert found[0].fingerprint() == found[1].fingerprint()


def test_a_query_encoder_learns_over_the_index_of_today():
    index = an_index(PROBLEM, TABLE)
    engine = QueryEncoderFinetuneEngine(moved(PROBLEM, 0.5), "any", vectors=index)
    engine._check()
    assert engine._data.labelled.relevant_docs == PROBLEM.relevant_docs
    assert any("looked for by their texts" in note for note in engine._data.notes)


def test_ids_that_mean_another_chunk_now_go_by_their_text():
    text = " ".join(f"Sentence {n} is about topic{n} and its {n * 7} parts." for n in range(120))

    def chunks(size):
        splitter = SentenceSplitter(
            chunk_size=size, chunk_overlap=0, id_func=lambda i, doc: f"{doc.node_id}-{i}"
        )
        return splitter([Document(id_="book", text=text)])

    old, new = chunks(60), chunks(150)
    queries = {f"q{n}": f"What of {node.text[40:90]}?" for n, node in enumerate(old)}
    dataset = RetrievalDataset.from_nodes(
        old, queries, {f"q{n}": [node.node_id] for n, node in enumerate(old)}
    )
    retriever = VectorStoreIndex(new, embed_model=WordEmbedding()).as_retriever(similarity_top_k=5)
    engine = LightRerankerFinetuneEngine(dataset, retriever)
    engine._check()
    tied, _ = engine._data
    for query, ids in tied.relevant_docs.items():
        before = dataset.corpus[dataset.relevant_docs[query][0]]
        here = " ".join(tied.corpus[id_] for id_ in ids)
        assert len(set(before.split()) & set(here.split())) > 0.6 * len(set(before.split()))


def test_documents_that_the_index_lacks_stay_with_the_adapter_and_leave_a_reranker():
    part = RetrievalDataset(SHOP.queries, SHOP.corpus, SHOP.relevant_docs)
    nodes = SHOP.to_nodes()[5:]
    model = WordEmbedding()
    index = VectorStoreIndex(nodes, embed_model=model)
    engine = LightRerankerFinetuneEngine(part, index.as_retriever(similarity_top_k=10))
    report = engine.finetune()
    assert any("10 queries have no answer left" in note for note in report.notes)
    adapter = EmbeddingAdapterFinetuneEngine(part, model, vectors=index, model_output_path=None)
    adapter._check()
    assert len(adapter._data.labelled) == len(SHOP)
    assert adapter._data.labelled.corpus.keys() == SHOP.corpus.keys()


def test_relevance_from_any_retriever_goes_by_texts():
    index = VectorStoreIndex(
        [TextNode(id_=f"new-{n}", text=t) for n, t in enumerate(SHOP.corpus.values())],
        embed_model=TableEmbedding(dim=8),
    )
    retriever = index.as_retriever(similarity_top_k=len(SHOP.corpus))
    lists = RelevanceDataset.from_retriever(SHOP, retriever).lists
    assert all(sum(c.score for c in item.candidates) == 1 for item in lists)
    assert not any(item.missed for item in lists)
