import numpy as np
import pytest

from llama_index.tuning import JudgmentDataset, compare_versions
from llama_index.tuning.datasets.judgments import Judgment
from llama_index.tuning.errors import DatasetError
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
    with pytest.raises(DatasetError, match="an item has no query"):
        compare_versions(Scores(), nameless, nameless)
