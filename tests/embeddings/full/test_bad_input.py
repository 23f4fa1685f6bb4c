"""Each bad input gets its clear error before anything is trained."""

import errno
import shutil

import pytest

from llama_index.tuning import (
    RelevanceDataset,
    RetrievalDataset,
    SentenceTransformersFinetuneEngine,
)
from llama_index.tuning.embeddings import SentenceTransformersOptions
from llama_index.tuning.errors import ArtifactError, DatasetError, TuningError

SCORES = RelevanceDataset.from_labels({"q": "x"}, {"a": "A", "b": "B"}, {"q": {"a": 1, "b": 0}})
CASES = {
    "a folder that is not": ({"model_id": "./nowhere"}, ArtifactError, "nowhere does not exist"),
    "no model": ({"model_id": ""}, ValueError, "model_id must be a model's name or folder"),
    "an unknown loss": ({"loss": "hinge"}, ValueError, "unknown loss 'hinge'; choose one of: Mul"),
    "no loss": ({"loss": 3}, TypeError, "loss must be a name, .* got int"),
    "a device that is not": ({"device": "cuda"}, ValueError, "device 'cuda' is not on this"),
    "no device": ({"device": "gpu0"}, ValueError, "device 'gpu0' is not on this machine"),
    "no data": ({"dataset": None}, ValueError, "dataset and unlabelled are both None"),
    "a path as dataset": ({"dataset": "d.json"}, TypeError, "got str"),
    "a large batch": ({"batch_size": 1000}, DatasetError, "batch_size is 1000, but only"),
    "a batch of one": ({"batch_size": 1}, ValueError, "batch_size must be a whole number >= 2"),
    "half an epoch": ({"epochs": 0.5}, ValueError, "epochs must be a whole number >= 1, got 0.5"),
    "never look": ({"evaluation_steps": 0}, ValueError, "evaluation_steps must be a whole"),
    "accept": ({"accept": "maybe"}, ValueError, "unknown accept 'maybe'"),
    "no teacher": ({"loss": "MarginMSELoss"}, ValueError, "follows a teacher: pass scores="),
    "a teacher and pairs": (
        {"scores": SCORES},
        ValueError,
        "learns from pairs; scores= would not be used",
    ),
    "a teacher and sentences": (
        {"loss": "MarginMSELoss", "scores": SCORES, "unlabelled": {"a": "text"}},
        ValueError,
        "unlabelled= would not be used",
    ),
    "no negatives": ({"loss": "TripletLoss"}, ValueError, "TripletLoss needs options.hard_neg"),
    "one label alone": ({"loss": "CoSENTLoss"}, ValueError, "CoSENTLoss needs options.hard_neg"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(engine, case, tmp_path):
    arguments, error, words = CASES[case]
    with pytest.raises(error, match=words):
        engine(**arguments).finetune()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"precision": "int8"}, "unknown precision 'int8'; choose one of: auto, fp32"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"held_out": 0.5}, "held_out must be a number above 0 and at most 0.3"),
        ({"lora_rank": -1}, "lora_rank must be a whole number >= 0"),
        ({"max_steps": 0}, "max_steps must be a whole number >= 1"),
        ({"max_length": 4}, "max_length must be a whole number >= 8"),
        ({"merge": (0.0,)}, "each of merge must be a number above 0 and at most 1"),
        ({"matryoshka_dims": (0,)}, "each of matryoshka_dims must be a whole number >= 1"),
    ],
)
def test_options_check_themselves(fields, words):
    with pytest.raises(ValueError, match=words):
        SentenceTransformersOptions(**fields)


def test_options_of_another_kind(data):
    with pytest.raises(TypeError, match="options must be SentenceTransformersOptions, got dict"):
        SentenceTransformersFinetuneEngine(data, options={"lora_rank": 4})


def test_a_guide_that_no_loss_asks_is_refused(engine):
    with pytest.raises(ValueError, match="guide would not be used"):
        engine({"guide": "me/model"}).finetune()


