import json
import runpy
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, TextBlock, ThinkingBlock
from llama_index.core.llms import MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback

from llama_index.tuning import ChatDataset, FinetuningRecorder

pytest.importorskip("typer")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def log(tmp_path):
    with FinetuningRecorder(tmp_path / "traffic.jsonl") as recorder:
        for n in range(12):
            MockLLM().complete(f"question {n}")
            recorder.feedback(recorder.last_trace_id(), 1 if n < 11 else -1)
    return recorder.path


def run(*arguments):
    from llama_index.tuning.cli.app import run as main

    return main([str(argument) for argument in arguments])


def test_stats_are_counts_as_table_and_as_json(log, capsys):
    assert run("collect", "stats", log) == 0
    assert "records   llm 12, feedback 12" in capsys.readouterr().out
    assert run("collect", "stats", log, "--json") == 0
    assert json.loads(capsys.readouterr().out)["liked"] == 11


@pytest.mark.parametrize("format", ["openai", "trl", "sharegpt"])
def test_export_writes_what_passes_the_filter(log, tmp_path, capsys, format):
    out = tmp_path / "train.jsonl"
    code = run("collect", "export", log, "--out", out, "--format", format, "--min-feedback", 1)
    assert code == 0
    assert "11 examples written" in capsys.readouterr().out
    assert len(ChatDataset.from_jsonl(out)) == 11


def test_export_of_judgments_and_errors_are_one_line(log, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("collect", "export", log, "--out", out, "--format", "retrieval") == 1
    assert "error: no retrieval dataset can be made" in capsys.readouterr().err
    assert run("collect", "export", log, "--out", out, "--format", "csv") == 1
    assert "unknown format 'csv'" in capsys.readouterr().err
    assert run("collect", "stats", tmp_path / "none.jsonl") == 1
    assert "nothing was recorded there yet" in capsys.readouterr().err
    assert run("collect", "export", log, "--out", out, "--teacher", "nobody") == 1
    assert "0 examples, at least 10 are needed" in capsys.readouterr().err


class Thinker(MockLLM):
    """Answers after a thought."""

    @llm_chat_callback()
    def chat(self, messages, **kwargs):
        blocks = [ThinkingBlock(content="Hm."), TextBlock(text="5 euros.")]
        return ChatResponse(message=ChatMessage(role="assistant", blocks=blocks))


def test_thoughts_are_refused_by_line_until_they_are_left_out(tmp_path, capsys):
    with FinetuningRecorder(tmp_path / "traffic.jsonl") as recorder:
        for n in range(10):
            Thinker().chat([ChatMessage(role="user", content=f"question {n}")])
    out = tmp_path / "train.jsonl"
    assert run("collect", "export", recorder.path, "--out", out) == 1
    assert "line 1, messages[1].thinking: no format holds" in capsys.readouterr().err
    assert not out.exists()
    assert run("collect", "export", recorder.path, "--out", out, "--without-thinking") == 0
    assert "Hm." not in out.read_text()


def test_the_example_runs(capsys):
    pytest.importorskip("llama_index.tuning.datasets.routing")
    runpy.run_path(str(EXAMPLES / "collect_traffic.py"))
    out = capsys.readouterr().out
    assert "routing: {'fees': 6, 'help': 7}" in out
    assert "chat file: 13 lines" in out
