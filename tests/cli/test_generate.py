import json

import pytest
from typer.testing import CliRunner

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.cli.app import commands, run
from llama_index.tuning.generate import MinedDataset
from tests.generate.scripted import WordEmbedding
from tests.servers import ChatServer


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs" / "more"
    folder.mkdir(parents=True)
    for number in range(4):
        text = f"The price of subject-{number} is {number} euros a month."
        text += f" Shop {number} sells it all year long."
        (folder / f"{number}.md").write_text(text)
    (folder / ".hidden").write_text("secret")
    return tmp_path / "docs"


def invoke(*arguments):
    done = CliRunner().invoke(
        commands("generate"), [*map(str, arguments), "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_questions_without_an_llm(docs, tmp_path):
    out = tmp_path / "train.json"
    counts = invoke("generate", "questions", docs, "--out", out)
    dataset = RetrievalDataset.load(out)
    assert counts == {"nodes": 4, "questions": 8, "failures": []}
    assert list(dataset.corpus) == [f"more/{i}.md#0" for i in range(4)]


def test_questions_by_a_server_go_on_where_they_were(docs, tmp_path):
    out, answers = tmp_path / "train.json", tmp_path / "answers.jsonl"

    def answer(prompt):
        subject = prompt.split("subject-")[1][0]
        return json.dumps([{"question": f"Price of {subject}?", "answer": "cheap"}])

    with ChatServer(answer=answer) as server:
        command = ["generate", "questions", docs, "--out", out, "--llm", "m", "--api-base",
                   server.base_url, "--answers", answers, "--style", "short"]  # fmt: skip
        counts = invoke(*command)
        assert counts["questions"] == 4
        assert invoke(*command) == counts
        assert sum(server.good.values()) == 4
    assert len(answers.read_text().splitlines()) == 4


def test_a_part_is_held_out_by_document(docs, tmp_path):
    train, val = tmp_path / "train.json", tmp_path / "val.json"
    counts = invoke("generate", "questions", docs, "--out", train, "--val-out", val)
    assert counts["training"] + counts["held_out"] == counts["questions"]
    taught, held_out = RetrievalDataset.load(train), RetrievalDataset.load(val)
    assert not {d for docs in taught.relevant_docs.values() for d in docs} & {
        d for docs in held_out.relevant_docs.values() for d in docs
    }


def test_negatives(docs, tmp_path, monkeypatch):
    name = "llama_index.tuning.cli.models.embedding_model"
    monkeypatch.setattr(name, lambda _: WordEmbedding())
    data, out = tmp_path / "train.json", tmp_path / "negatives.jsonl"
    invoke("generate", "questions", docs, "--out", data)
    counts = invoke("generate", "negatives", data, "--out", out, "--count", 2)
    mined = MinedDataset.with_negatives(RetrievalDataset.load(data), out)
    assert counts["negatives"] == sum(map(len, mined.negatives.values())) > 0
    with ChatServer(answer=lambda prompt: "Yes") as server:
        checked = invoke(
            "generate", "negatives", data, "--out", tmp_path / "checked.jsonl",
            "--llm", "m", "--api-base", server.base_url,
        )  # fmt: skip
    assert checked["negatives"] == 0
    assert checked["false_negatives"] == checked["requests"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--verify"], "without --llm there is no --verify"),
        (["--llm", "gpt"], "needs OPENAI_API_KEY in the environment, or --api-base"),
        (["--llm", "m", "--api-base", "http://127.0.0.1:1/v1", "--style", "odd"], "choose from"),
        (["--chunk-size", "0"], "chunk_size must be"),
    ],
)
def test_errors_are_one_line(docs, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    command = ["generate", "questions", str(docs), "--out", str(tmp_path / "x.json"), *arguments]
    assert run(command) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_without_text_is_an_error(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(["generate", "questions", str(tmp_path / "empty"), "--out", "x.json"]) == 1
    assert "holds no text in 0 documents" in capsys.readouterr().err
