"""Answers that a program checks: Python in a process with limits, or a check of the caller's."""

import os
from pathlib import Path

import pytest

from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms import PythonCheck, check_scorer, checked_dataset
from tests.generate.scripted import ScriptedLLM

TESTS = "assert double(2) == 4"
GOOD = "def double(n):\n    return 2 * n\n"

posix = pytest.mark.skipif(os.name != "posix", reason="processes are limited on POSIX only")


@posix
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("def double(n): return n", "it fails its tests: AssertionError"),
        ("def triple(n): return 3 * n", "NameError: name 'double' is not defined"),
        ("def double(n) return n", "it does not parse"),
        ("import sys\nsys.exit(0)", "it ended before its tests were over"),
        ("import os\nos._exit(0)", "it ended before its tests were over"),
        ("import os\nos.kill(os.getppid(), 9)", "does not allow os.kill"),
        ("import os\nos.abort()", "its process ended with status -6"),
        ("x = bytearray(2 << 30)", "MemoryError"),
        ("open('big', 'wb').write(bytes(2 << 20))", "File too large"),
        ("import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])", "PermissionError"),
        ("import os\nos.fork()", "does not allow os.fork"),
        ("import os\nos.posix_spawn('/bin/true', ['true'], {})", "does not allow os.posix_spawn"),
        ("import _posixsubprocess\n_posixsubprocess.fork_exec()", "allows no other process"),
        (
            "import sys\ndel sys.modules['_posixsubprocess']\nimport _posixsubprocess",
            "does not allow _posixsubprocess",
        ),
        ("import importlib\nimportlib.import_module('_xxsubinterpreters')", "Error"),
        ("import os\nos.system('true')", "does not allow os.system"),
        ("import socket\nsocket.socket()", "does not allow socket"),
        ("import ctypes", "ImportError: PythonCheck does not allow _ctypes"),
        ("import os\nopen(f'/proc/{os.getppid()}/environ')", "does not allow open outside"),
        ("open('/etc/passwd')", "does not allow open outside"),
        ("open('../x', 'w')", "does not allow open outside"),
        ("import os\nos.rename('.errors', '/tmp/x')", "does not allow os.rename outside"),
        ("import gc\ngc.get_objects()", "does not allow gc.get_objects"),
        ("import sys\nsys.audit('python-check.passed')", "does not allow python-check.passed"),
        ("raise SystemExit", "it ended before its tests were over"),
    ],
)
def test_faulty_code_is_refused_with_its_reason(answer, reason):
    # So much time that the reason is the code's, however busy the machine.
    assert reason in PythonCheck(time_limit=60)({"answer": answer, "tests": TESTS})


@posix
@pytest.mark.parametrize("answer", ["import time\ntime.sleep(600)", "while True: pass"])
def test_code_that_does_not_end_is_ended(answer):
    found = PythonCheck(time_limit=1)({"answer": answer, "tests": TESTS})
    assert found == "it took longer than 1 s"


@posix
def test_the_token_is_in_no_frame():
    answer = (
        "import sys\nframe, seen = sys._getframe(), []\n"
        "while frame:\n    seen += [repr(frame.f_locals), repr(frame.f_globals)]\n"
        "    frame = frame.f_back\n"
        "try:\n    open('/etc/passwd')\nexcept PermissionError as exc:\n"
        "    tb = exc.__traceback__\n"
        "    while tb:\n        seen.append(repr(tb.tb_frame.f_locals)); tb = tb.tb_next\n"
        "import re\nFOUND = re.findall(r'\\b[0-9a-f]{32}\\b', ' '.join(seen))"
    )
    assert PythonCheck(time_limit=60)({"answer": answer, "tests": "assert FOUND == []"}) is None


@posix
def test_good_code_passes_in_fences_too():
    check = PythonCheck()
    assert check({"answer": GOOD, "tests": TESTS}) is None
    assert check({"answer": f"So:\n```python\n{GOOD}```\nDone.", "tests": TESTS}) is None


