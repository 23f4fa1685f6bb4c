"""The command line: thin commands over the library."""

from __future__ import annotations

import sys
from io import TextIOWrapper


def main() -> None:
    """`llama-index-tuning …`: parse, call the library, print; an error is one line, exit code 1."""
    try:
        from llama_index.tuning.cli.app import run
    except ImportError as exc:
        print(
            f"error: the command line needs {exc.name}, which is not installed: "
            "pip install 'llama-index-tuning[cli]'",
            file=sys.stderr,
        )
        sys.exit(1)
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows has no arrow, nor has POSIX' ASCII
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
