import json

import pytest
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index.tuning import QueryEncoderEmbeddingModel
from llama_index.tuning.cli.app import run
from llama_index.tuning.embeddings.adapter.saved import Adapter
from tests.embeddings.full.conftest import build_model, texts_of
from tests.rerankers.conftest import shop


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    data = shop(n=30)
    data.save_json(folder / "data.json")
    return folder / "data.json", build_model(folder, texts_of(data))


def test_tune_prints_json_and_saves_a_folder_that_loads(files, tmp_path, capsys):
    data, model = files
    arguments = ["--model", model, "--out", str(tmp_path / "out"), "--batch-size", "8"]
    more = ["--matryoshka", "32,8", "--merge", "0.5,1", "--epochs", "1", "--device", "cpu"]
    assert run(["embeddings", "tune", str(data), *arguments, *more, "--no-refit", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["options"]["matryoshka_dims"] == [32, 8]
    assert "first 8 dimensions" in report["slices"]
    assert report["options"]["refit"] is False
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_wrong_loss_is_one_line(files, tmp_path, capsys):
    data, model = files
    arguments = ["--model", model, "--out", str(tmp_path / "out"), "--loss", "hinge"]
    assert run(["embeddings", "tune", str(data), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: unknown loss 'hinge'; choose one of:")
    assert error.count("\n") == 1


def test_drift_saves_a_map_that_searches_the_old_vectors(files, tmp_path, capsys):
    _, model = files
    texts = tmp_path / "texts.json"
    rows = {
        f"d{n}": f"The {n}th plan costs {n} euros a month and {n * 7} a year." for n in range(80)
    }
    texts.write_text(json.dumps(rows))
    out = tmp_path / "out"
    arguments = ["--new", model, "--old", model, "--out", str(out), "--accept", "always", "--json"]
    assert run(["embeddings", "drift", str(texts), *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"]["texts"] == 80
    assert (out / "report.html").is_file()
    assert Adapter.load(out).map.dim == 32
    assert run(["embeddings", "drift", str(texts), *arguments, "--kind", "rotation"]) == 1
    assert capsys.readouterr().err.startswith("error: unknown kind 'rotation'; choose one of: auto")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6
def test_tune_queries_saves_a_query_encoder(files, tmp_path, capsys):
    data, model = files
    out = tmp_path / "out"
    arguments = ["--model", model, "--out", str(out), "--device", "cpu", "--accept", "always"]
    more = ["--folds", "2", "--learning-rates", "1e-3", "--max-steps", "1", "--json"]
    assert run(["embeddings", "tune-queries", str(data), *arguments, *more]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["options"]["learning_rates"] == [1e-3]
    base = HuggingFaceEmbedding(model, device="cpu")
    tuned = QueryEncoderEmbeddingModel(base, out, device="cpu")
    assert len(tuned.get_query_embedding("Where?")) == 32
