"""The encoder student on a BERT of one tiny layer."""

import copy
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from llama_index.tuning import JudgeFinetuneEngine, TunedJudge
from llama_index.tuning.errors import ArtifactError, DatasetError, MissingExtraError
from llama_index.tuning.judges import EncoderStudent, JudgeOptions
from llama_index.tuning.judges.data import judge_data_of
from llama_index.tuning.judges.encoder.model import encoder_logits, reader_of
from llama_index.tuning.judges.encoder.train import (
    choose_average,
    length_notes,
    new_encoder,
    split_queries,
    training_rows,
)
from llama_index.tuning.judges.encoder.windows import Reader
from llama_index.tuning.judges.light.features import FeatureMaker
from llama_index.tuning.judges.measure import equal_length_auroc
from llama_index.tuning.judges.records import Predictions, Rows
from llama_index.tuning.text.statistics import WordStatistics
from llama_index.tuning.text.words import Analyzer
from tests.conftest import TableEmbedding
from tests.judges.conftest import data, pairs, verdicts
from tests.tiny_bert import save_tiny_bert

ANSWER = "Granted or refused, as decided."
FILLER = "The office was open in spring and the river ran past the forest."


def decisions(count=48, seed=0, filler=1):
    """The last sentence of the contexts decides; lengths and common words say nothing."""
    rows = []
    for number in range(count):
        granted = bool(number % 2)
        said = "It was granted." if granted else "It was refused."
        rows.append(
            {
                "query": f"Request {number} of year {seed}?",
                "contexts": [FILLER] * (filler * (number % 3)) + [said],
                "response": ANSWER,
                "passing": granted,
                "source": "teacher",
            }
        )
    return rows


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    rows = [*decisions(), *verdicts(), *pairs()]
    texts = [text for row in rows for text in (row["query"], row["response"])]
    texts += [text for row in rows for text in row.get("contexts", ())]
    texts += [row["second_response"] for row in rows if "second_response" in row]
    return save_tiny_bert(tmp_path_factory.mktemp("tiny"), texts)


def student(tiny, **options):
    given = {"device": "cpu", "learning_rate": 2e-2, "max_steps": 3, **options}
    return EncoderStudent(tiny, **given)


def tuned(dataset, learner, *embed_model, **arguments):
    engine = JudgeFinetuneEngine(
        dataset, *embed_model, student=learner, **{"accept": "always", **arguments}
    )
    engine.finetune()
    return engine


@pytest.fixture(scope="session")
def reads(tiny, tmp_path_factory):
    """A judge that has learnt to read the contexts."""
    return tuned(
        data(decisions()),
        student(tiny, max_steps=120, epochs=50, learning_rate=5e-3),
        options=JudgeOptions(folds=3),
        accept="gain",
        model_output_path=tmp_path_factory.mktemp("judges") / "reads",
    )


@pytest.fixture(scope="session")
def pair_engine(tiny):
    return tuned(data(pairs(ties=8)), student(tiny, with_light=True), TableEmbedding())


def test_it_learns_what_the_shortcuts_cannot_see(reads):
    report = reads.report
    assert report.title == "judge (encoder, pointwise)"
    assert report.accepted
    assert report.gains["accuracy"].tuned == 1
    assert max(found["accuracy"] for found in report.shortcuts.values()) < 0.8
    assert report.method == "held-out queries"
    assert report.data["trained_on"] + report.data["measured"] == 48
    assert report.data["measured"] == report.gains["accuracy"].n == 12
    assert any(note.startswith("trained on 36 verdicts; 12 on other") for note in report.notes)
    losses = [entry["eval_log_loss"] for entry in report.history if "eval_log_loss" in entry]
    assert len(losses) == 2  # after 100 steps, and after the last
    assert report.options["student"]["max_steps"] == 120


def test_callbacks_and_trackers_see_the_training(tiny, tmp_path):
    from transformers import TrainerCallback

    steps = []

    class Tracker(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.append(state.global_step)

    for wrong in ({"callbacks": [5]}, {"report_to": 5}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))} must be .*, got 5"):
            tuned(data(decisions()), student(tiny, **wrong))
    learner = student(tiny, callbacks=(Tracker(),), report_to="tensorboard")
    engine = tuned(data(decisions()), learner, model_output_path=tmp_path / "judge")
    assert steps == [1, 2, 3]
    [log] = (tmp_path / "judge.tensorboard").iterdir()
    assert b"train_loss" in log.read_bytes()
    assert "callbacks" not in engine.report.options["student"]


