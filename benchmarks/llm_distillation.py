"""Distillation with a filter and without: what a student learns from a teacher that errs.

    python benchmarks/llm_distillation.py [--seed 0] [--wrong 0.3] [--filters none runs gold]

A scripted teacher answers GeoQuery's training questions with SQL, a share of it wrong: half of that
the query of another question, half a query on a column that is not there. One student per filter,
from the same random weights and for the same number of steps:
    none  everything the teacher said
    runs  queries that run and find something (needs no labels)
    gold  queries that find what the gold query finds (the metric itself, as a labelled set allows)
Scored is execution accuracy on the test questions, beside the teacher's own there, which errs as
often. Prints one JSON line per student.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
from _llm import Row, geoquery, training  # noqa: E402
from llm_text_to_sql import SMALL  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from llama_index.tuning import HuggingFaceFinetuneEngine  # noqa: E402
from llama_index.tuning.llms.tasks.distil import distillation_dataset  # noqa: E402
from llama_index.tuning.llms.tasks.sql import (  # noqa: E402  # noqa: E402
    Database,
    ExecutionScorer,
    QueryFailed,
    execution_scorer,
    same_rows,
    text_to_sql_prompt,
)
from tests.generate.scripted import ScriptedLLM  # noqa: E402
from tests.llms.tiny import save_tiny  # noqa: E402


def noisy(rows: Sequence[Row], share: float, seed: int) -> dict[str, str]:
    """Question → what the teacher says; exactly this share of it is wrong."""
    draw = random.Random(seed)
    said = {row["question"]: row["sql"] for row in rows}
    others = list(said.values())
    for number, question in enumerate(draw.sample(list(said), round(share * len(said)))):
        if number % 2:
            said[question] = said[question].replace("SELECT ", "SELECT missing_column , ", 1)
        else:
            said[question] = draw.choice([sql for sql in others if sql != said[question]])
    return said


def filters(database: Database, gold: Mapping[str, str]) -> dict[str, Any]:
    """By name: functions of (prompt, answer), None for no filter."""

    def rows_of(sql: str) -> list[Any]:
        try:
            return database.run(sql)
        except QueryFailed:
            return []

    def runs(question: str, sql: str) -> bool:
        return bool(rows_of(sql))

    def finds_gold(question: str, sql: str) -> bool:
        found = rows_of(sql)
        return bool(found) and same_rows(found, database.run(gold[question]), in_order=False)

    return {"none": None, "runs": runs, "gold": finds_gold}


def student(
    said: Mapping[str, str],
    keep: Callable[[str, str], bool] | None,
    score: ExecutionScorer,
    teacher: NDArray[np.float64],
    here: Path,
    seed: int,
) -> dict[str, Any]:
    """One student: its data, and what it scores."""
    chats = distillation_dataset(list(said), ScriptedLLM(answer=said.__getitem__), keep=keep)
    texts = [text for pair in said.items() for text in pair]
    base = save_tiny(here / "random", texts, vocabulary=700, hidden=128, layers=2, seed=seed)
    options = training(learning_rate=SMALL["learning_rate"], steps=SMALL["steps"], seed=seed)
    engine = HuggingFaceFinetuneEngine(
        chats,
        base,
        model_output_path=here / "tuned",
        options=options,
        evaluate=score,
        peers={"teacher": teacher},
    )
    report = engine.finetune()
    print(report, file=sys.stderr)
    return {
        "counts": chats.counts,
        "execution_accuracy": vars(report.gains["score"]),
        "teacher as the base": vars(report.slices["teacher as the base"]["score"]),
    }


def main() -> None:
    """One student per filter; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wrong", type=float, default=0.3)
    parser.add_argument("--filters", nargs="+", default=["none", "runs", "gold"])
    given = parser.parse_args()
    folder = given.data / "geoquery"
    rows = geoquery(folder, "train", "val")
    test = geoquery(folder, "test")
    score = execution_scorer(
        test,
        folder / "db.sqlite",
        prompt=text_to_sql_prompt(schema=False),
        max_tokens=150,
    )
    said = noisy(rows, given.wrong, given.seed)
    tested = noisy(test, given.wrong, given.seed)
    teacher = score.score([tested[question] for question in score.questions])
    kinds = filters(Database(folder / "db.sqlite"), {r["question"]: r["sql"] for r in rows})
    for name in given.filters:
        with tempfile.TemporaryDirectory() as here:
            found = student(said, kinds[name], score, teacher, Path(here), given.seed)
        print(json.dumps({"filter": name, "seed": given.seed, **found}), flush=True)


if __name__ == "__main__":
    main()
