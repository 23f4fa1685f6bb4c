"""Run in a virtual environment of its own (.ci/old_package): the old package pins OpenAI down."""

import pytest

from tests.conftest import rotated_problem

pytestmark = [
    pytest.mark.old_package,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def old_dataset():
    from llama_index.finetuning import EmbeddingQAFinetuneDataset

    dataset, _ = rotated_problem()
    return EmbeddingQAFinetuneDataset(**dataset.to_dict())


def test_our_engine_is_an_instance_of_the_old_base_class_and_takes_the_old_dataset(
    old_dataset, tmp_path
):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.finetuning.types import BaseEmbeddingFinetuneEngine

    import llama_index.tuning.compat
    from llama_index.tuning import (
        EmbeddingAdapterFinetuneEngine,
        SentenceTransformersFinetuneEngine,
    )

    _, model = rotated_problem()
    engine = EmbeddingAdapterFinetuneEngine(
        old_dataset, model, model_output_path=str(tmp_path / "out"), val_dataset=None
    )
    assert isinstance(engine, BaseEmbeddingFinetuneEngine)
    assert isinstance(SentenceTransformersFinetuneEngine(old_dataset), BaseEmbeddingFinetuneEngine)
    assert llama_index.tuning.compat
    engine.finetune()
    assert isinstance(engine.get_finetuned_model(), BaseEmbedding)


def test_old_files_load_unchanged(old_dataset, tmp_path):
    from llama_index.tuning import EmbeddingQAFinetuneDataset

    old_dataset.save_json(str(tmp_path / "old.json"))
    ours = EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "old.json"))
    assert ours.queries == old_dataset.queries
    assert ours.query_docid_pairs == old_dataset.query_docid_pairs


def test_a_folder_of_the_old_engine_serves_the_same_vectors(old_dataset, tmp_path):
    import numpy as np
    from llama_index.finetuning import EmbeddingAdapterFinetuneEngine as OldEngine

    from llama_index.tuning import AdapterEmbeddingModel

    _, model = rotated_problem()
    old = OldEngine(old_dataset, model, model_output_path=str(tmp_path / "out"), epochs=1)
    old.finetune()
    theirs = old.get_finetuned_model()
    ours = AdapterEmbeddingModel(model, str(tmp_path / "out"))
    text = "question 3 1"
    np.testing.assert_allclose(
        ours.get_query_embedding(text), theirs.get_query_embedding(text), atol=1e-5
    )


def test_the_cross_fitted_engine_beats_the_old_one_on_its_own_data(old_dataset, tmp_path):
    from llama_index.finetuning import EmbeddingAdapterFinetuneEngine as OldEngine

    from llama_index.tuning import EmbeddingAdapterFinetuneEngine
    from llama_index.tuning.embeddings.adapter.measure import measure_adapter
    from llama_index.tuning.embeddings.adapter.saved import Adapter

    test, model = rotated_problem()
    train, held_out = test.split(0.3, seed=1)
    OldEngine(train, model, model_output_path=str(tmp_path / "old"), epochs=4).finetune()
    EmbeddingAdapterFinetuneEngine(train, model, model_output_path=str(tmp_path / "new")).finetune()
    _, old = measure_adapter(held_out, model, Adapter.load(tmp_path / "old"))
    _, new = measure_adapter(held_out, model, Adapter.load(tmp_path / "new"))
    assert new["ndcg@10"].tuned > old["ndcg@10"].tuned


def test_our_llm_engines_are_instances_of_the_old_base_class():
    from llama_index.finetuning.types import BaseLLMFinetuneEngine

    import llama_index.tuning.compat
    from llama_index.tuning import AzureOpenAIFinetuneEngine, OpenAIFinetuneEngine

    assert llama_index.tuning.compat
    for engine in (OpenAIFinetuneEngine, AzureOpenAIFinetuneEngine):
        assert isinstance(engine("gpt-4o-mini", "train.jsonl"), BaseLLMFinetuneEngine)
