import json

import pytest

from llama_index.tuning import TunedHuggingFaceLLM
from llama_index.tuning.cli.app import run
from tests.llms.conftest import fees
from tests.llms.tiny import save_tiny

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, of transformers 6


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli-llm")
    fees(40).save_jsonl(folder / "chats.jsonl")
    save_tiny(folder / "model", [m["content"] for e in fees(50).examples for m in e.messages])
    return folder


def test_it_tunes_and_the_folder_loads(files, tmp_path, capsys):
    code = run(
        [
            *("llm", "tune", str(files / "chats.jsonl"), "--model", str(files / "model")),
            *("--out", str(tmp_path / "out"), "--device", "cpu", "--max-steps", "3", "--json"),
            *("--learning-rate", "0.005", "--merge", "--accept", "always"),
        ]
    )
    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert printed["options"]["learning_rate"] == 0.005
    assert (tmp_path / "out" / "report.html").is_file()
    llm = TunedHuggingFaceLLM.load(tmp_path / "out", merged=True, device="cpu", max_new_tokens=2)
    assert llm.complete("Fee?").text is not None


def test_preflight_trains_nothing(files, tmp_path, capsys):
    arguments = ["llm", "tune", str(files / "chats.jsonl"), "--model", str(files / "model")]
    arguments += ["--out", str(tmp_path / "out"), "--device", "cpu", "--preflight"]
    assert run(arguments) == 0
    assert "in the loss of 100.0% of the learnt turns" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "ppo"], "unknown method 'ppo'"),
        (["--model", "./nowhere"], "is no folder"),
        (["--validation", "."], "is a directory"),
        (["--max-length", "9999"], "max_length must be at most the model's 512 tokens"),
    ],
)
def test_an_error_is_one_line(files, tmp_path, capsys, more, message):
    arguments = ["llm", "tune", str(files / "chats.jsonl"), "--model", str(files / "model")]
    arguments += ["--out", str(tmp_path / "out"), "--device", "cpu", *more]
    assert run(arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
