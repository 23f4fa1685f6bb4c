"""The README's claims on real data, as far as minutes allow; benchmarks/ has the figures."""

import json
from pathlib import Path

import pytest

from llama_index.tuning import EmbeddingAdapterFinetuneEngine, RetrievalDataset
from llama_index.tuning.demo import minilm
from llama_index.tuning.embeddings.adapter.measure import measure_adapter

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("real data"),  # texts are embedded once
    pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data"),
    pytest.mark.filterwarnings("ignore:.*query texts occur more than once"),
]


def split(name, *parts):
    corpus = DATA / name / "corpus.json"
    found = [RetrievalDataset.from_json(DATA / name / f"{p}.json", corpus=corpus) for p in parts]
    queries = {id_: text for part in found for id_, text in part.queries.items()}
    relevant = {id_: docs for part in found for id_, docs in part.relevant_docs.items()}
    return RetrievalDataset(queries, found[0].corpus, relevant)


def company(data, name):
    source = json.loads((DATA / "llamaindex_10k" / "doc_source.json").read_text())
    corpus = {id_: text for id_, text in data.corpus.items() if source[id_].startswith(name)}
    return RetrievalDataset(data.queries, corpus, data.relevant_docs)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("vectors") / "vectors.sqlite"


def tuned_and_measured(train, test, cache, folder, **arguments):
    model = minilm()
    engine = EmbeddingAdapterFinetuneEngine(
        train, model, vector_cache=cache, model_output_path=folder / "adapter", **arguments
    )
    report = engine.finetune()
    adapter = engine.get_finetuned_model().adapter
    return report, measure_adapter(test, model, adapter, vector_cache=cache)[1]


def test_a_small_family_of_documents_gains(tmp_path, cache):
    train, test = split("williams_family", "train", "val"), split("williams_family", "test")
    report, gains = tuned_and_measured(train, test, cache, tmp_path)
    assert report.accepted
    assert gains["ndcg@10"].mean > 0


def test_lyfts_questions_and_ubers_sentences_help_on_ubers_report(tmp_path, cache):
    train = company(split("llamaindex_10k", "train"), "lyft")
    test = company(split("llamaindex_10k", "test"), "uber")
    report, gains = tuned_and_measured(train, test, cache, tmp_path, unlabelled=test.corpus)
    assert report.accepted
    assert gains["hit_rate@10"].mean >= 0.02
    assert gains["hit_rate@10"].low > 0