@posix
def test_code_gets_neither_the_environment_nor_this_folder(monkeypatch):
    monkeypatch.setenv("SECRET_OF_MINE", "x")
    tests = "import os\nassert 'SECRET_OF_MINE' not in os.environ\nassert os.getcwd() != HERE"
    assert PythonCheck()({"answer": f"HERE = {str(Path.cwd())!r}", "tests": tests}) is None


@posix
def test_ordinary_code_may_use_its_folder_and_the_standard_library():
    answer = (
        "import asyncio, tempfile, json, threading\n"
        "def double(n):\n"
        "    with tempfile.NamedTemporaryFile('w+') as file:\n"
        "        json.dump(n, file); file.seek(0); n = json.load(file)\n"
        "    found = []\n"
        "    thread = threading.Thread(target=lambda: found.append(2 * n))\n"
        "    thread.start(); thread.join()\n"
        "    return found[0]\n"
        "open('here', 'w').close()\n"
    )
    assert PythonCheck(time_limit=60)({"answer": answer, "tests": TESTS}) is None


@posix
def test_the_dataset_and_the_score_use_one_check():
    rows = [
        {"prompt": "Double a number", "answer": GOOD, "tests": TESTS},
        {"prompt": "Twice a number", "answer": "def double(n): return n", "tests": TESTS},
    ]
    dataset, dropped = checked_dataset(rows, check=PythonCheck())
    assert [m["content"] for m in dataset.examples[0].messages] == ["Double a number", GOOD]
    assert [d.number for d in dropped] == [1]
    llm = ScriptedLLM(answer=lambda prompt: GOOD if "Twice" in prompt else "pass")
    assert check_scorer(rows, check=PythonCheck())(llm).tolist() == [0, 1]


def test_a_fault_of_the_check_is_not_the_rows():
    def broken(row):
        raise RuntimeError("the checker is down")

    with pytest.raises(RuntimeError, match="the checker is down"):
        checked_dataset([{"prompt": "p", "answer": "a"}], check=broken)


ROW = {"prompt": "p", "answer": "a"}


@pytest.mark.parametrize(
    ("rows", "check", "error", "message"),
    [
        ([], lambda row: None, DatasetError, "rows: there are none"),
        ("rows", lambda row: None, TypeError, "rows must be a list of mappings"),
        ([3], lambda row: None, DatasetError, "row 0 must be a mapping"),
        ([{"prompt": "p"}], lambda row: None, DatasetError, "row 0: answer must be a text"),
        ([ROW], None, TypeError, "check must be a function of a row, got None"),
        ([ROW], lambda row: True, TypeError, "check must give None or what is wrong"),
        ([ROW], lambda row: "bad", DatasetError, "no answer passes the check:\n  - row 0: bad"),
    ],
)
def test_bad_rows_and_checks_are_named(rows, check, error, message):
    with pytest.raises(error, match=message):
        checked_dataset(rows, check=check)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"time_limit": 0}, ValueError, "time_limit must be > 0"),
        ({"memory_mb": -1}, ValueError, "memory_mb must be > 0"),
        ({"time_limit": "1"}, TypeError, "time_limit must be a number"),
    ],
)
def test_bad_limits_are_named(options, error, message):
    with pytest.raises(error, match=message):
        PythonCheck(**options)


@posix
def test_rows_without_tests_or_with_broken_ones_are_an_error():
    with pytest.raises(ValueError, match="tests must be Python code in each row, got None"):
        PythonCheck()({"answer": GOOD})
    with pytest.raises(ValueError, match="tests do not parse"):
        PythonCheck()({"answer": GOOD, "tests": "assert ("})


def test_bad_scorer_options_are_named():
    with pytest.raises(ValueError, match="workers must be a whole number >= 1"):
        check_scorer([ROW], check=lambda row: None, workers=0)
    with pytest.raises(ValueError, match="max_tokens must be a whole number >= 1"):
        check_scorer([ROW], check=lambda row: None, max_tokens=0)
    with pytest.raises(ValueError, match="1 are asked for, got 2"):
        check_scorer([ROW], check=lambda row: None).score(["a", "b"])
