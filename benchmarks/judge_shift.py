"""Judges on answers unlike those they learned from.

Recalibration: a judge trained on a train split meets test answers of which another share passes.
Each draw deals the test queries into two halves, thins both to the new pass rate, recalibrates on
200 answers of the one and measures on the other, against the judge as it was.

Refusal: the share of answers that the judge finds unlike all that it learned from: of the test
split, and of the same queries and contexts with the responses of another set (pandalm's, written by
language models to other instructions).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from _data import arguments, model
from judge_quality import judgments, read, text
from scipy.special import expit, logit

from llama_index.tuning import JudgeFinetuneEngine, JudgmentDataset
from llama_index.tuning.evaluate.routing import calibration_error
from llama_index.tuning.judges.pass_rates.recalibrate import fit_scale

LABELLED = 200
RATES = (0.8, 0.5, 0.2)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--draws", type=int, default=20)
    args = parser.parse_args()
    embed_model = model()
    for name in ("halueval_qa", "halueval_general"):
        train, test = (judgments(args.data, name, split) for split in ("train", "test"))
        engine = JudgeFinetuneEngine(train, embed_model, accept="always", vector_cache=args.cache)
        engine.finetune()
        judge = engine.get_finetuned_model()
        judge._embedder.cache_path = args.cache
        learned = np.mean([item.passing for item in train.judgments])
        print(f"\n=== {name}: {len(test)} answers; {learned:.2f} of the training's pass")
        recalibration(judge, test, args.draws)
        refusal(judge, test, read(args.data, "pandalm", "test"))


def recalibration(judge, test: JudgmentDataset, draws: int) -> None:
    """Calibration error and error of the mean probability, over draws: mean and largest."""
    chances = judge.probabilities(test)
    labels = np.array([item.passing for item in test.judgments], dtype=float)
    queries = np.unique([item.query for item in test.judgments], return_inverse=True)[1]
    print(f"  {'pass rate':<11}{'measured':>9}    {'calibration error':<24}gap of the mean")
    for rate in RATES:
        found = {"as it was": [], "prior": [], "platt": []}
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            first = rng.random(queries.max() + 1) < 0.5
            known, others = (thinned(rng, labels, first[queries] == side, rate) for side in (1, 0))
            known = known[:LABELLED]
            for method, values in found.items():
                slope, shift = 1.0, 0.0
                if method != "as it was":
                    weights = np.ones(len(known))
                    slope, shift = fit_scale(chances[known], labels[known], weights, method)
                given = expit(slope * logit(chances[others]) + shift)
                gap = abs(given.mean() - labels[others].mean())
                values.append((calibration_error(given, labels[others]), gap))
        for method, values in found.items():
            (error, gap), (worst, far) = np.mean(values, axis=0), np.max(values, axis=0)
            print(
                f"  {rate:<11}{len(others):>9}    {error:.3f} (worst {worst:.3f})     "
                f"{gap:.3f} (worst {far:.3f})   {method}",
                flush=True,
            )


def refusal(judge, test: JudgmentDataset, others: list[dict]) -> None:
    """Share refused of each."""
    foreign = [
        replace(item, response=text(row["response"]))
        for item, row in zip(test.judgments, others, strict=False)
    ]
    for name, items in (("the test split", list(test.judgments)), ("foreign responses", foreign)):
        _, novel = judge.model.judged(items, judge._embedder)
        print(f"  refused of {name}: {novel.mean():.1%} of {len(items)}", flush=True)


def thinned(rng, labels: np.ndarray, inside: np.ndarray, rate: float) -> np.ndarray:
    """As many rows as there are with that pass rate, in random order."""
    passes, fails = (rng.permutation(np.flatnonzero(inside & (labels == kind))) for kind in (1, 0))
    size = min(len(passes) / rate, len(fails) / (1 - rate))
    rows = [passes[: round(size * rate)], fails[: round(size * (1 - rate))]]
    return rng.permutation(np.concatenate(rows))


if __name__ == "__main__":
    main()