@pytest.mark.parametrize("places", [0, 4, 12])
def test_the_end_of_long_contexts_is_read(reads, places):
    judge = reads.get_finetuned_model()
    rows = decisions(2, seed=5)
    for row in rows:
        row["contexts"] = [FILLER] * places + row["contexts"]
    refused, granted = judge.probabilities(data(rows))
    assert granted > 0.5 > refused
    found = judge.evaluate(rows[1]["query"], ANSWER, rows[1]["contexts"])
    assert found.passing
    assert found.score == pytest.approx(granted)
    assert "least supported" not in judge.evaluate("What?", "Spring.", [FILLER]).feedback


def test_a_saved_judge_answers_the_same(reads):
    folder = reads.model_output_path
    judge, loaded = reads.get_finetuned_model(), TunedJudge.load(folder, device="cpu")
    asked = data(decisions(10, seed=3, filler=4))
    assert (loaded.probabilities(asked) == judge.probabilities(asked)).all()
    assert loaded.training_keys == judge.training_keys
    assert loaded.threshold == judge.threshold
    assert loaded.model.details["accepted"]
    assert loaded.model.maker.contexts
    assert not [f for f in folder.rglob("*") if f.suffix in (".pkl", ".bin", ".pt")]
    assert str(folder.parent) not in (folder / "tuning.json").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"share": 1.0', '"share": 1.5', "share from 0 to 1"),
        ('"slope": ', '"slope": -', "slopes must be above 0"),
        ('"average"', '"avarage"', "is damaged: KeyError"),
        ('"kind": "judge_encoder"', '"kind": "judge"', "is damaged"),
    ],
)
def test_a_damaged_folder_is_refused(reads, tmp_path, old, new, message):
    reads.get_finetuned_model().save(tmp_path / "judge")
    file = tmp_path / "judge" / "tuning.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ArtifactError, match=message):
        TunedJudge.load(tmp_path / "judge")


def test_a_folder_without_its_encoder_is_refused(reads, tmp_path):
    import shutil

    reads.get_finetuned_model().save(tmp_path / "judge")
    shutil.rmtree(tmp_path / "judge" / "encoder")
    (tmp_path / "judge" / "encoder").mkdir()
    with pytest.raises(ArtifactError, match="holds no cross-encoder that loads"):
        TunedJudge.load(tmp_path / "judge")


def test_threads_do_not_get_in_each_others_way(reads):
    import asyncio

    from llama_index.core.evaluation import BatchEvalRunner

    judge = reads.get_finetuned_model()
    rows = decisions(12, seed=6, filler=3)
    found = asyncio.run(
        BatchEvalRunner({"judge": judge}, workers=6).aevaluate_response_strs(
            queries=[r["query"] for r in rows],
            response_strs=[r["response"] for r in rows],
            contexts_list=[r["contexts"] for r in rows],
        )
    )["judge"]
    assert [f.score for f in found] == pytest.approx(judge.probabilities(data(rows)).tolist())


def test_the_order_of_a_pair_cannot_matter(pair_engine):
    encoder = pair_engine.get_finetuned_model().model.encoder
    reader = Reader(lambda text: len(text.split()), 60)
    rows = pairs(20, seed=5)
    turned = [
        {**r, "response": r["second_response"], "second_response": r["response"]} for r in rows
    ]
    one, other = (encoder_logits(encoder, reader, data(r).judgments, 8) for r in (rows, turned))
    assert (one == -other).all()
    assert np.ptp(one) > 0
    judge = pair_engine.get_finetuned_model()
    chances, swapped = judge.probabilities(data(rows)), judge.probabilities(data(turned))
    assert chances == pytest.approx(1 - swapped)
    assert pair_engine.report.summary["flip_rate"] == 0
    same = judge.evaluate("What?", "The same.", second_response="The same.")
    assert (same.score, same.passing) == (0.5, None)


def test_an_average_is_saved_with_both_its_judges(pair_engine, tmp_path):
    judge = pair_engine.get_finetuned_model()
    # half and half, whatever was chosen, so that both have a say
    average = replace(judge.model.average, share=0.5)
    TunedJudge(replace(judge.model, average=average), pair_engine.embed_model).save(tmp_path / "j")
    loaded = TunedJudge.load(tmp_path / "j", pair_engine.embed_model, device="cpu")
    assert copy.deepcopy(loaded.model).average == average
    asked = data(pairs(8, seed=3))
    model = loaded.model
    reader = reader_of(model.encoder, model.maker, model.query)
    encoded = encoder_logits(model.encoder, reader, asked.judgments, model.batch_size)
    light = model.light.logits(asked.judgments, loaded._embedder)
    expected = model.rule.chances(average.logits(encoded, light))
    assert (loaded.probabilities(asked) == expected).all()
    assert np.ptp(light) > 0
    assert np.ptp(encoded) > 0
    with pytest.raises(ValueError, match="needs embed_model, the model 'table'"):
        TunedJudge.load(tmp_path / "j")


