import numpy as np
import pytest
from scipy.stats import bootstrap, pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    roc_auc_score,
)

from llama_index.tuning import JudgeFinetuneEngine
from llama_index.tuning.evaluate.bootstrap import (
    auroc_of,
    calibration_error_of,
    intervals,
    mean_of,
    pearson_of,
    spearman_of,
)
from llama_index.tuning.evaluate.routing import calibration_error
from llama_index.tuning.judges import JudgeOptions, JudgeReport
from llama_index.tuning.judges.measure import agreement_measures
from tests.judges.conftest import data, verdicts

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 2, 80).astype(float)
CHANCES = np.clip(np.round(0.3 * TRUTH + RNG.random(80) * 0.7, 1), 0, 1)  # with ties
SCORES = RNG.integers(1, 6, 80).astype(float)
SAID = RNG.integers(0, 3, 80) / 2


@pytest.mark.parametrize(
    ("measure", "reference"),
    [
        (mean_of(SCORES), lambda rows: SCORES[rows].mean()),
        (auroc_of(TRUTH, CHANCES), lambda rows: roc_auc_score(TRUTH[rows], CHANCES[rows])),
        (
            calibration_error_of(CHANCES, TRUTH),
            lambda rows: calibration_error(CHANCES[rows], TRUTH[rows]),
        ),
        (pearson_of(SCORES, CHANCES), lambda rows: pearsonr(SCORES[rows], CHANCES[rows])[0]),
        (spearman_of(SCORES, CHANCES), lambda rows: spearmanr(SCORES[rows], CHANCES[rows])[0]),
    ],
)
def test_a_measure_of_a_resample_is_that_of_the_repeated_rows(measure, reference):
    often = np.random.default_rng(1).multinomial(80, np.full(80, 1 / 80), size=20)
    wanted = [reference(np.repeat(np.arange(80), times)) for times in often]
    assert measure(often.astype(float)) == pytest.approx(np.array(wanted))


def test_agreement_of_a_resample_is_scikit_learns():
    often = np.random.default_rng(2).integers(0, 3, 80)
    rows = np.repeat(np.arange(80), often)
    found = agreement_measures(TRUTH, SAID)
    pair = (2 * TRUTH[rows], 2 * SAID[rows])
    wanted = {
        "accuracy": accuracy_score(*pair),
        "kappa": cohen_kappa_score(*pair),
    }
    for name, value in wanted.items():
        assert found[name](often[None].astype(float))[0] == pytest.approx(value)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = balanced_accuracy_score(*pair)
    assert found["balanced accuracy"](often[None].astype(float))[0] == pytest.approx(balanced)


def test_intervals_of_many_rows_are_scipys_bootstrap():
    one = np.random.default_rng(4).random(500)
    other = one + np.random.default_rng(5).random(500)

    def correlation(rows):
        return pearsonr(one[rows], other[rows]).statistic

    wanted = bootstrap(
        (np.arange(500),),
        correlation,
        n_resamples=2000,
        vectorized=False,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    found = intervals({"pearson": pearson_of(one, other)}, np.arange(500))["pearson"]
    assert found == pytest.approx((wanted.low, wanted.high), abs=0.01)


def test_rows_of_one_query_are_drawn_together():
    values = np.repeat(RNG.integers(0, 2, 20), 5).astype(float)
    alone = intervals({"mean": mean_of(values)}, np.arange(100))["mean"]
    together = intervals({"mean": mean_of(values)}, np.repeat(np.arange(20), 5))["mean"]
    assert together[1] - together[0] > 1.7 * (alone[1] - alone[0])


def test_a_measure_that_is_mostly_undefined_has_no_interval():
    assert intervals({"auroc": auroc_of(np.ones(5), np.arange(5.0) / 5)}, np.arange(5)) == {}


def scored(rows, seed=0):
    rng = np.random.default_rng(seed)
    for row in rows:
        row["score"] = float(rng.integers(4, 6) if row.pop("passing") else rng.integers(1, 4))
    return rows


def test_scores_are_correlated_with_the_probability_and_with_the_teachers(tmp_path):
    options = JudgeOptions(passing_score=4, folds=3)
    people = [{**row, "source": "human"} for row in scored(verdicts(40, seed=3), seed=1)]
    val = data(scored(verdicts(40, seed=3)) + people)
    engine = JudgeFinetuneEngine(
        data(scored(verdicts(60))), val_dataset=val, options=options, accept="always"
    )
    report = engine.finetune()
    judge = engine.get_finetuned_model()
    scores = [row["score"] for row in people]
    chances = judge.probabilities(data(people))
    assert report.summary["pearson"] == pytest.approx(pearsonr(scores, chances).statistic)
    assert report.summary["spearman"] == pytest.approx(spearmanr(scores, chances).statistic)
    taught = [item.score for item in val.judgments[:40]]
    assert report.summary["teacher_pearson"] == pytest.approx(pearsonr(scores, taught).statistic)
    for name in ("accuracy", "kappa", "auroc", "calibration_error", "pearson", "teacher_spearman"):
        low, high = report.intervals[name]
        assert low < high or report.summary[name] in (0, 1), name
    low, high = report.intervals["spearman"]
    assert low < report.summary["spearman"] < high
    assert f"spearman              {report.summary['spearman']:>8.4f}   {low:.4f} to" in str(report)
    report.save_json(tmp_path / "report.json")
    assert JudgeReport.from_json(tmp_path / "report.json").intervals == report.intervals


def test_verdicts_without_a_scale_have_no_correlation(engine, pair_engine):
    yes_or_no = [{**row, "score": float(row["passing"])} for row in verdicts()]
    report = JudgeFinetuneEngine(data(yes_or_no), accept="always").finetune()
    for summary in (report.summary, engine.report.summary, pair_engine.report.summary):
        assert not {"pearson", "spearman"} & set(summary)


def test_people_and_teacher_have_intervals_as_wide_as_their_queries_are_few():
    rows = [{**row, "source": "human"} for row in verdicts(30)]
    twice = rows + [{**row, "passing": not row["passing"]} for row in rows[:15]] + rows[15:]
    report = JudgeFinetuneEngine(data(twice), accept="always").finetune()
    low, high = report.intervals["people_agreement"]
    assert report.summary["people_agreement"] == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 1.645 * (0.25 / 30) ** 0.5, abs=0.05)


def test_pairs_have_no_interval_where_nothing_can_vary(pair_engine):
    assert pair_engine.report.summary["flip_rate"] == 0
    assert "flip_rate" not in pair_engine.report.intervals
