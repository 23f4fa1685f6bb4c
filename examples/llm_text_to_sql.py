"""Tune an LLM to write SQL for one database, and ask it through LlamaIndex's query engine.

    python examples/llm_text_to_sql.py [MODEL]

MODEL is a chat model's folder or its name on the hub, such as Qwen/Qwen3-0.6B. Without one, a tiny
Llama with random weights is made, so that this runs anywhere, in seconds and without a download.
"""

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from llama_index.core import MockEmbedding, SQLDatabase
from llama_index.core.query_engine import NLSQLTableQueryEngine
from llm_local import tiny_llama
from sqlalchemy import create_engine

from llama_index.tuning import HuggingFaceFinetuneEngine, sql_task
from llama_index.tuning.llms import HuggingFaceOptions, text_to_sql_prompt

PLANTS = {"fern": (30, 4), "moss": (5, 2), "oak": (3000, 90), "rose": (150, 12), "lily": (80, 7)}
COLUMNS = {"height": "height_cm", "price": "price"}
PROMPT = text_to_sql_prompt(schema=False)  # one database: the model learns its schema by heart


def garden(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE plant (name TEXT, height_cm INTEGER, price INTEGER)")
        rows = [(name, *numbers) for name, numbers in PLANTS.items()]
        connection.executemany("INSERT INTO plant VALUES (?, ?, ?)", rows)
        connection.commit()
    return path


def rows() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Questions to learn from, one of them with a query that fails; and other wordings held out."""
    asked = ["{word} of the {name}?", "the {name}: {word}?", "what {word} has the {name}?"]
    made = [
        [
            {
                "question": text.format(word=word, name=name),
                "sql": f"SELECT {column} FROM plant WHERE name = '{name}'",
            }
            for name in PLANTS
            for word, column in COLUMNS.items()
        ]
        for text in asked
    ]
    typo = {"question": "colour of the oak?", "sql": "SELECT colour FROM plant"}
    return [*made[0], *made[1], typo], made[2]


def main() -> None:
    train, test = rows()
    with tempfile.TemporaryDirectory() as name:
        database = garden(Path(name) / "garden.sqlite")
        task = sql_task(train, database, held_out=test, prompt=PROMPT, max_tokens=60)
        for one in task.dropped:
            print(f"row {one.number} is left out: {one.reason}")
        if len(sys.argv) > 1:
            model, options = sys.argv[1], HuggingFaceOptions()
        else:
            model = str(tiny_llama(Path(name) / "base"))
            options = HuggingFaceOptions(
                weights="full", device="cpu", learning_rate=5e-3, max_steps=300, batch_size=10
            )
        engine = HuggingFaceFinetuneEngine(
            task.dataset,
            model,
            model_output_path=Path(name) / "tuned",
            options=options,
            evaluate=task.evaluate,
        )
        print(engine.finetune())
        tables = SQLDatabase(create_engine(f"sqlite:///{database}"))
        served = NLSQLTableQueryEngine(
            tables,
            llm=engine.get_finetuned_model(max_new_tokens=60),
            text_to_sql_prompt=PROMPT,
            embed_model=MockEmbedding(8),
            synthesize_response=False,
        )
        question = test[0]["question"]
        try:
            answer = served.query(question)
            print(question, "→", answer.metadata["sql_query"], "→", answer)
        finally:
            tables.engine.dispose()


if __name__ == "__main__":
    main()
