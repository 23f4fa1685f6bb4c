"""Every benchmark script imports: what it takes from the others and the package is there."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
PEERS = ("setfit",)  # compared with by those who install it
PROGRAM = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2].split():
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name not in sys.argv[3].split():
            raise
"""


@pytest.mark.slow
def test_benchmarks_import():
    names = " ".join(sorted(path.stem for path in FOLDER.glob("*.py")))
    command = [sys.executable, "-c", PROGRAM, str(FOLDER), names, " ".join(PEERS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
