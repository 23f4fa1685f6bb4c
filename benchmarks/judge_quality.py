"""Judges on three public sets: how well they agree with the labels, beside the shortcuts.

halueval_qa (with context) and halueval_general (without) are trained on the train split's labels.
pandalm is trained on the LLM teacher's verdicts alone and measured against the majority of three
people; replies of the teacher that can't be read count as wrong there, and the responses that are
no texts are written as JSON. Everything is chosen by cross-fitting on the train split.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import numpy as np
from _data import arguments, model
from llama_index.core.evaluation import BatchEvalRunner

from llama_index.tuning import JudgeFinetuneEngine, JudgmentDataset, TunedJudge
from llama_index.tuning.judges.measure import equal_length_auroc

SCORES = {"A": 1.0, "B": 0.0, "tie": 0.5}
TEACHER = "gpt-3.5-turbo"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sets", default="halueval_qa,pandalm,halueval_general")
    args = parser.parse_args()
    embed_model = model()
    for name in args.sets.split(","):
        train, test = (judgments(args.data, name, split) for split in ("train", "test"))
        print(f"\n=== {name}: {len(train)} verdicts to learn from, {len(test)} to measure on")
        tune(train, test, embed_model, args.cache)


def tune(train, test, embed_model, cache) -> None:
    """Train a judge, print its report and the time it takes to judge."""
    engine = JudgeFinetuneEngine(
        train, embed_model, val_dataset=test, accept="always", vector_cache=cache
    )
    start = time.process_time()
    print(engine.finetune(), flush=True)
    print(f"  seconds: {engine.report.seconds}; {time.process_time() - start:.0f} CPU s in all")
    judge = engine.get_finetuned_model()
    judge._embedder.cache_path = cache
    if test.judgments[0].second_response is None:
        print(f"  AUC at equal length: {equal_length(judge, test)}")
    serve(judge, test.judgments[:1000])


def judgments(folder: Path, name: str, split: str) -> JudgmentDataset:
    """A split's verdicts: labels, or for pandalm the teacher's, and people's in the test split."""
    rows = read(folder, name, split)
    return pairs(rows, train=split == "train") if name == "pandalm" else answers(rows)


def read(folder: Path, name: str, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name / f"{split}.jsonl").open()]


def text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def answers(rows) -> JudgmentDataset:
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
    labels = np.array([float(item.passing) for item in data.judgments])
    words = np.array([len(item.response.split()) for item in data.judgments])
    found = equal_length_auroc(labels, judge.probabilities(data), words)
    return "no such pair" if found is None else f"{found[0]:.3f} over {found[1]} pairs"


def serve(judge, items) -> None:
    """Milliseconds a judgment: in one batch, and through BatchEvalRunner one by one."""
    started = time.perf_counter()
    judge.probabilities(items)
    batch = (time.perf_counter() - started) / len(items)
    served = judge
    if judge._embedder is not None:  # without what it remembers of the batch
        served = TunedJudge(judge.model, judge._embedder.model)
    lists = {}
    if items[0].second_response is not None:
        lists["second_response"] = [item.second_response for item in items]
    started = time.perf_counter()
    asyncio.run(
        BatchEvalRunner({"judge": served}, workers=4).aevaluate_response_strs(
            queries=[item.query for item in items],
            response_strs=[item.response for item in items],
            contexts_list=[list(item.contexts or ()) for item in items],
            **lists,
        )
    )
    runs = (time.perf_counter() - started) / len(items)
    vectors = "without vectors" if judge._embedder is None else "with cached vectors"
    print(
        f"  {len(items)} judgments: {batch * 1000:.1f} ms each in a batch {vectors}; "
        f"{runs * 1000:.1f} ms each, {runs * 1000:.1f} s per 1,000, through BatchEvalRunner, "
        "embedding what it needs"
    )


if __name__ == "__main__":
    main()