def test_validation_verdicts_are_measured_apart(tiny):
    learner = student(tiny, with_light=True)
    engine = tuned(data(decisions()), learner, val_dataset=data(decisions(20, seed=9)))
    report = engine.report
    assert report.method == "validation verdicts"
    assert (report.data["measured"], report.data["chosen_on"]) == (20, 12)
    assert "flip_rate" not in report.summary
    assert any("the encoder's weight in the average" in note for note in report.notes)


def test_the_same_seed_gives_the_same_judge(tiny):
    asked = data(decisions(8, seed=4))
    first, second = (
        tuned(data(decisions()), student(tiny)).get_finetuned_model().probabilities(asked)
        for _ in range(2)
    )
    assert (first == second).all()


def test_a_killed_run_goes_on(tiny, tmp_path, monkeypatch):
    from llama_index.tuning.judges.encoder import trainer as encoder_trainer

    asked = data(decisions(8, seed=4))
    whole = tuned(data(decisions()), student(tiny, max_steps=4, evaluation_steps=2))
    expected = whole.get_finetuned_model().probabilities(asked)
    folder = tmp_path / "checkpoints"
    learner = student(tiny, max_steps=4, evaluation_steps=2, checkpoints=folder)
    steps = []
    plain = encoder_trainer.WeightedCrossEntropy.forward

    def dies(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(encoder_trainer.WeightedCrossEntropy, "forward", dies)
    with pytest.raises(KeyboardInterrupt):
        tuned(data(decisions()), learner)
    assert (folder / "checkpoint-2").is_dir()
    monkeypatch.setattr(encoder_trainer.WeightedCrossEntropy, "forward", plain)
    again = tuned(data(decisions()), replace(learner, resume=True))
    assert (again.get_finetuned_model().probabilities(asked) == expected).all()
    assert not folder.exists()
    assert len(again.report.history) == len(whole.report.history)


def judge_data(rows):
    return judge_data_of(data(rows), JudgeOptions())


def maker():
    return FeatureMaker(Analyzer(), WordStatistics(), contexts=True)


def test_rows_are_the_window_that_supports_and_those_that_might():
    rows = decisions(4, filler=6)
    rows[1]["weight"], rows[2]["weight"] = 3.0, 1.0
    reader = Reader(lambda text: len(text.split()), 28)
    found = training_rows(judge_data(rows), maker(), reader)
    said = np.array(found["label"])
    passing = [first for first, (label, _) in zip(found["first"], said, strict=True) if label]
    assert len(passing) == 2
    assert all("It was granted." in first for first in passing)
    assert found["second"] == [ANSWER] * len(said)
    assert len(said) == 1 + 1 + 4 + 1  # two of the rows have one window, one has four and more
    assert said[:, 1].mean() == pytest.approx(1)
    failing = said[[first.startswith("Request 2") for first in found["first"]], 1]
    assert said[1, 1] == pytest.approx(3 * failing.sum())


def test_pairs_make_rows_in_both_orders():
    given = pairs(3, ties=1)
    found = training_rows(judge_data(given), maker(), Reader(lambda text: len(text.split()), 60))
    one, two = found["second"][2:4]
    assert one.split(" | ") == two.split(" | ")[::-1]
    assert [label for label, _ in found["label"]] == [0.5, 0.5, 1.0, 0.0, 0.0, 1.0]


def rows_of(labels):
    labels = np.array(labels, dtype=float)
    return Rows(
        np.zeros((len(labels), 0)), labels, np.ones(len(labels)), np.arange(len(labels)), False
    )


def test_the_average_takes_what_tells_the_verdicts_apart():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    rows = rows_of(labels)
    clear, noise = 4.0 * labels - 2 + rng.normal(size=200), rng.normal(size=200)
    assert choose_average(clear, noise, rows).share > 0.8
    assert choose_average(noise, clear, rows).share < 0.2
    one, other = (labels - 0.5 + rng.normal(size=200) for _ in range(2))
    both = choose_average(one, other, rows)
    assert 0.2 < both.share < 0.8
    # however large or small the encoder's logits come, the probabilities are the same
    assert both.logits(one, other) == pytest.approx(
        choose_average(one * 1e-3, other, rows).logits(one * 1e-3, other)
    )


def test_a_split_keeps_queries_together_and_both_kinds_on_either_side():
    given = judge_data([*decisions(40), *decisions(20)])
    inside, apart = split_queries(given, 0.25, seed=3)
    assert not set(given.clusters[inside]) & set(given.clusters[apart])
    assert len(np.unique(given.clusters[apart])) == 10
    assert given.labels[apart].mean() == pytest.approx(0.5, abs=0.1)
    assert sorted([*inside, *apart]) == list(range(60))


def test_the_report_says_where_only_the_length_was_learnt():
    rows = verdicts(40)
    for number, row in enumerate(rows):
        row["response"] += " word" * (2 * row["passing"] + number % 3)
    given = judge_data(rows)
    words = np.array([len(row["response"].split()) for row in rows], dtype=float)
    by_length = Predictions(words / 20, given.labels, words)
    assert length_notes(given, by_length)[0].endswith("most of what it knows is the length")
    right = Predictions(given.labels, given.labels, words)
    assert length_notes(given, right)[0].startswith("AUC 1.000; between answers of equally many")
    assert not length_notes(given, right)[0].endswith("the length")
    assert equal_length_auroc(given.labels, words, np.arange(40)) is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": ""}, TypeError, "model must be a name or a folder, got ''"),
        ({"model": 3}, TypeError, "model must be a name or a folder, got 3"),
        ({"epochs": 0}, ValueError, "epochs must be a whole number >= 1, got 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size must be a whole number >= 1, got 2.5"),
        ({"evaluation_steps": True}, ValueError, "evaluation_steps must be a whole number"),
        ({"learning_rate": 0}, ValueError, "learning_rate must be above 0, got 0"),
        ({"warmup": 2}, ValueError, "warmup must be between 0.0 and 1.0, got 2"),
        ({"held_out": 0.9}, ValueError, "held_out must be between 0.05 and 0.5, got 0.9"),
        ({"max_length": 8}, ValueError, "max_length must be at least 32, got 8"),
        ({"max_steps": 0}, ValueError, r"max_steps must be -1 \(no limit\) or >= 1, got 0"),
        ({"resume": True}, ValueError, "resume needs checkpoints"),
    ],
)
def test_options_check_themselves(options, error, message):
    with pytest.raises(error, match=message):
        EncoderStudent(**{"model": "bert", **options})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (decisions(12), r"verdicts held out \(held_out=0.25\) are passes; .* needs 3 of each"),
        (pairs(12, ties=11), "prefers a response; more are needed"),
    ],
)
def test_too_few_verdicts_are_refused_before_anything_is_embedded(tiny, rows, message):
    model = TableEmbedding()
    with pytest.raises(DatasetError, match=message):
        tuned(data(rows), student(tiny, with_light=True), model)
    assert not model.calls