def test_a_folder_that_another_run_has_replaced_is_not_served_as_ones_own(engine):
    first, second = engine({"max_steps": 1}, accept="always"), engine({"max_steps": 1})
    first.finetune()
    second.finetune()
    with pytest.raises(ArtifactError, match="holds another run by now"):
        first.get_finetuned_model()
    assert second.get_finetuned_model()


def test_refit_is_yes_no_or_by_default():
    with pytest.raises(TypeError, match="refit must be True, False or None, got 'never'"):
        SentenceTransformersOptions(refit="never")


def test_a_text_is_no_tuple():
    with pytest.raises(TypeError, match="freeze must be a tuple, got 'embeddings'"):
        SentenceTransformersOptions(freeze="embeddings")


def test_validation_queries_that_are_trained_on_are_named(engine, data):
    rest = data.subset(list(data.queries)[:3])
    with pytest.raises(DatasetError, match="overlaps dataset") as caught:
        engine(val_dataset=rest).finetune()
    assert "'q0-0'" in str(caught.value)


def test_a_model_without_a_tokenizer(engine, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "bare")
    for file in (tmp_path / "bare").glob("*token*"):
        file.unlink()
    with pytest.raises(ArtifactError, match="bare holds no sentence-transformers model that works"):
        engine(model_id=str(tmp_path / "bare")).finetune()


def test_a_folder_without_a_model(engine, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="empty holds no sentence-transformers model"):
        engine(model_id=str(tmp_path / "empty")).finetune()


def test_dimensions_and_frozen_names_that_the_model_does_not_have(engine):
    with pytest.raises(ValueError, match="matryoshka_dims must be at most the model's 32, got 64"):
        engine({"matryoshka_dims": (64,)}).finetune()
    with pytest.raises(ValueError, match="freeze: 'nothing' matches no parameter"):
        engine({"freeze": ("nothing",)}).finetune()
    with pytest.raises(ValueError, match="precision 'fp16' needs a GPU"):
        engine({"precision": "fp16"}).finetune()
    with pytest.raises(ValueError, match="leave nothing to train"):
        engine({"freeze": (".",)}).finetune()


def test_scores_of_other_queries(engine, data):
    other = RelevanceDataset.from_labels(
        {"x": "something else"}, data.corpus, {"x": {"d0": 1.0, "d1": 0.2}}
    )
    with pytest.raises(DatasetError, match="scores holds no list of a training query"):
        engine(loss="MarginMSELoss", scores=other).finetune()


def test_a_loss_function_that_makes_none(engine):
    with pytest.raises(TypeError, match="loss gave a int for the model, not a loss"):
        engine(loss=lambda model: 3).finetune()


def test_a_folder_of_the_users_is_not_replaced(engine, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ArtifactError, match="exists and is not a saved component"):
        engine(model_output_path=tmp_path / "mine").finetune()


def test_a_full_disk_leaves_the_old_model(engine, tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformer

    engine(accept="always").finetune()
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()}
    save = SentenceTransformer.save_pretrained

    def full(self, path, **arguments):
        save(self, path, **arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SentenceTransformer, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        engine({"seed": 5}, accept="always").finetune()
    after = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()}
    assert before == after
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".out")] == []


def test_two_runs_at_once_are_refused(engine, tmp_path):
    from llama_index.tuning._files import locked

    with (
        locked(tmp_path / "out.checkpoints" / "lock", RuntimeError()),
        pytest.raises(TuningError, match="another run is at work"),
    ):
        engine().finetune()


def test_all_queries_alike(engine):
    data = RetrievalDataset(
        {f"q{i}": f"question number {i}" for i in range(20)},
        {"a": "A", "b": "B"},
        {f"q{i}": ["a"] for i in range(20)},
    )
    with pytest.raises(DatasetError, match="a model would learn to always return them"):
        engine(dataset=data).finetune()
