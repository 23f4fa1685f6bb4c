"""Python of the README and of docs/, docstrings' examples and examples/ are run as they stand."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.llms import MockLLM

import llama_index.tuning as tuning
from tests.conftest import rotated_problem
from tests.generate.scripted import ScriptedLLM, WordEmbedding
from tests.rerankers.conftest import shop
from tests.tiny_bert import save_tiny_bert

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(tuning.__path__, "llama_index.tuning.")
    if not module.name.endswith("compat")
)


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    dataset, embed_model = rotated_problem()
    dataset.save_json(tmp_path / "questions.json")
    monkeypatch.chdir(tmp_path)
    # The app that the README speaks of.
    nodes = dataset.to_nodes()
    for node in nodes:
        node.text += " is a document of more than five words"
        embed_model.table[node.text] = embed_model.vector(dataset.corpus[node.node_id])
    dataset.corpus.update({node.node_id: node.text for node in nodes})
    dataset.save_json(tmp_path / "questions.json")
    app = {
        "embed_model": embed_model,
        "nodes": nodes,
        "index": VectorStoreIndex(nodes, embed_model=embed_model),
    }
    assert run("README.md", app) >= 4
    assert app["report"].accepted


def run(page, app, **instead):
    """Run a page's Python blocks one after the other, as a reader types them; how many."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    for block in blocks:
        for said, here in instead.items():
            block = block.replace(said, here)
        exec(compile(block, page, "exec"), app)
    return len(blocks)


def shop_app(monkeypatch, answer):
    """What the pages presuppose: an index, its questions, and an LLM."""
    data = shop()
    llm = ScriptedLLM(answer=answer)
    monkeypatch.setattr(Settings, "_llm", llm)
    index = VectorStoreIndex(data.to_nodes(), embed_model=WordEmbedding())
    return {"index": index, "questions": data.queries, "answers": data.relevant_docs, "llm": llm}


def shared_words(prompt):
    """As `LLMRerank` wants its answer: each passage's number, and how relevant it is."""
    context, question = prompt.rsplit("Let's try this now: ", 1)[1].rsplit("Question: ", 1)
    passages = context.strip().split("\n\n")
    asked = set(re.findall(r"\w+", question.lower()))
    common = [len(asked & set(re.findall(r"\w+", text.lower()))) for text in passages]
    return "\n".join(f"Doc: {i}, Relevance: {n}" for i, n in enumerate(common, start=1))


def test_the_rerankers_pages_python_runs(tmp_path, monkeypatch):
    app = shop_app(monkeypatch, shared_words)
    data = shop()
    held_out = list(data.queries)[60:]
    app["labelled"] = data.subset(held_out)
    app["queries"] = [data.queries[id_] for id_ in data.queries if id_ not in held_out]
    monkeypatch.chdir(tmp_path)
    tiny = save_tiny_bert(tmp_path / "tiny", [*data.corpus.values(), *data.queries.values()])
    instead = {"BAAI/bge-reranker-base": str(tiny), "min_score_for(0.8)": "min_score_for(0.6)"}
    assert run("docs/rerankers.md", app, **instead) >= 7
    assert app["retriever"].retrieve("What do the loan rules say?")


def test_the_apps_page_python_runs(tmp_path, monkeypatch):
    def answer(prompt):
        article = re.search(r"Article \d+\. The (\S+ \S+) rules", prompt)
        return "Yes" if '"Yes"' in prompt else f"What do the {article.group(1)} rules say?"

    app = shop_app(monkeypatch, answer)
    data = shop()
    app["query_engine"] = app["index"].as_query_engine()
    monkeypatch.chdir(tmp_path)
    rows = [f'"{data.queries[f"q{i}-0"]}",{data.corpus[f"d{i}"]}' for i in range(20)]
    Path("faq.csv").write_text("\n".join(["question,answer", *rows]))
    with tuning.FinetuningRecorder("traffic.jsonl") as recorder:
        for i in range(12):
            app["index"].as_retriever().retrieve(data.queries[f"q{i}-0"])
            recorder.feedback(recorder.last_trace_id(), 1.0, relevant=[f"d{i}"])
    assert run("docs/app.md", app) == 1
    assert "generated questions" in str(app["app"].report)


def test_the_collect_pages_python_runs(tmp_path, monkeypatch):
    app = shop_app(monkeypatch, str)
    app["query_engine"] = app["index"].as_query_engine(llm=MockLLM(max_tokens=8))
    monkeypatch.chdir(tmp_path)
    assert run("docs/collect.md", app) == 3
    assert len(app["chats"]) == 1


def test_the_generate_pages_python_runs(tmp_path, monkeypatch):
    def answer(prompt):
        return "yes" if "yes" in prompt.lower() else "What do the rules say about loans?"

    app = shop_app(monkeypatch, answer)
    app["nodes"] = list(app["index"].docstore.docs.values())[:4]
    monkeypatch.chdir(tmp_path)
    assert run("docs/generate.md", app) == 2
    assert app["dataset"].queries


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.slow  # they embed with MiniLM: minutes; CI runs them
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run(path, tmp_path):
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []
