"""Light judges on three public sets: how well they agree with the labels, beside the shortcuts.

halueval_qa (with context) and halueval_general (without) are trained on the train split's labels.
pandalm is trained on the LLM teacher's verdicts alone and measured against the majority of three
people; replies of the teacher that can't be read count as wrong there, and the responses that are
no texts are written as JSON. Everything is chosen by cross-fitting
on the train split.
"""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np
from _data import arguments, model
from llama_index.core.evaluation import BatchEvalRunner
from sklearn.metrics import roc_auc_score

from llama_index.tuning import JudgeFinetuneEngine, JudgmentDataset

SCORES = {"A": 1.0, "B": 0.0, "tie": 0.5}
TEACHER = "gpt-3.5-turbo"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sets", default="halueval_qa,pandalm,halueval_general")
    args = parser.parse_args()
    embed_model = model()
    for name in args.sets.split(","):
        rows = {split: read(args.data, name, split) for split in ("train", "test")}
        make = pairs if name == "pandalm" else answers
        train, test = make(rows["train"], train=True), make(rows["test"], train=False)
        engine = JudgeFinetuneEngine(
            train, embed_model, val_dataset=test, accept="always", vector_cache=args.cache
        )
        print(f"\n=== {name}: {len(train)} verdicts to learn from, {len(test)} to measure on")
        print(engine.finetune(), flush=True)
        print(f"  seconds: {engine.report.seconds}")
        judge = engine.get_finetuned_model()
        judge._embedder.cache_path = args.cache
        if name == "halueval_qa":
            print(f"  AUC at equal length: {equal_length(judge, test)}")
        serve(judge, test.judgments[:200])


def read(folder, name, split) -> list[dict]:
    return [json.loads(line) for line in (folder / name / f"{split}.jsonl").open()]


def text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def answers(rows, train) -> JudgmentDataset:
    return JudgmentDataset.from_records(
        {
            "query": row["query"],
            "contexts": [row["context"]] if "context" in row else None,
            "response": text(row["response"]),
            "passing": row["label"] == "faithful",
            "source": "label",
        }
        for row in rows
    )


def pairs(rows, train) -> JudgmentDataset:
    """The teacher's verdicts; of the test split people's too."""
    found = []
    odd = sum(not isinstance(row[key], str) for row in rows for key in ("response", "response_b"))
    print(f"pandalm: {odd} responses of {2 * len(rows)} are no texts")
    for row in rows:
        pair = {
            "query": row["query"],
            "response": text(row["response"]),
            "second_response": text(row["response_b"]),
        }
        said = row["teacher_label"]
        verdict = {"invalid": True} if said is None else {"score": SCORES[said]}
        found.append({**pair, **verdict, "source": TEACHER})
        if not train:
            found.append({**pair, "score": SCORES[row["label"]], "source": "human"})
    return JudgmentDataset.from_records(found)


def equal_length(judge, data) -> str:
    """Of a right and a wrong answer with equally many words, how often the right one is higher."""
    chances = judge.probabilities(data)
    labels = np.array([item.passing for item in data.judgments])
    words = np.array([len(item.response.split()) for item in data.judgments])
    won = total = 0.0
    for count in np.unique(words):
        here = words == count
        right, wrong = labels[here].sum(), (~labels[here]).sum()
        if right and wrong:
            won += roc_auc_score(labels[here], chances[here]) * right * wrong
            total += right * wrong
    return f"{won / total:.3f} over {total:.0f} pairs"


def serve(judge, items) -> None:
    """Milliseconds a judgment: features alone in one batch, and all through BatchEvalRunner."""
    started = time.perf_counter()
    judge.probabilities(items)
    batch = time.perf_counter() - started
    judge._embedder.cache_path = None
    runner = BatchEvalRunner({"judge": judge}, workers=4)
    lists = {}
    if items[0].second_response is not None:
        lists["second_response"] = [item.second_response for item in items[:50]]
    started = time.perf_counter()
    asyncio.run(
        runner.aevaluate_response_strs(
            queries=[item.query for item in items[:50]],
            response_strs=[item.response for item in items[:50]],
            contexts_list=[list(item.contexts or ()) for item in items[:50]],
            **lists,
        )
    )
    runs = time.perf_counter() - started
    print(
        f"  ms a judgment: {batch / len(items) * 1000:.1f} in a batch with cached vectors, ", end=""
    )
    print(f"{runs / 50 * 1000:.1f} through BatchEvalRunner, embedding each text")


if __name__ == "__main__":
    main()
