"""A tuned query side over stored vectors: what is learnt, what stays, what is served."""

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex

from llama_index.tuning import QueryEncoderEmbeddingModel, QueryEncoderFinetuneEngine
from llama_index.tuning.embeddings import QueryEncoderOptions
from llama_index.tuning.errors import ArtifactError, DatasetError, VectorError
from tests.embeddings.full.conftest import build_model, texts_of
from tests.rerankers.conftest import shop

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6
TEXT = "What do the refund rules of article 3 say?"


@pytest.fixture(scope="module")
def data():
    return shop(n=30, per_document=4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, data):
    return build_model(tmp_path_factory.mktemp("tiny"), texts_of(data))


@pytest.fixture(scope="module")
def base(tiny):
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    return HuggingFaceEmbedding(tiny, device="cpu")


@pytest.fixture
def stored(data, base):
    """Document id → its vector."""
    vectors = base.get_text_embedding_batch(list(data.corpus.values()))
    return dict(zip(data.corpus, vectors, strict=True))


@pytest.fixture
def engine(data, tiny, stored, tmp_path):
    def make(options=None, **arguments):
        quick = {"learning_rates": (5e-3,), "lora_rank": 0, "folds": 2, "precision": "fp32"}
        defaults = {
            "dataset": data,
            "model_id": tiny,
            "vectors": stored,
            "model_output_path": tmp_path / "out",
            "batch_size": 8,
            "epochs": 8,
            "device": "cpu",
            "options": QueryEncoderOptions(**{**quick, **(options or {})}),
        }
        return QueryEncoderFinetuneEngine(**{**defaults, **arguments})

    return make


def test_questions_are_learnt_and_documents_stay(engine, base, data, tmp_path):
    tuning = engine()
    report = tuning.finetune()
    assert report.accepted
    assert report.gains["ndcg@10"].mean > 0.1
    assert report.method == "2-fold cross-fitting"
    assert not report.data["costs"]["documents_must_be_embedded_again"]
    model = tuning.get_finetuned_model(base_embed_model=base)
    documents = list(data.corpus.values())
    assert model.get_text_embedding_batch(documents) == base.get_text_embedding_batch(documents)
    own, tuned = (np.array(m.get_query_embedding(TEXT)) for m in (base, model))
    assert own @ tuned < 0.99
    assert np.linalg.norm(tuned) == pytest.approx(1, abs=1e-5)
    assert not (tmp_path / "out.checkpoints").exists()

    # The index of the base finds more with it, and nothing in it was touched.
    index = VectorStoreIndex(data.to_nodes(), embed_model=base)
    for served in (model, QueryEncoderEmbeddingModel(base, tmp_path / "out", device="cpu")):
        retriever = index.as_retriever(embed_model=served, similarity_top_k=1)
        first = [retriever.retrieve(text)[0].node_id for text in data.queries.values()]
        right = [a == b[0] for a, b in zip(first, data.relevant_docs.values(), strict=True)]
        assert np.mean(right) > report.gains["hit_rate@1"].base + 0.1


def test_a_saved_copy_answers_alike_and_says_what_it_learnt(engine, base, data, tmp_path):
    tuning = engine(model_output_path=None, accept="always", epochs=1)
    tuning.finetune()
    model = tuning.get_finetuned_model()
    model.save(tmp_path / "copy")
    copy = QueryEncoderEmbeddingModel(base, str(tmp_path / "copy"), device="cpu")
    np.testing.assert_allclose(
        copy.get_query_embedding(TEXT), model.get_query_embedding(TEXT), atol=1e-6
    )
    asked = list(data.queries.values())
    assert copy.learned.among([*asked[:3], "never asked"]) == asked[:3]
    before = copy.learned.before(asked)
    assert len(before) == len(set(asked))
    with copy.answering(before) as answered:
        assert copy.get_query_embedding(asked[0]) == before[asked[0]]
    assert answered == {asked[0]}
    assert copy.get_query_embedding(asked[0]) != before[asked[0]]


def test_a_base_in_bfloat16_is_tuned_and_served(engine, tiny, tmp_path):
    import torch
    from sentence_transformers import SentenceTransformer

    half = str(tmp_path / "half")
    SentenceTransformer(tiny, device="cpu").to(torch.bfloat16).save_pretrained(half)
    tuning = engine(model_id=half, vectors=None, accept="always", epochs=1)
    tuning.finetune()
    assert len(tuning.get_finetuned_model().get_query_embedding(TEXT)) == 32


def test_no_stored_document_is_embedded_but_a_few_to_know_the_model(engine, data, monkeypatch):
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    embedded = []
    real = HuggingFaceEmbedding._get_text_embeddings

    def count(self, texts):
        embedded.extend(texts)
        return real(self, texts)

    monkeypatch.setattr(HuggingFaceEmbedding, "_get_text_embeddings", count)
    engine({"max_steps": 1}).finetune()
    assert len(set(embedded) & set(data.corpus.values())) == 3


def test_vectors_of_another_model_are_refused(engine, stored):
    rng = np.random.default_rng(0)
    drawn = {id_: rng.standard_normal(32) for id_ in stored}
    with pytest.raises(VectorError, match="stored vectors are not this model's"):
        engine(vectors=drawn).finetune()
    with pytest.raises(VectorError, match="dimensions"):
        engine(vectors={id_: vector[:8] for id_, vector in stored.items()}).finetune()


