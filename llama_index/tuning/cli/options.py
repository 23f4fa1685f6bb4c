"""Arguments and options that several commands take: one wording for each."""

from __future__ import annotations

import typer

from llama_index.tuning.cli.models import HELP

RETRIEVAL_DATA = typer.Argument(help="Dataset: a JSON file, or a BEIR folder.", exists=True)
CORPUS = typer.Option(None, help="Corpus file, where the splits share one.", exists=True)
TRAIN_SPLIT = typer.Option("train", help="Split of a BEIR folder.")
TEST_SPLIT = typer.Option("test", help="Split of a BEIR folder.")
VALIDATION = typer.Option(None, help="Dataset to measure on; cross-fitting without.", exists=True)
MODEL = typer.Option("minilm", help=HELP)
DEPTH = typer.Option(30, min=2, help="Candidates to re-rank for each query.")
BM25 = typer.Option(True, help="Widen candidates by BM25, as TunedRetriever does.")
LANGUAGE = typer.Option("english", help="Whose stemmer and stop words; or none.")
ACCEPT = typer.Option("gain", help="gain, or always: skip the gate.")
SEED = typer.Option(0, help="Seed of the run.")
CACHE = typer.Option(None, help="File that keeps vectors between runs.")
WORKERS = typer.Option(1, help="Concurrent calls of an embedding API.")
JSON = typer.Option(False, "--json", help="Print JSON.")
