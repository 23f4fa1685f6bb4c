"""A small database with questions about it."""

import sqlite3
from contextlib import closing

import pytest

CITIES = {"Oslo": 700, "Lima": 9000, "Cairo": 9500, "Quito": 2000, "Paris": 2100, "Accra": 1900}


@pytest.fixture(scope="session")
def cities(tmp_path_factory):
    path = tmp_path_factory.mktemp("sql") / "cities.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE city (name TEXT, size INTEGER)")
        connection.executemany("INSERT INTO city VALUES (?, ?)", CITIES.items())
        connection.commit()
    return path


def rows():
    return [
        {"question": f"size of {c}? {c} {c}", "sql": f"SELECT size FROM city WHERE name = '{c}'"}
        for c in CITIES
    ]
