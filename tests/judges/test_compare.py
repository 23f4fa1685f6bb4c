from dataclasses import replace

import numpy as np
import pytest
from llama_index.core.evaluation import FaithfulnessEvaluator
from llama_index.core.llms import MockLLM

from llama_index.tuning import JudgmentDataset, compare_versions
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError
from tests.judges.conftest import verdicts
from tests.judges.test_estimate import Scores


def versions(n, seed, gain=0.0, bias=0.0, answers=1):
    """Two versions' answers to `n` queries; the judge likes the second by `bias` too much."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=n)
    found = []
    for added in (0.0, gain):
        rows = []
        for query in range(n):
            for _ in range(answers):
                score = level[query] + rng.normal() + added
                noise = score + 0.5 * rng.normal() + (bias if added or bias else 0) * len(found)
                chance = float(np.clip(1 / (1 + np.exp(-2 * noise)), 0, 1))
                rows.append(
                    Judgment(
                        query=f"query {query}", response=f"{chance:.5f} said", passing=score > 0
                    )
                )
        found.append(rows)
    return found


def part(rows, n):
    wanted = {f"query {query}" for query in range(n)}
    return JudgmentDataset([row for row in rows if row.query in wanted])


def compared(first, second, n=0, **arguments):
    labels = {"labelled_first": part(first, n), "labelled_second": part(second, n)} if n else {}
    return compare_versions(
        Scores(), JudgmentDataset(first), JudgmentDataset(second), **labels, **arguments
    )


def test_labels_put_a_biased_judge_right_and_the_interval_covers():
    covered = judge_covered = 0
    widths = []
    for seed in range(60):
        first, second = versions(300, seed, bias=0.8)  # the versions are equally good
        found = compared(first, second, 80)
        covered += found.interval[0] <= 0 <= found.interval[1]
        low, high = found.classical_interval
        widths.append((found.interval[1] - found.interval[0]) / (high - low))
        alone = compared(first, second)
        judge_covered += alone.interval[0] <= 0 <= alone.interval[1]
    assert covered >= 53
    assert judge_covered <= 6
    assert np.mean(widths) < 0.85
    assert max(widths) <= 1.0 + 1e-12


def test_a_better_version_is_shown():
    found = compared(*versions(400, 1, gain=0.8), 100)
    assert found.shown
    assert found.difference > 0.1
    assert "a difference is shown" in str(found)
    assert (found.n, found.queries) == (100, 400)


def test_without_labels_the_interval_is_the_judges_opinion():
    found = compared(*versions(200, 1))
    assert (found.method, found.n, found.classical) == ("judge alone", 0, None)
    assert "knows nothing of the judge's own errors" in found.warnings[0]


def test_several_answers_to_a_query_count_as_one():
    first, second = versions(200, 3)
    once = compared(first, second)
    copies = compared(first * 4, second * 4)
    assert copies.interval == pytest.approx(once.interval)


def test_queries_of_one_version_alone_are_left_out():
    first, second = versions(100, 3)
    assert compared(first[:60], second[20:]).queries == 40


def test_bad_comparisons_are_refused():
    first, second = versions(100, 3)
    with pytest.raises(DatasetError, match="first and second have 5 queries in common"):
        compared(first[:50], second[45:])
    with pytest.raises(DatasetError, match="labelled_second have 3 queries in common"):
        compared(first, second, 3)
    with pytest.raises(DatasetError, match="every query is labelled"):
        compared(first, second, 100)
    with pytest.raises(ValueError, match="must be given together"):
        compare_versions(Scores(), first, second, labelled_first=JudgmentDataset(first))
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 2"):
        compared(first, second, confidence=2)
    nameless = JudgmentDataset([Judgment(response=f"0.{n} x", passing=True) for n in range(20)])
    with pytest.raises(DatasetError, match="item 0 of first has no query"):
        compare_versions(Scores(), nameless, nameless)
    with pytest.raises(TypeError, match="second must be a JudgmentDataset or a list of judgments"):
        compare_versions(Scores(), first, 3)
    with pytest.raises(TypeError, match="second must hold judgments, item 0 is a str"):
        compare_versions(Scores(), first, ["an answer"])
    with pytest.raises(DatasetError, match="first is empty"):
        compare_versions(Scores(), [], second)


def test_what_gives_no_probabilities_is_refused_by_name():
    first, second = versions(20, 3)
    message = r"judge must have probabilities\(dataset\), as a TunedJudge has, got Faithfulness"
    with pytest.raises(TypeError, match=message):
        compare_versions(FaithfulnessEvaluator(MockLLM()), first, second)

    class Odd:
        def probabilities(self, dataset):
            return [0.5] * 12 + [float("nan")] * 8

    message = "each of the 20 items of first, got nan for item 12"
    with pytest.raises(ValueError, match=message):
        compare_versions(Odd(), first, second)


def test_nothing_is_judged_before_what_is_wrong_was_found():
    class Watch(Scores):
        calls = 0

        def probabilities(self, dataset):
            Watch.calls += 1
            return super().probabilities(dataset)

    first, second = versions(100, 3)
    unlabelled = [replace(item, passing=None, score=1.0) for item in second[:20]]
    for labelled_first, labelled_second, message in (
        (first[:5], second[:5], "labelled_first and labelled_second have 5 queries in common"),
        (first, second, "every query is labelled"),
        (first[:20], unlabelled, "items of labelled_second need passing=True or False"),
    ):
        with pytest.raises(DatasetError, match=message):
            compare_versions(
                Watch(),
                first,
                second,
                labelled_first=JudgmentDataset(labelled_first),
                labelled_second=JudgmentDataset(labelled_second),
            )
    with pytest.raises(DatasetError, match="first and second have 5 queries in common"):
        compare_versions(Watch(), first[:50], second[45:])
    assert Watch.calls == 0
    compare_versions(Watch(), JudgmentDataset(first), JudgmentDataset(second))
    assert Watch.calls == 2


def test_a_tuned_judge_compares_two_versions(judge):
    rows = verdicts(200, seed=11)  # every other answer passes
    better = [{**row} for row in rows]
    for number in range(0, 80, 2):  # 40 of the 100 wrong ones become right
        word, code = rows[number]["contexts"][0].split()[3:5]
        better[number].update(response=f"The code is {word} {code}", passing=True)
    answers = [JudgmentDataset.from_records(part) for part in (rows, better)]
    drawn = np.random.default_rng(0).permutation(200)[:60]
    labels = [JudgmentDataset([part.judgments[row] for row in sorted(drawn)]) for part in answers]
    found = compare_versions(judge, *answers, labelled_first=labels[0], labelled_second=labels[1])
    assert found.method == "ppi++"
    assert found.interval[0] < 0.2 < found.interval[1]
    assert found.shown
    low, high = found.classical_interval
    assert found.interval[1] - found.interval[0] < 0.8 * (high - low)
    assert found.warnings == ()
