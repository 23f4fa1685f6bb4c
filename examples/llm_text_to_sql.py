"""Teach an LLM a domain language: SQL for one database

A general model writes SQL of the wrong dialect, for columns that do not exist. Here it learns the
queries of one database, each of them run before it is learnt from; and what counts in the report
is whether a query *finds* what the right one finds.
"""

import os
import sqlite3
import tempfile

from llama_index.core import MockEmbedding, SQLDatabase
from llama_index.core.query_engine import NLSQLTableQueryEngine
from sqlalchemy import create_engine

from llama_index.tuning import HuggingFaceFinetuneEngine, sql_task
from llama_index.tuning.demo import tiny_llama
from llama_index.tuning.llms import HuggingFaceOptions, text_to_sql_prompt

# The database: a garden centre's plants.

folder = tempfile.mkdtemp()
database = f"{folder}/garden.sqlite"
PLANTS = {"fern": (30, 4), "moss": (5, 2), "oak": (3000, 90), "rose": (150, 12), "lily": (80, 7)}
connection = sqlite3.connect(database)
connection.execute("CREATE TABLE plant (name TEXT, height_cm INTEGER, price INTEGER)")
rows = [(name, *numbers) for name, numbers in PLANTS.items()]
connection.executemany("INSERT INTO plant VALUES (?, ?, ?)", rows)
connection.commit()
connection.close()

# Questions with their queries; the last wording is held out, to measure on. One query asks for a
# column that is not there: it is found out by running it, and left out.

COLUMNS = {"height": "height_cm", "price": "price"}


def asked(text: str) -> list[dict[str, str]]:
    return [
        {
            "question": text.format(word=word, name=name),
            "sql": f"SELECT {column} FROM plant WHERE name = '{name}'",
        }
        for name in PLANTS
        for word, column in COLUMNS.items()
    ]


typo = {"question": "colour of the oak?", "sql": "SELECT colour FROM plant"}
train = [*asked("{word} of the {name}?"), *asked("the {name}: {word}?"), typo]
test = asked("what {word} has the {name}?")
prompt = text_to_sql_prompt(schema=False)  # one database: the model learns its schema by heart
task = sql_task(train, database, held_out=test, prompt=prompt, max_tokens=60)
for one in task.dropped:
    print(f"row {one.number} is left out: {one.reason}")

# The model. Set `MODEL` to the folder or the hub's name of a chat model, such as
# `Qwen/Qwen3-0.6B`. Without it a tiny Llama with random weights is made, so that this runs
# anywhere in seconds.

texts = [message["content"] for e in task.dataset.examples for message in e.messages]
model, options = os.environ.get("MODEL"), HuggingFaceOptions()
if model is None:
    model = tiny_llama(f"{folder}/base", texts)
    options = HuggingFaceOptions(
        weights="full", device="cpu", learning_rate=5e-3, max_steps=300, batch_size=10
    )

# Tuning. The score is the share of held-out questions whose query finds what the right one finds.

engine = HuggingFaceFinetuneEngine(
    task.dataset,
    model,
    model_output_path=f"{folder}/tuned",
    options=options,
    evaluate=task.evaluate,
)
print(engine.finetune())

# In the app: LlamaIndex's own query engine, with the tuned LLM and the prompt that it was tuned
# on.

tables = SQLDatabase(create_engine(f"sqlite:///{database}"))
query_engine = NLSQLTableQueryEngine(
    tables,
    llm=engine.get_finetuned_model(max_new_tokens=60),
    text_to_sql_prompt=prompt,
    embed_model=MockEmbedding(8),
    synthesize_response=False,
)
answer = query_engine.query("what price has the rose?")
print(answer.metadata["sql_query"], "→", answer)
tables.engine.dispose()
