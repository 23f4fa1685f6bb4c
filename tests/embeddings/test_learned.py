"""What comes after a tuned adapter is not measured on what the adapter has learnt, unawares."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import QueryBundle

from llama_index.tuning import (
    AdapterEmbeddingModel,
    EmbeddingAdapterFinetuneEngine,
    LightRerankerFinetuneEngine,
    RetrievalDataset,
    RouterFinetuneEngine,
    RoutingDataset,
    TunedRetriever,
    aevaluate_retriever,
    evaluate_retriever,
)
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.embeddings import AdapterOptions
from llama_index.tuning.errors import ArtifactError, DatasetError
from llama_index.tuning.vectors.learned import LEARNED, Learned
from tests.conftest import rotated_problem


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """An index, an adapter of half of the questions, its folder, and both halves."""
    dataset, model = rotated_problem(n_documents=30)
    learnt, others = dataset.split(0.5, seed=3)
    index = VectorStoreIndex(dataset.to_nodes(), embed_model=model)
    folder = tmp_path_factory.mktemp("adapter") / "tuned"
    engine = EmbeddingAdapterFinetuneEngine(
        learnt,
        model,
        vectors=index,
        model_output_path=folder,
        accept="always",
        options=AdapterOptions(folds=3, max_epochs=4),
    )
    engine.finetune()
    return index, engine.get_finetuned_model(), folder, learnt, others


def over(index, model, **arguments):
    return TunedRetriever(
        index.as_retriever(similarity_top_k=20, embed_model=model),
        docstore=index.docstore,
        **arguments,
    )


def found_vectors(retriever, learnt):
    """For each question its candidates' scores, by the folds' adapters and by the final one."""
    lists = RelevanceDataset.from_retriever(learnt, retriever).lists
    fresh = [{c.node_id: c.retrieval_score for c in item.candidates} for item in lists]
    served = [
        {item.node.node_id: item.score for item in retriever.candidates(QueryBundle(text))}
        for text in learnt.queries.values()
    ]
    return fresh, served


@pytest.mark.parametrize("saved", [False, True])
def test_candidates_are_those_of_adapters_that_had_not_seen_the_question(app, saved):
    index, tuned, folder, learnt, _ = app
    if saved:
        tuned = AdapterEmbeddingModel(tuned.base_embed_model, folder)
    fresh, served = found_vectors(over(index, tuned), learnt)
    assert sum(one != other for one, other in zip(fresh, served, strict=True)) == len(learnt)
    vectors = tuned.learned.before(list(learnt.queries.values()))
    documents = {id_: index.vector_store.get(id_) for id_ in learnt.corpus}
    for (id_, text), found in zip(learnt.queries.items(), fresh, strict=True):
        wanted = np.dot(vectors[text], documents[learnt.relevant_docs[id_][0]])
        if learnt.relevant_docs[id_][0] in found and found[learnt.relevant_docs[id_][0]]:
            assert found[learnt.relevant_docs[id_][0]] == pytest.approx(wanted, abs=2e-3)


def test_afterwards_the_adapter_answers_as_before(app):
    index, tuned, _, learnt, _ = app
    text = next(iter(learnt.queries.values()))
    before = tuned.get_query_embedding(text)
    RelevanceDataset.from_retriever(learnt, over(index, tuned))
    assert tuned.get_query_embedding(text) == before


def test_workers_get_them_too(app):
    index, tuned, _, learnt, _ = app
    one, many = (
        RelevanceDataset.from_retriever(learnt, over(index, tuned), num_workers=n) for n in (1, 4)
    )
    assert one.fingerprint() == many.fingerprint()


def test_the_re_rankers_report_names_the_adapter_and_is_no_better_than_the_adapters(app):
    index, tuned, _, learnt, _ = app
    engine = LightRerankerFinetuneEngine(learnt, over(index, tuned, reranker=None))
    report = engine.finetune()
    assert any(f"has learnt {len(learnt)} of these" in note for note in report.notes)
    retriever = report.slices["against no re-ranker"]["ndcg@10"].base
    with pytest.warns(UserWarning, match="has learnt"):
        known = evaluate_retriever(
            index.as_retriever(similarity_top_k=10, embed_model=tuned), learnt
        )
    assert retriever < known.mean()["ndcg@10"]


@pytest.mark.asyncio
async def test_evaluating_on_questions_that_were_learnt_warns(app):
    index, tuned, _, learnt, others = app
    retriever = over(index, tuned)
    with pytest.warns(UserWarning, match=f"adapter .*has learnt {len(learnt)} of these"):
        evaluate_retriever(retriever, learnt)
    with pytest.warns(UserWarning, match=f"has learnt {len(learnt)} of these"):
        await aevaluate_retriever(retriever, learnt)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_retriever(retriever, others)


def test_an_adapter_with_a_validation_set_is_refused_with_the_remedy(app):
    index, tuned, _, learnt, others = app
    engine = EmbeddingAdapterFinetuneEngine(
        learnt,
        tuned.base_embed_model,
        val_dataset=others,
        model_output_path=None,
        accept="always",
        options=AdapterOptions(folds=3, max_epochs=4),
    )
    engine.finetune()
    retriever = over(index, engine.get_finetuned_model())
    with pytest.raises(DatasetError, match="Use questions that it has not learnt"):
        LightRerankerFinetuneEngine(learnt, retriever).finetune()
    LightRerankerFinetuneEngine(others, retriever).finetune()


def test_a_retriever_that_does_not_ask_the_adapter_is_refused(app):
    index, tuned, _, learnt, _ = app
    retriever = index.as_retriever(similarity_top_k=20, embed_model=tuned)
    remembered = {text: tuned.get_query_embedding(text) for text in learnt.queries.values()}
    ask = type(retriever)._retrieve

    class Remembering(type(retriever)):
        def _retrieve(self, query_bundle):
            query_bundle.embedding = remembered[query_bundle.query_str]
            return ask(self, query_bundle)

    retriever.__class__ = Remembering
    with pytest.raises(DatasetError, match="was asked for 0 of them"):
        RelevanceDataset.from_retriever(learnt, retriever)


def test_no_other_engine_measures_over_it(app):
    _, tuned, _, learnt, _ = app
    with pytest.raises(DatasetError, match="has learnt"):
        EmbeddingAdapterFinetuneEngine(learnt, tuned, model_output_path=None).finetune()
    texts = list(learnt.queries.values())
    examples = [RoutingExample(text, ("ab"[i % 2],)) for i, text in enumerate(texts)]
    routing = RoutingDataset({"a": "first", "b": "second"}, examples)
    with pytest.raises(DatasetError, match="has learnt"):
        RouterFinetuneEngine(routing, tuned).finetune()


def test_going_on_from_an_adapter_is_measured_on_other_questions(app, caplog):
    _, tuned, folder, learnt, others = app

    def again(**arguments):
        return EmbeddingAdapterFinetuneEngine.from_model_path(
            learnt,
            tuned.base_embed_model,
            str(folder),
            model_output_path=None,
            options=AdapterOptions(folds=2, max_epochs=1),
            **arguments,
        )

    with caplog.at_level("WARNING"):
        anew = again()
    assert "has learnt" in caplog.text
    assert torch.equal(anew.adapter_model.linear.weight, torch.eye(16))
    assert again(val_dataset=others).finetune().gains["ndcg@10"].n == len(others)


def test_a_re_ranker_that_the_app_has_already_is_named(app):
    index, tuned, _, _, others = app
    retriever = over(index, tuned.base_embed_model)
    first = LightRerankerFinetuneEngine(others, retriever, accept="always")
    first.finetune()
    again = retriever.with_reranker(first.get_finetuned_model())
    with pytest.warns(UserWarning, match="light re-ranker has learnt"):
        evaluate_retriever(again, others)
    report = LightRerankerFinetuneEngine(others, again).finetune()
    assert any("too good" in note for note in report.notes)


def test_equal_but_for_case_and_space_is_the_same_question(app):
    _, tuned, _, learnt, _ = app
    text = next(iter(learnt.queries.values()))
    assert tuned.learned.among([f"  {text.upper()} ", "another"]) == [f"  {text.upper()} "]


def test_a_routers_score_on_its_own_queries_warns():
    from llama_index.tuning.evaluate.routing import evaluate_selector
    from tests.conftest import TableEmbedding

    examples = [RoutingExample(f"{name} question {i}", (name,)) for name in "ab" for i in range(8)]
    data = RoutingDataset({"a": "first", "b": "second"}, examples)
    engine = RouterFinetuneEngine(data, TableEmbedding(), accept="always")
    engine.finetune()
    with pytest.warns(UserWarning, match="router has learnt 16 of these 16"):
        evaluate_selector(engine.get_finetuned_model(), data)


def test_a_dataset_without_queries_of_it_is_measured(app):
    index, tuned, _, learnt, _ = app
    other = RetrievalDataset({"x": "a new question"}, learnt.corpus, {"x": [*learnt.corpus]})
    assert len(RelevanceDataset.from_retriever(other, over(index, tuned)).lists) == 1


def test_a_damaged_list_of_what_was_learnt_is_named(tmp_path):
    from safetensors.numpy import save_file

    save_file({"rows": np.zeros(2)}, tmp_path / LEARNED)
    with pytest.raises(ArtifactError, match=r"learned\.safetensors holds no 'codes'"):
        Learned.read(tmp_path, "the adapter")
