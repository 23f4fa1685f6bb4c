import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save
from scipy.special import expit, logit
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from llama_index.tuning import JudgeFinetuneEngine, TunedJudge
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.judges import JudgeOptions
from llama_index.tuning.judges.answers import item_keys
from llama_index.tuning.judges.light.features import FeatureMaker
from llama_index.tuning.judges.light.fit import choose_band, choose_threshold
from llama_index.tuning.judges.measure import agreement_gains
from llama_index.tuning.judges.records import DecisionRule, Rows
from llama_index.tuning.text.statistics import WordStatistics
from llama_index.tuning.text.words import Analyzer
from tests.conftest import TableEmbedding
from tests.judges.conftest import data, pairs, verdicts


def maker(**flags):
    return FeatureMaker(Analyzer(), WordStatistics(), **flags)


def rows(chances, labels, pairwise=False):
    labels = np.array(labels, dtype=float)
    return Rows(
        np.array(chances)[:, None], labels, np.ones(len(labels)), np.arange(len(labels)), pairwise
    )


@pytest.mark.parametrize(
    ("response", "column", "value"),
    [
        ("The fee is 5 euros.", "overlap: words in the contexts", 1),
        ("It costs 9 dollars.", "overlap: words in the contexts", 0),
        ("The fee is 9 euros.", "support: numbers of neither", np.log(2)),
        ("the fee is 5 euros", "support: verbatim", 1),
        ("Fee: 5 euros. Elephants dance.", "support: weakest sentence", 0),
        ("费用很高。", "overlap: words in the contexts", 0),
    ],
)
def test_support_by_the_contexts(response, column, value):
    from types import SimpleNamespace

    item = SimpleNamespace(
        query="Fee?",
        contexts=["The fee is 5 euros."],
        response=response,
        second_response=None,
        reference=None,
    )
    made = maker(contexts=True)
    assert made.table([item])[0, made.columns.index(column)] == pytest.approx(value)


def test_the_threshold_is_halfway_between_the_mean_logits():
    given = rows([0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1])
    found = choose_threshold(given.table[:, 0], given, JudgeOptions())
    means = logit([0.1, 0.2]).mean(), logit([0.6, 0.9]).mean()
    assert found == pytest.approx(expit(np.mean(means)))


def test_the_threshold_does_not_depend_on_how_many_pass():
    chances, labels = [0.1, 0.4, 0.3, 0.8], [0, 0, 1, 1]
    few, many = rows(chances, labels), rows(chances + [0.3, 0.8] * 20, labels + [1, 1] * 20)
    one, other = (choose_threshold(r.table[:, 0], r, JudgeOptions()) for r in (few, many))
    assert one == pytest.approx(other)


def test_answers_as_far_from_the_line_in_logits_are_as_certain():
    rule = DecisionRule(threshold=0.1)
    odds = logit(0.1) + np.array([-2.0, 2.0, 0.0, 1.0])
    assert rule.certainties(expit(odds)) == pytest.approx([2, 2, 0, 1])
    assert np.isfinite(rule.certainties(np.array([0.0, 1.0]))).all()
    pair = DecisionRule(band=0.2)
    assert pair.certainties(np.array([0.7, 0.3, 0.5])) == pytest.approx([0, 0, logit(0.7)])


def test_a_threshold_for_precision_passes_as_many_as_it_may():
    given = rows([0.1, 0.3, 0.5, 0.7, 0.9], [0, 1, 0, 1, 1])
    options = JudgeOptions(target="precision", target_precision=0.75)
    assert choose_threshold(given.table[:, 0], given, options) == pytest.approx(0.2)
    strict = JudgeOptions(target="precision", target_precision=1)
    assert choose_threshold(given.table[:, 0], given, strict) == pytest.approx(0.6)


def test_a_threshold_for_accuracy_may_pass_nothing():
    given = rows([0.4, 0.5, 0.6], [1, 0, 0])
    assert choose_threshold(given.table[:, 0], given, JudgeOptions(target="accuracy")) == 1.0


def test_the_band_of_ties_is_chosen_for_accuracy():
    given = rows([0.05, 0.49, 0.52, 0.9], [0, 0.5, 0.5, 1], pairwise=True)
    assert choose_band(given.table[:, 0], given) == pytest.approx(0.02)


