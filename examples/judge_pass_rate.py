"""How often do the app's answers pass? A rough judge on all of them, people on a hundred."""

import random

from llama_index.tuning import JudgmentDataset, compare_versions, estimate_pass_rate

random.seed(0)


def answers(version: str, fail: float) -> list[dict]:
    """An app's answers to 1,000 questions; those that fail tend to hedge."""
    rows = []
    for number in range(1000):
        passing = random.random() > fail
        hedged = random.random() < (0.15 if passing else 0.8)
        text = "It depends, please ask support." if hedged else "The fee is 5 euros."
        rows.append({"query": f"{version} question {number}", "response": text, "passing": passing})
    return rows


class HedgeJudge:
    """Stands in for a tuned judge: anything with `probabilities(dataset)`."""

    def probabilities(self, dataset: JudgmentDataset) -> list[float]:
        return [0.5 if "depends" in item.response else 0.95 for item in dataset.judgments]


rows = answers("any", fail=0.3)
people = JudgmentDataset.from_records(rows[:100])  # a random sample: the questions have no order
others = JudgmentDataset.from_records(rows[100:])  # their verdicts are not looked at
rate = estimate_pass_rate(HedgeJudge(), others, people)
print(rate)
print(f"true rate of these 1,000: {sum(row['passing'] for row in rows) / 1000:.3f}\n")

better = answers("any", fail=0.15)
labels = {
    "labelled_first": people,
    "labelled_second": JudgmentDataset.from_records(better[:100]),
}
first, second = JudgmentDataset.from_records(rows), JudgmentDataset.from_records(better)
print(compare_versions(HedgeJudge(), first, second, **labels))