def test_all_that_an_index_holds_is_searched(engine, base, data):
    more = list(shop(n=50, seed=1).to_nodes())
    for node in more:
        node.id_ = f"other-{node.id_}"
    index = VectorStoreIndex([*data.to_nodes(), *more], embed_model=base)
    report = engine({"max_steps": 1}, vectors=index).finetune()
    assert report.data["stored_vectors"] == len(data.corpus) + 50


def test_many_documents_are_a_sample_in_training_and_whole_in_measuring(engine):
    report = engine({"max_steps": 1, "max_documents": 12, "mined_negatives": 2}).finetune()
    assert any("trained against 12 of the 30" in note for note in report.notes)


def test_a_validation_set_measures_the_model_that_is_served(engine, data):
    train, test = data.split(0.3, seed=0)
    report = engine(dataset=train, val_dataset=test).finetune()
    assert report.method == "validation set"
    assert report.gains["ndcg@10"].n == len(test)
    assert report.gains["ndcg@10"].mean > 0


def test_sentences_teach_beside_questions(engine, data):
    report = engine({"max_steps": 1, "lora_rank": 4}, unlabelled=data.corpus).finetune()
    costs = report.data["costs"]
    assert costs["trained_parameters"] < costs["parameters"] / 4
    assert report.data["sentences"]["queries"] > 0
    assert report.gains["ndcg@10"].n == len(data)


def test_held_out_questions_choose_the_learning_rate(engine):
    report = engine({"learning_rates": (1e-9, 5e-3)}).finetune()
    assert any("learning rate 0.005" in note for note in report.notes)


def test_a_stopped_run_goes_on_to_the_same_weights(engine, tmp_path, caplog):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if "fold-1" in args.output_dir and state.global_step == 3:
                raise KeyboardInterrupt

    low = {"lora_rank": 4}
    whole = engine(low, accept="always", model_output_path=tmp_path / "whole", epochs=3)
    whole.finetune()
    with pytest.raises(KeyboardInterrupt):
        engine(low, accept="always", epochs=3, callbacks=[Stop()]).finetune()
    seen = []

    class Count(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            seen.append("fold-0" in args.output_dir)

    arguments = {"accept": "always", "epochs": 3, "callbacks": [Count()]}
    again = engine(low, resume_from_checkpoint=True, **arguments)
    again.finetune()
    assert not any(seen), "a finished fold is not trained again"
    one, other = (t.get_finetuned_model().encoder_fingerprint for t in (whole, again))
    assert one == other


def test_the_loss_is_cross_entropy_over_the_stored_vectors():
    import torch

    from llama_index.tuning.embeddings.adapter.data import Pairs
    from llama_index.tuning.embeddings.query.train import Lesson, StoredVectorsLoss

    rng = np.random.default_rng(0)
    documents = rng.standard_normal((5, 4)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    asked = torch.tensor(rng.standard_normal((2, 4)), dtype=torch.float32)
    positives = [np.array([1]), np.array([0, 3])]
    weights = np.array([1.0, 0.5], dtype=np.float32)
    pairs = Pairs(np.zeros((2, 4), np.float32), positives, weights)
    loss = StoredVectorsLoss(
        lambda features: {"sentence_embedding": features["x"]},
        Lesson(["a", "b"], pairs, documents),
        scale=20.0,
    )
    found = loss([{"x": asked}], torch.tensor([0, 1]))
    target = torch.zeros(2, 5)
    target[0, 1], target[1, 0], target[1, 3] = 1.0, 0.5, 0.5
    logits = 20 * torch.nn.functional.normalize(asked, dim=1) @ torch.from_numpy(documents).T
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    assert float(found) == pytest.approx(float((each[0] + 0.5 * each[1]) / 1.5), abs=1e-5)


def test_bad_input_is_named_before_any_cost(engine, data, base, tmp_path):
    with pytest.raises(ValueError, match="learning_rates must hold at least one number"):
        QueryEncoderOptions(learning_rates=())
    with pytest.raises(TypeError, match="merge must be a tuple"):
        QueryEncoderOptions(merge=0.5)
    with pytest.raises(ValueError, match="lora_rank must be a whole number >= 0"):
        QueryEncoderOptions(lora_rank=-1)
    with pytest.raises(ArtifactError, match="does not exist"):
        engine(model_id=str(tmp_path / "nowhere")).finetune()
    with pytest.raises(DatasetError, match="at least 10"):
        engine(dataset=data.subset(list(data.queries)[:5])).finetune()
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(ArtifactError, match="holds no saved component"):
        QueryEncoderEmbeddingModel(base, tmp_path / "empty")


def test_a_base_other_than_the_tuned_one_is_refused(engine, base, tmp_path, data):
    engine({"max_steps": 1}, accept="always").finetune()
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    place = tmp_path / "other"
    place.mkdir()
    wider = build_model(place, texts_of(data), hidden_size=64)
    other = HuggingFaceEmbedding(wider, device="cpu")
    with pytest.raises(ArtifactError, match="tuned on other vectors"):
        QueryEncoderEmbeddingModel(other, tmp_path / "out")