def test_agreement_is_scikit_learns():
    rng = np.random.default_rng(0)
    truth, base, tuned = rng.integers(0, 3, (3, 200)) / 2
    found = agreement_gains(truth, base, tuned, np.arange(200) // 2)
    for verdicts_, side in ((base, "base"), (tuned, "tuned")):
        pair = (2 * truth, 2 * verdicts_)
        assert getattr(found["kappa"], side) == pytest.approx(cohen_kappa_score(*pair))
        assert getattr(found["balanced accuracy"], side) == pytest.approx(
            balanced_accuracy_score(*pair)
        )
    assert found["accuracy"].n == 100
    assert found["accuracy"].low < found["accuracy"].mean < found["accuracy"].high


def test_several_verdicts_on_a_query_widen_the_interval():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.integers(0, 2, 40), 10).astype(float)
    truth, base = np.ones(400), np.tile([1.0, 0.0], 200)
    alone = agreement_gains(truth, base, right, np.arange(400))["accuracy"]
    clustered = agreement_gains(truth, base, right, np.arange(400) // 10)["accuracy"]
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)


def test_the_order_of_a_pair_cannot_matter(pair_judge, pair_engine):
    asked = data(pairs(20, seed=5))
    turned = [
        {**r, "response": r["second_response"], "second_response": r["response"]}
        for r in pairs(20, seed=5)
    ]
    chances, other = pair_judge.probabilities(asked), pair_judge.probabilities(data(turned))
    assert chances == pytest.approx(1 - other)
    assert np.ptp(chances) > 0.1
    assert pair_engine.report.summary["flip_rate"] == 0


@pytest.mark.parametrize("embedded", [False, True])
def test_a_saved_judge_answers_the_same(tmp_path, embedded):
    model = TableEmbedding() if embedded else None
    engine = JudgeFinetuneEngine(
        data(verdicts()), model, accept="always", model_output_path=tmp_path / "judge"
    )
    engine.finetune()
    judge = engine.get_finetuned_model()
    loaded = TunedJudge.load(tmp_path / "judge", model)
    asked = data(verdicts(20, seed=3))
    assert (loaded.probabilities(asked) == judge.probabilities(asked)).all()
    assert set(loaded.training_keys) == set(item_keys(engine.dataset))
    assert loaded.threshold == judge.threshold
    judge.save(tmp_path / "judge")  # replaces
    assert not list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"kind": "judge"', '"kind": "router"', "not a 'judge'"),
        ('"style: rarity"', '"style: other"', "another version"),
        ('"bias"', '"bais"', "damaged"),
        ('"slope": ', '"slope": -', "must be above 0"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path, judge, old, new, message):
    judge.save(tmp_path / "judge")
    file = tmp_path / "judge" / "tuning.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ArtifactError, match=message):
        TunedJudge.load(tmp_path / "judge")


@pytest.mark.parametrize("kind", [["judge"], "router", None])
def test_a_kind_that_is_no_judge(tmp_path, judge, kind):
    judge.save(tmp_path / "judge")
    file = tmp_path / "judge" / "tuning.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "kind": kind}))
    with pytest.raises(ArtifactError, match="not a 'judge'"):
        TunedJudge.load(tmp_path / "judge")


def test_weights_with_their_signs_turned_are_refused(tmp_path, judge):
    judge.save(tmp_path / "judge")
    file = tmp_path / "judge" / "model.safetensors"
    file.write_bytes(save({n: -a if n == "weight" else a for n, a in load_file(file).items()}))
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not what was saved"):
        TunedJudge.load(tmp_path / "judge")


def test_a_judge_is_refused_by_another_embedding_model(tmp_path):
    class Other(TableEmbedding):
        def _get_text_embedding(self, text):
            return [number * (-1) ** place for place, number in enumerate(self.vector(text))]

        def _get_text_embeddings(self, texts):
            return [self._get_text_embedding(text) for text in texts]

    engine = JudgeFinetuneEngine(
        data(verdicts()), TableEmbedding(), accept="always", model_output_path=tmp_path / "judge"
    )
    engine.finetune()
    assert TunedJudge.load(tmp_path / "judge", TableEmbedding())
    with pytest.raises(ArtifactError, match="was tuned on other vectors"):
        TunedJudge.load(tmp_path / "judge", Other())


def test_serving_imports_no_training_library(tmp_path, judge):
    judge.save(tmp_path / "judge")
    code = (
        "import sys; from llama_index.tuning import TunedJudge\n"
        f"judge = TunedJudge.load({str(tmp_path / 'judge')!r})\n"
        "print(judge.evaluate('Fee?', 'It is 5.', ['Fee: 5']).score)\n"
        "print(*{'torch', 'sklearn', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[1:] == ["", ""]


def test_verdicts_of_several_evaluators_are_told(caplog):
    rows = verdicts(20, judge="FaithfulnessEvaluator")
    other = verdicts(20, judge="RelevancyEvaluator")
    options = JudgeOptions(folds=3)
    report = JudgeFinetuneEngine(data(rows), options=options).finetune()
    assert "several evaluators" not in str(report)
    report = JudgeFinetuneEngine(data([*rows, *other]), options=options).finetune()
    assert "(FaithfulnessEvaluator 20, RelevancyEvaluator 20)" in str(report)
    assert "this judge learns a mixture" in caplog.text
