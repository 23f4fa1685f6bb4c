"""The seam between the engine and a student, with one that is no part of the package."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from llama_index.tuning import JudgeFinetuneEngine, TunedJudge, artifacts
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges import loading as kinds
from llama_index.tuning.judges.records import DecisionRule, Predictions
from llama_index.tuning.judges.student import TrainingResult
from tests.conftest import TableEmbedding
from tests.judges.conftest import data, pairs, verdicts

KIND = "judge_by_a_word"


@dataclass(frozen=True)
class WordModel:
    maker: object
    word: str
    rule: DecisionRule = field(default_factory=DecisionRule)
    pairwise: bool = False
    query: bool = True
    base_model: str = ""
    training_keys: tuple = ()
    details: dict = field(default_factory=dict)

    def probabilities(self, items, embedder):
        return np.array([0.1 if self.word in item.response else 0.9 for item in items])

    def judged(self, items, embedder):
        return self.probabilities(items, embedder), np.zeros(len(items), bool)

    def write(self, folder):
        artifacts.write_component(folder, KIND, {"word": self.word}, {}, "")


@dataclass(frozen=True)
class WordStudent:
    """An answer with the word fails; looks at every third verdict to say how good that is."""

    word: str
    name = "word"
    libraries = ("numpy",)
    embeds = False

    def check(self, data, held_out):
        if data.pairwise:
            raise DatasetError("WordStudent judges single responses")

    def learn(self, training):
        model = WordModel(training.maker, self.word)
        rows = np.arange(0, len(training.data.items), 3)
        shown = training.data[rows] if training.held_out is None else training.held_out
        chances = model.probabilities(shown.items, None)
        verdicts_, certain = model.rule.verdicts(chances), model.rule.certainties(chances)
        return TrainingResult(
            model=model,
            predictions=Predictions(chances, verdicts_, certain),
            method="every third",
            measured=rows,
            options={"word": self.word},
            notes=["words are not meaning"],
        )


def test_a_student_is_measured_on_what_it_held_out(tmp_path, monkeypatch):
    engine = JudgeFinetuneEngine(
        data(verdicts()),
        student=WordStudent("9"),
        accept="always",
        model_output_path=tmp_path / "judge",
    )
    report = engine.finetune()
    assert report.title == "judge (word, pointwise)"
    assert report.data["measured"] == report.gains["accuracy"].n == 20
    assert report.data["trained_on"] == 60
    assert report.options["word"] == "9"
    assert report.method == "every third"
    assert report.notes[-1] == "words are not meaning"
    wrong = [row for row in verdicts()[::3] if row["passing"] == ("9" in row["response"])]
    assert report.gains["accuracy"].tuned == 1 - len(wrong) / 20
    assert report.shortcuts["most frequent verdict"]["accuracy"] == 0.5
    assert engine.get_finetuned_model().model.details["accepted"]

    monkeypatch.setitem(kinds.LOADERS, KIND, "llama_index.tuning.judges.light.model:load_word")
    monkeypatch.setattr(
        "llama_index.tuning.judges.light.model.load_word",
        lambda path, **kw: WordModel(engine.get_finetuned_model().model.maker, **kw),
        raising=False,
    )
    asked = data(verdicts(10, seed=3))
    loaded = TunedJudge.load(tmp_path / "judge", word="9")
    assert (loaded.probabilities(asked) == engine.get_finetuned_model().probabilities(asked)).all()


def test_validation_verdicts_are_another_students_too():
    engine = JudgeFinetuneEngine(
        data(verdicts()), student=WordStudent("9"), val_dataset=data(verdicts(30, seed=9))
    )
    assert engine.finetune().data["measured"] == 30


def test_a_student_refuses_before_anything_is_done():
    with pytest.raises(DatasetError, match="judges single responses"):
        JudgeFinetuneEngine(data(pairs()), student=WordStudent("9")).finetune()


def test_the_light_student_has_no_options_of_loading(tmp_path, judge):
    judge.save(tmp_path / "judge")
    with pytest.raises(TypeError, match="device"):
        TunedJudge.load(tmp_path / "judge", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"student": "heavy"}, ValueError, "unknown student 'heavy'; choose 'light', or"),
        ({"student": 3}, TypeError, "student must be 'light' or a student's options, got 3"),
        ({"student": WordStudent}, TypeError, "student must be 'light' or a student's options"),
        (
            {"student": WordStudent("9"), "embed_model": TableEmbedding()},
            ValueError,
            "embed_model is of no use to the student 'word'",
        ),
    ],
)
def test_what_is_no_student(arguments, error, message):
    with pytest.raises(error, match=message):
        JudgeFinetuneEngine(data(verdicts(20)), **arguments)


@pytest.mark.parametrize("kind", [["judge"], "router", None])
def test_a_kind_that_is_no_judge(tmp_path, judge, kind):
    judge.save(tmp_path / "judge")
    file = tmp_path / "judge" / "tuning.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "kind": kind}))
    with pytest.raises(artifacts.ArtifactError, match="not a 'judge'"):
        TunedJudge.load(tmp_path / "judge")
