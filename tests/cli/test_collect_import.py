import json

from llama_index.tuning.cli.app import run
from llama_index.tuning.collect import Traffic


def test_spans_become_a_log_with_secrets_masked(tmp_path, capsys):
    found = {
        "gen_ai.retrieval.query.text": "password=hunter22",
        "gen_ai.retrieval.documents": [{"id": "d", "score": 0.5, "content": "Text."}],
    }
    span = {"trace_id": "t", "span_id": "s", "end_time": 1.0, "attributes": found}
    path, out = tmp_path / "spans.jsonl", tmp_path / "traffic.jsonl"
    path.write_text(f"{json.dumps(span)}\n{{torn\n")
    assert run(["collect", "import", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 records written" in said
    assert "left out: 1 on a line that is no JSON" in said
    traffic = Traffic.load(out)
    assert traffic.texts == {"d": "Text."}
    assert [record.data["query"] for record in traffic.records] == ["password=[PASSWORD]"]
    assert run(["collect", "import", str(path), "--out", str(out)]) == 1
    assert "is not written over" in capsys.readouterr().err
