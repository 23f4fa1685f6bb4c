import pytest

pytest.importorskip("typer")


def run(*arguments):
    from llama_index.tuning.cli.app import run as main

    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", ["retrieval", "routing", "judgments"])
def test_a_template_becomes_a_dataset(tmp_path, capsys, kind):
    table, out = tmp_path / "questions.csv", tmp_path / "out.json"
    assert run("questions", "template", "--out", table, "--kind", kind) == 0
    assert table.read_text().startswith("question,")
    assert run("questions", "convert", table, "--out", out, "--kind", kind) == 0
    assert "rows written to" in capsys.readouterr().out
    assert out.stat().st_size > 50


def test_a_file_is_not_written_over_and_a_wrong_kind_is_named(tmp_path, capsys):
    table = tmp_path / "questions.csv"
    table.write_text("mine")
    assert run("questions", "template", "--out", table) == 1
    assert "exists; it is not written over" in capsys.readouterr().err
    assert table.read_text() == "mine"
    for command in (("template",), ("convert", table)):
        assert run("questions", *command, "--out", tmp_path / "o", "--kind", "chat") == 1
        assert "unknown kind 'chat'; choose one of: retrieval" in capsys.readouterr().err
