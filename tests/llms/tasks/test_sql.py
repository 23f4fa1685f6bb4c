"""Text-to-SQL: queries that run are learnt, results are compared, LlamaIndex serves the model."""

import hashlib
import time

import numpy as np
import pytest
from llama_index.core import MockEmbedding, SQLDatabase
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import NLSQLTableQueryEngine
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from llama_index.tuning import HuggingFaceFinetuneEngine, sql_task
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms import (
    HuggingFaceOptions,
    execution_scorer,
    sql_dataset,
    text_to_sql_prompt,
)
from llama_index.tuning.llms.tasks.sql import Database, QueryFailed, asks_for_order, same_rows
from tests.generate.scripted import ScriptedLLM
from tests.llms.tasks.conftest import CITIES, rows
from tests.llms.tiny import save_tiny

FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
SHORT = text_to_sql_prompt(schema=False)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_only_queries_that_run_are_learnt(cities):
    bad = {"question": "?", "sql": "SELECT height FROM city"}
    empty = {"question": "Rome?", "sql": "SELECT size FROM city WHERE name = 'Rome'"}
    dataset, dropped = sql_dataset([bad, *rows(), empty], cities, prompt=SHORT)
    assert len(dataset) == len(CITIES) + 1
    assert dropped[0].number == 0
    assert "no such column: height" in dropped[0].reason
    assert dataset.examples[0].messages == [
        {"role": "user", "content": rows()[0]["question"]},
        {"role": "assistant", "content": rows()[0]["sql"]},
    ]
    _, dropped = sql_dataset([*rows(), empty], cities, prompt=SHORT, allow_empty=False)
    assert [d.reason for d in dropped] == ["the query finds nothing"]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM city",
        "UPDATE city SET size = 0",
        "DROP TABLE city",
        "INSERT INTO city VALUES ('Rome', 1)",
        "CREATE TABLE other (x)",
        "ATTACH DATABASE '{other}' AS other",
        "VACUUM INTO '{other}'",
        "PRAGMA writable_schema = 1",
        "SELECT 1; DELETE FROM city",
        "",
        "-- nothing",
        "SELECT",
        "SELECT '\0'",
    ],
)
@pytest.mark.parametrize("kind", ["path", "engine"])
def test_a_statement_that_is_no_reading_query_fails_and_changes_nothing(
    cities, tmp_path, sql, kind
):
    before = digest(cities)
    given = cities if kind == "path" else create_engine(f"sqlite:///{cities}")
    with pytest.raises(QueryFailed):
        Database(given).run(sql.format(other=tmp_path / "other"))
    assert digest(cities) == before
    assert not list(tmp_path.iterdir())


def test_an_endless_query_ends_in_time(cities):
    started = time.monotonic()
    _, dropped = sql_dataset(
        [*rows(), {"question": "?", "sql": FOREVER}], cities, prompt=SHORT, time_limit=0.2
    )
    assert dropped[0].reason == "the query fails: it took longer than 0.2 s"
    assert time.monotonic() - started < 5


def test_a_flood_of_rows_fails(cities):
    flood = "SELECT 1 FROM " + ", ".join(f"city c{n}" for n in range(7))
    with pytest.raises(QueryFailed, match="more than 100,000 rows"):
        Database(cities).run(flood)


def test_an_engine_in_memory_is_read_and_usable_afterwards():
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE city (name TEXT)"))
        connection.execute(text("INSERT INTO city VALUES ('Oslo')"))
    for given in (engine, SQLDatabase(engine)):
        assert Database(given).run("SELECT name FROM city") == [("Oslo",)]
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO city VALUES ('Lima')"))
    assert len(Database(engine).run("SELECT name FROM city")) == 2


def test_order_counts_where_the_gold_query_orders(cities):
    asked = [
        {"question": "by size", "sql": "SELECT name FROM city ORDER BY size"},
        {"question": "all", "sql": "SELECT name FROM city"},
    ]
    score = execution_scorer(asked, cities, prompt=SHORT)
    backwards = "SELECT name FROM city ORDER BY size DESC"
    assert score.score([backwards, backwards]).tolist() == [0, 1]
    assert score.score([asked[0]["sql"], "SELECT name FROM city LIMIT 3"]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t order  by a", True),
        ("SELECT a FROM t WHERE b IN (SELECT b FROM t ORDER BY b LIMIT 1)", False),
        ("SELECT 'ORDER BY' FROM t", False),
        ("SELECT a FROM t -- ORDER BY a", False),
        ("SELECT a FROM (SELECT a FROM t) ORDER BY a LIMIT (SELECT 1)", True),
    ],
)
def test_an_order_by_is_the_querys_own(sql, expected):
    assert asks_for_order(sql) is expected


