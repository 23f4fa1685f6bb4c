"""SetFit on the draws of router_quality.py. Runs alone: setfit needs an older transformers.

The model's folder is what `python -c "from llama_index.tuning.demo import minilm;
print(minilm().model_name)"` prints.

    pip install setfit "transformers<5" scikit-learn
    python benchmarks/router_setfit.py --model FOLDER --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.metrics import f1_score


def rows(path: Path, names: list[str]) -> tuple[list[str], np.ndarray]:
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [row["query"] for row in found], np.array([names.index(row["label"]) for row in found])


def drawn(labels: np.ndarray, choices: int, count: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)  # as `shots` in _routing.py
    own = [draw.permutation(np.flatnonzero(labels == choice))[:count] for choice in range(choices)]
    return np.sort(np.concatenate(own))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--set", default="banking77")
    parser.add_argument("--shots", nargs="+", type=int, default=[3, 10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of the contrastive phase")
    parser.add_argument("--described", action="store_true", help="descriptions are examples too")
    args = parser.parse_args()
    folder = args.data / args.set
    choices = json.loads((folder / "labels.json").read_text("utf-8"))
    names = list(choices)
    queries, labels = rows(folder / "train.jsonl", names)
    asked, truth = rows(folder / "test.jsonl", names)
    for count in args.shots:
        for seed in args.seeds:
            kept = drawn(labels, len(names), count, seed)
            texts, own = [queries[row] for row in kept], labels[kept].tolist()
            if args.described:
                texts, own = texts + list(choices.values()), own + list(range(len(names)))
            began = time.process_time()
            model = SetFitModel.from_pretrained(args.model)
            data = Dataset.from_dict({"text": texts, "label": own})
            with tempfile.TemporaryDirectory() as out:
                options = TrainingArguments(
                    output_dir=out, max_steps=args.steps, seed=seed, report_to="none"
                )
                Trainer(model=model, args=options, train_dataset=data).train()
            found = np.array(model.predict(asked, as_numpy=True))
            score = f1_score(truth, found, average="macro") * 100
            print(
                f"{args.set} {count} shots, seed {seed}, descriptions {args.described}: accuracy "
                f"{(found == truth).mean() * 100:.1f}, macro-F1 {score:.1f}, "
                f"{time.process_time() - began:.0f} s CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
