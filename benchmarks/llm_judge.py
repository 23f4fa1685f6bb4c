"""An LLM tuned to judge, SmolLM2-135M with LoRA, beside the light judge on the same verdicts.

    python benchmarks/llm_judge.py [--sets halueval_qa …] [--train 300] [--test 120] [--rate 1e-3]
        [--epochs 1] [--seed 0] [--without-untuned]

Both learn from the same rows of the train split and are measured on the same rows of the test
split, whole queries; the light judge also from all rows. halueval_general is learnt from as many
of either kind. pandalm is learnt from an LLM's verdicts and measured against people, a request for
each pair. Prints a JSON line for each set.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _data import arguments, model
from judge_quality import SCORES, answers, read, text
from llama_index.core.evaluation import (
    CorrectnessEvaluator,
    PairwiseComparisonEvaluator,
    RelevancyEvaluator,
)
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llm_pretrained import Clock

from llama_index.tuning import HuggingFaceFinetuneEngine, JudgeFinetuneEngine, JudgmentDataset
from llama_index.tuning.demo import smollm2_folder
from llama_index.tuning.judges import judge_rows
from llama_index.tuning.judges.llm.asking import evaluate_all
from llama_index.tuning.judges.llm.verdicts import _read
from llama_index.tuning.judges.measure import agreement_gains
from llama_index.tuning.llms import HuggingFaceOptions

FORMS = {
    "halueval_qa": RelevancyEvaluator(
        llm=MockLLM(),
        eval_template=PromptTemplate(
            "{context_str}\n\n{query_str}\n\nIs the response right by the text? YES or NO: "
        ),
    ),
    "halueval_general": CorrectnessEvaluator(
        llm=MockLLM(),
        eval_template=PromptTemplate(
            "{query}\n\nResponse: {generated_answer}\n\nIs all of it true? 5 (yes) or 1 (no): "
        ),
        parser_function=lambda said: (5.0 if "5" in said else 1.0 if "1" in said else None, said),
    ),
    "pandalm": PairwiseComparisonEvaluator(
        llm=MockLLM(),
        enforce_consensus=False,
        eval_template=ChatPromptTemplate.from_messages(
            [
                (
                    "user",
                    "{query}\n\nA: {answer_1}\n\nB: {answer_2}\n\n{reference}"
                    "Which is better: [[A]], [[B]] or neither, [[C]]?",
                )
            ]
        ),
    ),
}


def pairs(rows: list[dict[str, Any]], train: bool) -> JudgmentDataset:
    """The LLM's verdicts, where one can be read, to learn from; people's to measure against."""
    said = "teacher_label" if train else "label"
    return JudgmentDataset.from_records(
        {
            "query": row["query"],
            "response": text(row["response"]),
            "second_response": text(row["response_b"]),
            "score": SCORES[row[said]],
            "source": "label",
        }
        for row in rows
        if row[said] is not None and row["response"] and row["response_b"]
    )


def some(
    rows: list[dict[str, Any]], number: int, draw: random.Random, even: bool
) -> list[dict[str, Any]]:
    """About so many of the rows, whole queries; even: as many of either label."""
    if even:
        labels = sorted({row["label"] for row in rows})
        parts = [[row for row in rows if row["label"] == label] for label in labels]
        return [row for part in parts for row in some(part, number // len(parts), draw, False)]
    queries = list(dict.fromkeys(row["query"] for row in rows))
    draw.shuffle(queries)
    found: list[dict[str, Any]] = []
    for query in queries:
        if len(found) < number:
            found += [row for row in rows if row["query"] == query]
    return found


def light(train: JudgmentDataset, test: JudgmentDataset, given: Any) -> tuple[Any, float]:
    """The light judge's verdicts on the test rows, and CPU seconds of training."""
    began = time.process_time()
    engine = JudgeFinetuneEngine(train, model(), accept="always", vector_cache=given.cache)
    engine.finetune()
    seconds = time.process_time() - began
    judge = engine.get_finetuned_model()
    return judge.model.rule.verdicts(judge.probabilities(test)), round(seconds, 1)


def one(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """A set's line."""
    draw = random.Random(given.seed)
    is_pair = name == "pandalm"
    make, form = pairs if is_pair else answers, FORMS[name]
    all_rows = read(given.data, name, "train")
    number = given.train // (1 + is_pair)  # a pair is learnt in both orders
    train = make(some(all_rows, number, draw, name == "halueval_general"), train=True)
    test = make(some(read(given.data, name, "test"), given.test, draw, False), train=False)
    items = test.judgments
    truth = np.array([float(i.passing) if i.score is None else i.score for i in items])
    queries = {query: n for n, query in enumerate(dict.fromkeys(i.query for i in items))}
    clusters = np.array([queries[item.query] for item in items])
    runs: list[Any] = []  # of the base, then of the tuned one
    seconds: list[float] = []

    def evaluate(llm: Any) -> Any:
        llm.max_new_tokens = 12  # the untuned one would go on and on
        began = time.process_time()
        runs.append(_read(form, evaluate_all(form, items, llm), is_pair, None))
        seconds.append(time.process_time() - began)
        return (runs[-1].values == truth).astype(float)

    told = (lambda item: "5" if item.passing else "1") if name == "halueval_general" else None
    rows = judge_rows(train, form, context_window=2048, answer=told)
    options = HuggingFaceOptions(
        device="cpu",
        batch_size=given.batch,
        epochs=given.epochs,
        learning_rate=given.rate,
        held_out=0.02,
        seed=given.seed,
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as here:
        engine = HuggingFaceFinetuneEngine(
            rows.chats,
            smollm2_folder(),
            model_output_path=Path(here) / "tuned",
            options=options,
            evaluate=None if given.without_untuned else evaluate,
            accept="always",
            callbacks=[clock],
        )
        engine.finetune()
        if given.without_untuned:
            evaluate(engine.get_finetuned_model())
    tuned = runs[-1]
    line: dict[str, Any] = {
        "set": name,
        "train": len(train),
        "test": len(test),
        "rate": given.rate,
        "epochs": given.epochs,
        "no_verdict": [said.missing for said in runs],
        "said": dict(Counter(tuned.values.tolist())),
        "cpu_seconds": round(clock.seconds),
        "ms_a_verdict": round(1000 * seconds[-1] / len(items)),
    }
    print(json.dumps(line), file=sys.stderr, flush=True)  # the rest may be stopped
    every_row = make(all_rows, train=True)
    same, line["light_cpu_seconds"] = light(train, test, given)
    every, line["light_all_cpu_seconds"] = light(every_row, test, given)
    line["all"] = len(every_row)
    others = {"light": same, "light, all rows": every}
    if not given.without_untuned:
        others["untuned"] = runs[0].values
    others["most frequent"] = np.full(len(items), Counter(truth.tolist()).most_common(1)[0][0])
    for other, verdicts in others.items():
        for measure, gain in agreement_gains(truth, verdicts, tuned.values, clusters).items():
            line[measure] = gain.tuned
            line[f"{other}: {measure}"] = [gain.base, gain.mean, gain.low, gain.high]
    return line


def main() -> None:
    """Train and measure; print JSON lines."""
    parser = arguments(__doc__)
    parser.add_argument("--sets", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--train", type=int, default=300)
    parser.add_argument("--test", type=int, default=120)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-untuned", action="store_true")
    given = parser.parse_args()
    given.cache.parent.mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        print(json.dumps(one(name, given)), flush=True)


if __name__ == "__main__":
    main()