def test_results_are_bags_of_rows():
    assert same_rows([(1,), (1,), (2,)], [(2,), (1,), (1,)], in_order=False)
    assert not same_rows([(1,), (2,)], [(1,), (1,), (2,)], in_order=False)
    assert same_rows([(0.1 + 0.2,)], [(0.3,)], in_order=True)
    assert not same_rows([(1, "a")], [("a", 1)], in_order=False)
    assert not same_rows([("1",)], [(1,)], in_order=False)


def test_any_llm_is_scored_and_fences_are_read_as_in_serving(cities):
    gold = {row["question"]: row["sql"] for row in rows()}
    wrong = rows()[0]["question"]

    def answer(prompt):
        asked = next(q for q in gold if q in prompt)
        return "no idea" if asked == wrong else f"```sql\n{gold[asked]}\n```"

    llm = ScriptedLLM(answer=answer)
    score = execution_scorer(rows(), cities)
    found = score(llm)
    assert found.dtype == np.float64
    assert found.tolist() == [0, 1, 1, 1, 1, 1]
    assert "city" in llm.prompts[0]  # the default prompt describes the tables


def test_questions_whose_gold_finds_nothing_are_left_out(cities):
    empty = {"question": "Rome?", "sql": "SELECT size FROM city WHERE name = 'Rome'"}
    score = execution_scorer([empty, *rows()], cities, prompt=SHORT)
    assert len(score) == len(CITIES)
    assert score.left_out[0].number == 0
    assert len(execution_scorer([empty, *rows()], cities, prompt=SHORT, allow_empty=True)) == 7


@pytest.mark.parametrize("schema", [True, False])
def test_training_and_serving_put_a_question_the_same_way(cities, schema):
    prompt = text_to_sql_prompt(schema=schema)
    database = SQLDatabase(create_engine(f"sqlite:///{cities}"))
    dataset, _ = sql_dataset(rows(), database, prompt=prompt)
    llm = ScriptedLLM(answer=lambda prompt: "SELECT 1")
    engine = NLSQLTableQueryEngine(
        database,
        llm=llm,
        tables=["city"],
        text_to_sql_prompt=prompt,
        embed_model=MockEmbedding(4),
        synthesize_response=False,
    )
    engine.query(rows()[0]["question"])
    assert dataset.examples[0].messages[0]["content"] in llm.prompts[0]


def test_a_tuned_model_answers_through_the_query_engine(cities, tmp_path):
    other = [{**row, "question": f"{row['question'][9:]}: how big?"} for row in rows()]
    task = sql_task(rows(), cities, held_out=other, prompt=SHORT, max_tokens=40)
    texts = [m["content"] for e in task.dataset.examples for m in e.messages] * 3
    save_tiny(tmp_path / "base", texts, vocabulary=400, hidden=64)
    nearest = task.evaluate.score([rows()[0]["sql"]] * len(other))
    engine = HuggingFaceFinetuneEngine(
        task.dataset,
        tmp_path / "base",
        model_output_path=tmp_path / "tuned",
        evaluate=task.evaluate,
        peers={"nearest": nearest, "silent": ScriptedLLM(answer=lambda prompt: "?")},
        options=HuggingFaceOptions(
            weights="full", device="cpu", learning_rate=5e-3, max_steps=80, batch_size=6
        ),
        accept="always",
    )
    report = engine.finetune()
    gain, peer = report.gains["score"], report.slices["nearest as the base"]["score"]
    assert (gain.base, gain.n) == (0, 6)
    assert (peer.base, peer.tuned) == (pytest.approx(1 / 6), gain.tuned)
    assert peer.low <= peer.mean <= peer.high
    assert report.slices["silent as the base"]["score"].base == 0
    assert "nearest as the base (n=6" in str(report)
    served = NLSQLTableQueryEngine(
        SQLDatabase(create_engine(f"sqlite:///{cities}")),
        llm=engine.get_finetuned_model(max_new_tokens=40),
        text_to_sql_prompt=SHORT,
        embed_model=MockEmbedding(4),
        synthesize_response=False,
    )
    for row, size in zip(rows(), CITIES.values(), strict=True):
        answer = served.query(row["question"])
        assert answer.metadata["sql_query"] == row["sql"]
        assert answer.metadata["result"] == [(size,)]