def test_a_model_for_three_classes_gets_a_new_head(tiny, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    config = BertConfig.from_pretrained(tiny, num_labels=3)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path)
    encoder = new_encoder(student(str(tmp_path), max_length=40), seed=0)
    assert (encoder.num_labels, encoder.max_seq_length) == (1, 40)


def test_a_model_that_does_not_load_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="empty holds no cross-encoder that loads"):
        tuned(data(decisions()), EncoderStudent(tmp_path / "empty"))


def test_without_the_extra_the_install_line_is_shown(reads, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "sentence_transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    line = r"pip install 'llama-index-tuning\[sentence-transformers\]'"
    with pytest.raises(MissingExtraError, match=line):
        tuned(data(decisions()), EncoderStudent("bert"))
    with pytest.raises(MissingExtraError, match=line):
        TunedJudge.load(reads.model_output_path)


def test_an_embedding_model_without_the_light_judge_is_refused(tiny):
    with pytest.raises(ValueError, match="embed_model is of no use to the student 'encoder'"):
        JudgeFinetuneEngine(data(decisions()), TableEmbedding(), student=student(tiny))


def test_the_options_are_in_the_folder(reads):
    config = json.loads((reads.model_output_path / "tuning.json").read_text())
    assert config["kind"] == "judge_encoder"
    assert config["details"]["options"]["student"]["learning_rate"] == 5e-3
