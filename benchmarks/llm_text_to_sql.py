"""Text-to-SQL end to end: a tiny model from random weights, scored by what its queries find.

    python benchmarks/llm_text_to_sql.py [--seeds 0 1 2] [--large]

GeoQuery's standard question split. A Llama of 0.5 million parameters (1.5 with `--large`) learns
the training questions and is scored on the test questions. In the same run: copying the query of
the nearest training question (TF-IDF), and the same with the question's own entity put in, each
with a paired interval of the model's gain over it.
Questions with an empty gold result are left out. One question goes through
`NLSQLTableQueryEngine`. Prints JSON, one object per seed and the baselines.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
from _llm import Row, geoquery, training  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from llama_index.tuning import HuggingFaceFinetuneEngine  # noqa: E402
from llama_index.tuning.llms.tasks.sql import (  # noqa: E402
    ExecutionScorer,
    execution_scorer,
    sql_dataset,
    text_to_sql_prompt,
)
from tests.llms.tiny import save_tiny  # noqa: E402

SMALL = {"hidden": 128, "layers": 2, "steps": 380, "learning_rate": 3e-3}
LARGE = {"hidden": 192, "layers": 3, "steps": 456, "learning_rate": 2e-3}


def entity_pattern(rows: Sequence[Row]) -> re.Pattern[str]:
    """Finds what stands in quotes in the queries."""
    found = {text for row in rows for text in re.findall(r"'([^']+)'", row["sql"])}
    names = sorted(found, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")


def nearest(known: Sequence[str], questions: Sequence[str], longest: int) -> list[int]:
    """The known question next to each, by TF-IDF over runs of up to `longest` words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, longest))
    vectors = words.fit_transform(known)
    return [int(n) for n in np.asarray((words.transform(questions) @ vectors.T).argmax(1)).ravel()]


def swapped(row: Row, question: str, entity: re.Pattern[str]) -> str:
    """The row's query with the question's first entity in the place of its own."""
    sql = str(row["sql"])
    quoted = re.findall(r"'([^']+)'", sql)
    there = [name for name in entity.findall(row["question"]) if name in quoted] or quoted
    here = entity.findall(question)
    return sql.replace(f"'{there[0]}'", f"'{here[0]}'") if there and here else sql


def baselines(train: Sequence[Row], score: ExecutionScorer) -> dict[str, NDArray[np.float64]]:
    """Scores of what needs no training: the nearest question's query, as it is or swapped.

    The last is the strongest: it looks for the nearest question with the entities masked.
    """
    entity = entity_pattern(train)
    known, asked = [str(row["question"]) for row in train], score.questions
    plain = [train[n] for n in nearest(known, asked, 1)]
    masked = [[entity.sub("entity", text) for text in texts] for texts in (known, asked)]
    alike = [train[n] for n in nearest(masked[0], masked[1], 2)]
    pairs = [list(zip(found, asked, strict=True)) for found in (plain, alike)]
    return {
        "nearest question": score.score([row["sql"] for row in plain]),
        "entity swap": score.score([swapped(row, q, entity) for row, q in pairs[0]]),
        "masked entity swap": score.score([swapped(row, q, entity) for row, q in pairs[1]]),
    }


def one_seed(
    folder: Path,
    here: Path,
    score: ExecutionScorer,
    peers: dict[str, NDArray[np.float64]],
    shape: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Tunes and scores one model, and asks it through LlamaIndex's own query engine."""
    prompt = text_to_sql_prompt(schema=False)
    rows = geoquery(folder, "train", "val")
    chats, dropped = sql_dataset(rows, folder / "db.sqlite", prompt=prompt)
    texts = [str(m["content"]) for e in chats.examples for m in e.messages]
    size = {"hidden": shape["hidden"], "layers": shape["layers"]}
    base = save_tiny(here / f"random-{seed}", texts, vocabulary=700, seed=seed, **size)
    engine = HuggingFaceFinetuneEngine(
        chats,
        base,
        model_output_path=here / f"tuned-{seed}",
        options=training(learning_rate=shape["learning_rate"], steps=shape["steps"], seed=seed),
        evaluate=score,
        peers=peers,
    )
    started = time.process_time()
    report = engine.finetune()
    seconds = time.process_time() - started
    print(report, file=sys.stderr)
    llm = engine.get_finetuned_model(max_new_tokens=150)
    return {
        "seed": seed,
        "parameters": sum(p.numel() for p in llm.model.parameters()),
        "train": len(chats),
        "dropped": [f"{d.number}: {d.reason}" for d in dropped],
        "cpu_seconds_tuning_and_scoring": round(seconds),
        "accepted": report.accepted,
        "execution_accuracy": vars(report.gains["score"]),
        "against": {name: vars(gains["score"]) for name, gains in report.slices.items()},
        "through_query_engine": ask(llm, folder / "db.sqlite", score.questions[:5]),
    }


def ask(llm: Any, database: Path, questions: Sequence[str]) -> list[dict[str, str]]:
    """Questions through `NLSQLTableQueryEngine`: what was run and what it found."""
    from llama_index.core import MockEmbedding, SQLDatabase
    from llama_index.core.query_engine import NLSQLTableQueryEngine
    from sqlalchemy import create_engine

    tables = SQLDatabase(create_engine(f"sqlite:///{database}"))
    engine = NLSQLTableQueryEngine(
        tables,
        llm=llm,
        text_to_sql_prompt=text_to_sql_prompt(schema=False),
        embed_model=MockEmbedding(8),
        synthesize_response=False,
    )
    answers = [(question, engine.query(question)) for question in questions]
    return [
        {"question": q, "sql": str((a.metadata or {})["sql_query"]), "answer": str(a)}
        for q, a in answers
    ]


def main() -> None:
    """Tune and score each seed; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    folder = given.data / "geoquery"
    score = execution_scorer(
        geoquery(folder, "test"),
        folder / "db.sqlite",
        prompt=text_to_sql_prompt(schema=False),
        max_tokens=150,
    )
    print(json.dumps({"test": len(score), "left_out": len(score.left_out)}), flush=True)
    peers = baselines(geoquery(folder, "train", "val"), score)
    for name, found in peers.items():
        print(json.dumps({"baseline": name, "execution_accuracy": round(found.mean(), 4)}))
    with tempfile.TemporaryDirectory() as name:
        for seed in given.seeds:
            shape = LARGE if given.large else SMALL
            print(json.dumps(one_seed(folder, Path(name), score, peers, shape, seed)), flush=True)


if __name__ == "__main__":
    main()