ROW = {"question": "q", "sql": "SELECT 1"}


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ([], {}, DatasetError, "rows: there are none"),
        ("rows", {}, TypeError, "rows must be a list of mappings, got str"),
        (ROW, {}, TypeError, "rows must be a list of mappings, got dict"),
        ([["q", "SELECT 1"]], {}, DatasetError, "row 0 must be a mapping with question and sql"),
        ([ROW, {"question": "q"}], {}, DatasetError, "row 1: sql must be a text, got None"),
        ([{"question": " ", "sql": "x"}], {}, DatasetError, "row 0: question must be a text"),
        ([ROW], {"time_limit": 0}, ValueError, "time_limit must be a finite number"),
        ([ROW], {"time_limit": float("nan")}, ValueError, "time_limit must be a finite number"),
        ([ROW], {"time_limit": "1"}, TypeError, "time_limit must be a number of seconds"),
        ([ROW], {"prompt": "{query_str}"}, TypeError, "prompt must be a LlamaIndex prompt"),
        ([ROW], {"prompt": PromptTemplate("{schema}")}, ValueError, "a place {query_str}"),
        ([ROW], {"tables": ["town"]}, ValueError, "tables: 'town' is not in the database"),
        ([{"question": "q", "sql": "SELEC"}], {}, DatasetError, "SELEC"),
    ],
)
@pytest.mark.parametrize("build", [sql_dataset, execution_scorer])
def test_bad_rows_and_options_are_named(cities, build, given, options, error, message):
    with pytest.raises(error, match=message):
        build(given, cities, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be a whole number >= 1, got 0"),
        ({"max_tokens": 0}, "max_tokens must be a whole number >= 1, got 0"),
    ],
)
def test_bad_scorer_options_are_named(cities, options, message):
    with pytest.raises(ValueError, match=message):
        execution_scorer([ROW], cities, **options)


def test_a_scorer_without_anything_to_find_is_refused(cities):
    empty = {"question": "Rome?", "sql": "SELECT size FROM city WHERE name = 'Rome'"}
    with pytest.raises(DatasetError, match="nothing to score"):
        execution_scorer([empty], cities)
    with pytest.raises(ValueError, match="6 are asked for, got 1"):
        execution_scorer(rows(), cities).score(["SELECT 1"])


def test_bad_databases_are_named(tmp_path):
    (tmp_path / "text.sqlite").write_text("this is no database, it is a text" * 100)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Database(tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()
    with pytest.raises(ValueError, match="cannot be read: file is not a database"):
        Database(tmp_path / "text.sqlite")
    with pytest.raises(TypeError, match="must be the path of a SQLite file"):
        Database(3)

    class Dialect:
        name = "postgresql"

    class Engine:
        dialect = Dialect()

        def raw_connection(self):
            raise AssertionError("never connected")

    with pytest.raises(ValueError, match="must be SQLite, got postgresql"):
        Database(Engine())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT randomblob(1000000000)",
        "SELECT length(printf('%.*c', 900000000, 'x'))",
        "SELECT count(*) FROM city WHERE length(hex(randomblob(200000000))) > 1",
        "SELECT instr(printf('%.*c', 9000000, 'a'), printf('%.*c', 4000000, 'a') || 'b')",
        "SELECT zeroblob(2000000000)",
        "SELECT count(*) FROM city WHERE regexp('^(a+)+$', printf('%.*c', 60, 'a') || 'b')",
        "SELECT replace(printf('%.*c', 90000, 'x'), 'x', printf('%.*c', 90000, 'y'))",
        "SELECT group_concat(hex(randomblob(9000000))) FROM city a, city b, city c, city d",
    ],
)
def test_one_function_of_sql_is_bounded_too(cities, sql):
    database = Database(cities, time_limit=1)
    started = time.monotonic()
    with pytest.raises(QueryFailed):
        database.run(sql)
    assert time.monotonic() - started < 10
    assert database.run("SELECT 1") == [(1,)]


def test_the_apps_own_authorizer_and_functions_stay(cities):
    engine = create_engine(f"sqlite:///{cities}", poolclass=StaticPool)
    refused = []
    with engine.connect() as connection:
        own = connection.connection.driver_connection
        own.create_function("double", 1, lambda n: 2 * n)
        own.set_authorizer(lambda *asked: refused.append(asked) or 0)
    assert Database(engine).run("SELECT count(*) FROM city") == [(len(CITIES),)]
    seen = len(refused)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT double(4)")).scalar() == 8
    assert len(refused) > seen


def test_a_change_in_memory_and_an_attached_database_are_seen(tmp_path):
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    other = tmp_path / "other.db"
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE city (name TEXT)"))
        connection.execute(text(f"ATTACH '{other}' AS other"))
        connection.execute(text("CREATE TABLE other.fee (euros INT)"))
        connection.execute(text("INSERT INTO other.fee VALUES (5)"))
    database = Database(engine)
    assert database.run("SELECT name FROM city") == []
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO city VALUES ('Oslo')"))
    assert database.run("SELECT name FROM city") == [("Oslo",)]
    assert database.run("SELECT euros FROM other.fee") == [(5,)]


def test_queries_share_a_process(cities):
    database = Database(cities)
    started = time.monotonic()
    for _ in range(300):
        database.run("SELECT count(*) FROM city")
    assert time.monotonic() - started < 5
