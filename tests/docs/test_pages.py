"""A page's Python runs from top to bottom as it is typed, with nothing set up before.

By default small models stand in for the embedded ones, so that a page takes seconds; the slow
tests type the first pages, and those that train, into a process with the models that they name.
"""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_index.tuning import demo
from tests.generate.scripted import WordEmbedding
from tests.jobs_server import JobsServer
from tests.llms.tiny import save_tiny
from tests.tiny_bert import save_tiny_bert

ROOT = Path(__file__).resolve().parents[2]
TYPED = [
    "README.md",
    "docs/index.md",
    "docs/app.md",
    "docs/data/collect.md",
    "docs/data/generate.md",
    "docs/data/judge_data.md",
    "docs/data/llm_tasks.md",
    "docs/data/llm_tasks_calls.md",
    "docs/engines/adapters.md",
    "docs/engines/cross_encoders.md",
    "docs/engines/drift.md",
    "docs/engines/embeddings.md",
    "docs/engines/hosted.md",
    "docs/engines/judges.md",
    "docs/engines/llms.md",
    "docs/engines/pass_rates.md",
    "docs/engines/query_side.md",
    "docs/engines/rerankers.md",
    "docs/engines/routers.md",
    "docs/moving_over.md",
    "docs/reports.md",
    "docs/scale.md",
]
SLOW = {
    "README.md",
    "docs/app.md",
    "docs/engines/hosted.md",
    "docs/engines/rerankers.md",
    "docs/index.md",
    "docs/data/generate.md",
    "docs/data/llm_tasks.md",
    "docs/engines/cross_encoders.md",
    "docs/engines/embeddings.md",
    "docs/engines/llms.md",
    "docs/engines/query_side.md",  # its index must be of the model that learns
}
"""Pages that take long even with small models; the slow tests run them."""

# peft asks transformers for an attribute that has another name now.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def typed(page):
    """All Python blocks of a page, one below the other."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.S | re.M))


class Words(WordEmbedding):
    """Remembers each word's vector."""

    _word = functools.lru_cache(maxsize=None)(WordEmbedding._word)

    def __hash__(self):
        return id(self)


@pytest.fixture
def small_models(tmp_path, monkeypatch):
    """In place of MiniLM and SmolLM2: a table of words, a BERT of one layer, a tiny Llama."""
    words = [node.get_content() for node in demo.reference_nodes()[:20]]
    monkeypatch.setattr(demo, "minilm", Words)
    monkeypatch.setattr(
        demo, "minilm_folder", lambda: save_tiny_bert(tmp_path / "bert", words, max_length=64)
    )
    monkeypatch.setattr(
        demo, "smollm2_folder", lambda tools=False: save_tiny(tmp_path / "llama", words)
    )


@pytest.fixture
def server(monkeypatch):
    """Of hosted jobs, where the page on them looks for one."""
    with JobsServer(answer=lambda model, messages: "EUR 7.00") as running:
        monkeypatch.setenv("SERVER_URL", running.base_url)
        monkeypatch.setenv("SERVER_KEY", running.key)
        monkeypatch.setenv("MODEL", "some-model")
        yield


@pytest.mark.parametrize("page", [page for page in TYPED if page not in SLOW])
def test_a_page_runs_from_top_to_bottom(page, small_models, server, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    exec(compile(typed(page), page, "exec"), {"__name__": "__main__"})


@pytest.mark.slow  # with the models that the pages name: minutes
@pytest.mark.parametrize("page", sorted(SLOW))
def test_a_page_runs_as_typed_in_a_new_process(page, server, tmp_path):
    (tmp_path / "page.py").write_text(typed(page), encoding="utf-8")
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))], ids=lambda page: page.name
)
def test_every_page_with_code_is_typed_and_leaves_nothing_out(page):
    name = str(page.relative_to(ROOT))
    assert (name in TYPED) == bool(typed(name))
    assert "..." not in typed(name)
