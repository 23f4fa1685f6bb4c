"""Which cells of the old package's notebooks run with only the import changed; the page says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.program import FunctionCallingProgram
from pydantic import BaseModel

from llama_index.tuning.errors import HostedEndedError
from tests.collect.conftest import ScriptedLLM
from tests.conftest import rotated_problem
from tests.embeddings.full.conftest import build_model, texts_of
from tests.generate.scripted import ScriptedLLM as AnsweringLLM, WordEmbedding
from tests.jobs_server import JobsServer
from tests.moving.cells import NOTEBOOKS
from tests.rerankers.conftest import TOPICS, shop
from tests.tiny_bert import save_tiny_bert

PAGE = Path(__file__).parents[2] / "docs" / "moving_over.md"
ENDED = {"Cohere's re-ranker (the service has ended)": HostedEndedError}


class Song(BaseModel):
    """A song."""

    title: str


def of_models(folder):
    data = shop(n=24, per_document=1)
    model = build_model(folder / "model", texts_of(data))

    def ask(prompt):
        [id_] = [id_ for id_, text in data.corpus.items() if text in prompt]
        return data.queries[f"{id_.replace('d', 'q')}-0"]

    topics = dict(zip("abcd", zip(TOPICS[::6], TOPICS[1::6], strict=True), strict=True))
    asked = [(id_, topic) for id_, both in topics.items() for topic in both * 3]
    return {
        "model_id": model,
        "llm": AnsweringLLM(answer=ask),
        "train_nodes": data.to_nodes()[:14],
        "val_nodes": data.to_nodes()[14:],
        "choices": {id_: f"Useful for {' and '.join(both)}" for id_, both in topics.items()},
        "routed": {f"q{n}": f"What of {topic}, part {n}?" for n, (_, topic) in enumerate(asked)},
        "routes": {f"q{n}": [id_] for n, (id_, _) in enumerate(asked)},
    }


def of_adapters(folder):
    dataset, model = rotated_problem(n_documents=20, per_document=2)
    return {"train_dataset": dataset, "base_embed_model": model}


def of_cross_encoders(folder):
    data = shop(n=12, per_document=1)
    documents = [Document(text=text) for text in data.corpus.values()]
    questions = list(data.queries.values())

    def relevant(prompt):
        asked, document = prompt.rsplit("Query: ", 1)[1].split("Document: ", 1)
        return "Yes" if f"Article {asked.split('article ')[1].split()[0]}." in document else "No"

    index = VectorStoreIndex.from_documents(documents, embed_model=WordEmbedding())
    return {
        "documents": documents,
        "questions": questions,
        "llm": AnsweringLLM(answer=lambda prompt: "What is the fee?; Which rules?"),
        "labeller": AnsweringLLM(answer=relevant),
        "base_embed_model": WordEmbedding(),
        "cross_encoder_id": str(
            save_tiny_bert(folder / "tiny", [*data.corpus.values(), *questions])
        ),
        "found": index.as_retriever(similarity_top_k=5).retrieve(questions[0]),
    }


def of_programs(folder):
    call = {"tool_call_id": "c", "tool_name": "Song", "tool_kwargs": {"title": "Five Euros"}}
    llm = MockFunctionCallingLLM(
        response_generator=lambda *_, **__: ChatMessage(
            role="assistant", blocks=[{"block_type": "tool_call", **call}]
        )
    )
    prompt = "Name a song of {movie_name}."
    program = FunctionCallingProgram.from_defaults(
        output_cls=Song, llm=llm, prompt_template_str=prompt
    )
    return {"llm": llm, "program": program}


SCRIPTS = {
    "Distilling GPT-4 into GPT-3.5": ["5 euros."],
    "Pairwise judge": ["A names the fee. [[A]]", "B names it. [[B]]"],
    "Correctness judge": ["4.5\nIt names the fee."],
}


def names_of(notebook, folder):
    """What the notebook has from elsewhere."""
    if notebook in SCRIPTS:
        return {"llm": ScriptedLLM(*SCRIPTS[notebook])}
    made = {"Function calling": of_programs, "Cross-encoder": of_cross_encoders}
    adapters = notebook.startswith(("Embedding adapter", "Cohere"))
    return made.get(notebook, of_adapters if adapters else of_models)(folder)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with JobsServer(stages=("queued",), answer=lambda model, messages: "5 euros") as server:
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield server


def promised():
    """notebook → cells, cells that run: the table of the page."""
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.M)
    return {name: (int(cells), int(run)) for name, cells, run in rows}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_cells_run_with_the_import_changed(notebook, server, tmp_path):
    names = names_of(notebook, tmp_path)
    cells = NOTEBOOKS[notebook].strip().split("\n# %%\n")
    ran = 0
    for cell in cells:
        code = compile(
            cell.replace("llama_index.finetuning", "llama_index.tuning"), notebook, "exec"
        )
        try:
            exec(code, names)
        except ENDED.get(notebook, ()):
            continue
        ran += 1
    assert promised()[notebook] == (len(cells), ran)
    assert ran >= len(cells) - (notebook in ENDED)


def test_the_page_lists_these_and_no_others():
    assert set(promised()) == set(NOTEBOOKS)
