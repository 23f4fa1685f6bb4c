import logging
import subprocess
import sys

import numpy as np
import pytest

from llama_index.tuning import JudgmentDataset, estimate_pass_rate
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.answers import item_keys
from llama_index.tuning.judges.pass_rates.estimate import pass_rate_of


def population(n, seed=0, noise=0.5, rate=0.0):
    """Labels and a judge's probabilities, calibrated or nearly so."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    labels = score + noise * rng.normal(size=n) > -rate
    return labels.astype(float), 1 / (1 + np.exp(-3 * (score + rate)))


class Scores:
    """A judge that reads its probability off the response."""

    def __init__(self, keys=()):
        self.training_keys = keys

    def probabilities(self, dataset):
        return np.array([float(item.response.split()[0]) for item in dataset.judgments])


def answers(labels, predicted, prefix="q", words=10, passing=True):
    return JudgmentDataset(
        [
            Judgment(
                query=f"{prefix} {number}",
                response=f"{chance:.6f} " + "word " * (words + number % 7),
                passing=bool(label) if passing else None,
                score=None if passing else 0.0,
            )
            for number, (label, chance) in enumerate(zip(labels, predicted, strict=True))
        ]
    )


@pytest.mark.parametrize("n", [50, 300])
def test_the_interval_covers_and_is_narrower_than_the_labels_own(n):
    covered, widths = 0, []
    for seed in range(200):
        labels, predicted = population(n + 1000, seed)
        found = pass_rate_of(labels[:n], predicted[:n], predicted[n:], two_sample=False)
        covered += found.interval[0] <= 0.5 <= found.interval[1]
        widths.append(found.half_width / found.classical_half_width)
    assert 0.91 <= covered / 200 <= 0.985
    assert np.mean(widths) < 0.75
    assert max(widths) <= 1.03


def test_a_biased_judge_is_put_right():
    labels, predicted = population(2300, noise=0.3)
    found = pass_rate_of(labels[:300], predicted[:300] ** 3, predicted[300:] ** 3)
    assert (predicted**3).mean() < 0.4
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.method == "ppi++"


def test_a_useless_judge_costs_nothing_and_is_named():
    labels, predicted = population(700)
    noise = np.random.default_rng(1).permutation(predicted)
    found = pass_rate_of(labels[:200], noise[:200], noise[200:])
    assert found.half_width <= 1.03 * found.classical_half_width
    assert any("correlate at" in text and "below 0.3" in text for text in found.warnings)
    perverse = pass_rate_of(labels[:200], 1 - predicted[:200], 1 - predicted[200:])
    assert perverse.method == "classical"
    assert perverse.interval == perverse.classical_interval


def test_few_labels_at_an_extreme_rate_are_named():
    labels, predicted = population(1060, rate=1.5)
    few = pass_rate_of(labels[:60], predicted[:60], predicted[60:])
    many = pass_rate_of(labels[:200], predicted[:200], predicted[200:])
    assert any("60 independent labels are few for a rate of 0.9" in w for w in few.warnings)
    assert many.warnings == ()


def test_a_shifted_sample_is_named_and_an_honest_one_is_not():
    labels, predicted = population(1300)
    easy = np.argsort(-predicted[:600])[:200]  # people labelled what the judge likes
    shifted = pass_rate_of(labels[easy], predicted[easy], predicted[600:])
    assert shifted.interval[0] > 0.5  # and so the estimate is wrong
    assert any("labelled and unlabelled items differ" in text for text in shifted.warnings)
    alarms = 0
    for seed in range(20):
        rows = np.random.default_rng(seed).permutation(1300)
        found = pass_rate_of(labels[rows[:100]], predicted[rows[:100]], predicted[rows[100:]])
        alarms += any("differ" in text for text in found.warnings)
    assert alarms <= 1


def test_a_shift_that_the_judge_does_not_see_shows_in_the_texts(caplog):
    labels, predicted = population(500)
    people = answers(labels[:100], predicted[:100], words=25)
    others = answers(labels[100:], predicted[100:], "other", words=10)
    with caplog.at_level(logging.WARNING):
        found = estimate_pass_rate(Scores(), others, people)
    assert any("most in words of the response" in text for text in found.warnings)
    assert "words of the response" in caplog.text


def test_labelled_items_that_the_judge_was_trained_on_are_named():
    labels, predicted = population(500)
    people = answers(labels[:100], predicted[:100])
    others = answers(labels[100:], predicted[100:], "other")
    found = estimate_pass_rate(Scores(item_keys(people)[:7]), others, people)
    assert "7 of 100 labelled items were used to train the judge" in found.warnings[0]
    assert estimate_pass_rate(Scores(), others, people).warnings == ()


def test_answers_to_one_query_count_as_one():
    labels, predicted = population(900)
    people = answers(labels[:100], predicted[:100])
    others = answers(labels[100:], predicted[100:], "other")
    once = estimate_pass_rate(Scores(), others, people)
    copies = JudgmentDataset(people.judgments * 2)
    twice = estimate_pass_rate(Scores(), others, copies)
    assert twice.n == 200
    assert twice.half_width == pytest.approx(once.half_width, rel=0.02)
    assert twice.effective_n == pytest.approx(once.effective_n, rel=0.03)


def test_cross_fitting_covers_where_training_on_the_labels_does_not():
    class Nearest:
        """Remembers its training items: right on them, a coin elsewhere."""

        def __init__(self, dataset):
            self.known = {j.query: float(j.passing) for j in dataset.judgments}

        def probabilities(self, dataset):
            guesses = [0.25 + 0.1 * (len(j.response) % 2) for j in dataset.judgments]
            return np.array(
                [
                    self.known.get(j.query, g)
                    for j, g in zip(dataset.judgments, guesses, strict=True)
                ]
            )

    covered = {"fitted": 0, "cross-fitted": 0}
    for seed in range(16):
        labels, predicted = population(260, seed)
        people = answers(labels[:60], predicted[:60], f"mine {seed}")
        others = answers(labels[60:], predicted[60:], f"other {seed}")
        fitted = estimate_pass_rate(Nearest(people), others, people)
        crossed = estimate_pass_rate(None, others, people, train=Nearest)
        for name, found in (("fitted", fitted), ("cross-fitted", crossed)):
            covered[name] += found.interval[0] <= 0.5 <= found.interval[1]
    assert covered["cross-fitted"] >= 13
    assert covered["fitted"] <= 4


def test_cross_fitting_never_shows_a_query_to_the_judge_that_scores_it():
    seen = []

    class Watch:
        def __init__(self, dataset):
            self.queries = {j.query for j in dataset.judgments}

        def probabilities(self, dataset):
            asked = {j.query for j in dataset.judgments}
            seen.append((len(asked), bool(asked & self.queries)))
            return np.full(len(dataset.judgments), 0.5)

    labels, predicted = population(100)
    people = answers(labels[:40], predicted[:40])
    people = JudgmentDataset(people.judgments + people.judgments)
    others = answers(labels[40:], predicted[40:], "other")
    estimate_pass_rate(None, others, people, train=Watch, folds=4)
    assert len(seen) == 8
    assert not any(overlap for _, overlap in seen)


def test_the_result_prints_and_becomes_json():
    labels, predicted = population(1100)
    found = pass_rate_of(labels[:100], predicted[:100], predicted[100:])
    assert "100 labels, 1000 items judged" in str(found)
    assert f"as good as {found.effective_n:.0f} labels" in str(found)
    assert found.to_dict()["interval"] == found.interval


LABELS, PREDICTED = population(60)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"labels": LABELS[:9], "predicted": PREDICTED[:9]},
            "labels must be a list of at least 10",
        ),
        ({"labels": LABELS[:20]}, "20 labels were given with 60 predicted"),
        ({"labels": np.where(LABELS == 1, 5, 1)}, "must be from 0 to 1, got 5"),
        ({"predicted": np.full(60, np.nan)}, r"predicted\[0\] must be from 0 to 1, got nan"),
        ({"unlabelled": []}, "unlabelled must be a list of at least 1"),
        ({"unlabelled": [[0.5]]}, r"unlabelled must be a list of at least 1, got shape \(1, 1\)"),
        ({"confidence": 95}, "confidence must be between 0 and 1, got 95"),
        ({"features": np.ones((60, 2))}, "must be given together"),
        (
            {"features": np.ones((60, 2)), "unlabelled_features": np.ones((3, 2))},
            "features must have one row for each item",
        ),
    ],
)
def test_bad_arrays_are_refused(change, words):
    arguments = {"labels": LABELS, "predicted": PREDICTED, "unlabelled": PREDICTED, **change}
    with pytest.raises(ValueError, match=words):
        pass_rate_of(**arguments)


def test_bad_arguments_are_refused():
    people = answers(LABELS, PREDICTED)
    others = answers(LABELS, PREDICTED, "other")
    with pytest.raises(ValueError, match="give either a judge or train="):
        estimate_pass_rate(None, others, people)
    with pytest.raises(ValueError, match="either a judge or train="):
        estimate_pass_rate(Scores(), others, people, train=Scores)
    with pytest.raises(TypeError, match="train must be a function"):
        estimate_pass_rate(None, others, people, train=3)
    with pytest.raises(TypeError, match=r"judge must have probabilities\(dataset\), as .* got str"):
        estimate_pass_rate("gpt-4", others, people)
    with pytest.raises(ValueError, match="folds must be a whole number >= 2, got 1"):
        estimate_pass_rate(Scores(), others, people, folds=1)
    three = JudgmentDataset(people.judgments[:3] * 4)
    with pytest.raises(DatasetError, match="5 folds need as many"):
        estimate_pass_rate(None, others, three, train=Scores)
    with pytest.raises(DatasetError, match="judgment 0 has no passing verdict"):
        estimate_pass_rate(Scores(), others, answers(LABELS, PREDICTED, passing=False))
    with pytest.raises(TypeError, match="unlabelled must be a JudgmentDataset or a list of judg"):
        estimate_pass_rate(Scores(), 3, people)

    class Odd:
        def probabilities(self, dataset):
            return np.full(len(dataset.judgments), 1.5)

    with pytest.raises(ValueError, match=r"for each of the 60 items of labelled, got 1\.5"):
        estimate_pass_rate(Odd(), others, people)


def test_without_the_extra_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['ppi_py'] = None\n"
        "from llama_index.tuning.judges.pass_rates.estimate import pass_rate_of\n"
        "y = [0, 1] * 10; p = [0.2, 0.6] * 10\n"
        "try: pass_rate_of(y, p, p)\n"
        "except ImportError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "estimating a pass rate needs ppi-python" in done.stdout
    assert "llama-index-tuning[judges]" in done.stdout


@pytest.mark.parametrize(
    ("count", "confidence", "said"),
    [(3, 0.95, "labelled must hold at least 10 items, got 3"), (20, 1.5, "confidence must be")],
)
def test_what_cannot_give_a_rate_is_refused_before_the_judge_is_asked(count, confidence, said):
    rows = [{"query": f"q{i}", "response": "r", "passing": i % 2 == 0} for i in range(60)]
    asked = []

    class Judge:
        def probabilities(self, dataset):
            asked.append(len(dataset.judgments))
            return [0.5] * len(dataset.judgments)

    labelled = JudgmentDataset.from_records(rows[:count])
    others = JudgmentDataset.from_records(rows[count:])
    with pytest.raises(ValueError, match=said):
        estimate_pass_rate(Judge(), others, labelled, confidence=confidence)
    assert asked == []


def test_the_warning_of_few_labels_names_low_rates_too():
    found = pass_rate_of([0] * 30, [0.3, 0.7] * 15, [0.3, 0.7] * 30)
    assert any("rates below 0.2 or beyond 0.8" in text for text in found.warnings)
