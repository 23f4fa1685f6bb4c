import subprocess
import sys

import pytest

from llama_index.tuning import get_engine, list_engines, registry
from llama_index.tuning.base import BaseEmbeddingFinetuneEngine
from llama_index.tuning.registry import register_engine


class Mine(BaseEmbeddingFinetuneEngine):
    def finetune(self):
        raise NotImplementedError

    def get_finetuned_model(self, **model_kwargs):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def test_built_in_and_registered_engines_are_found():
    register_engine("mine", Mine)
    register_engine("mine", Mine)  # twice the same is no conflict
    assert get_engine("mine") is Mine
    assert get_engine("embedding-adapter").__name__ == "EmbeddingAdapterFinetuneEngine"
    assert {"mine", "embedding-adapter"} <= set(list_engines())


def test_misuse_is_refused():
    class Other(Mine):
        pass

    register_engine("mine", Mine)
    with pytest.raises(ValueError, match="'mine' exists already"):
        register_engine("mine", Other)
    with pytest.raises(ValueError, match="'embedding-adapter' exists already"):
        register_engine("embedding-adapter", Mine)
    with pytest.raises(TypeError, match="must be a subclass of BaseFinetuneEngine"):
        register_engine("dict", dict)
    with pytest.raises(ValueError, match="name must be a non-empty string, got ' '"):
        register_engine(" ", Mine)
    with pytest.raises(ValueError, match=r"unknown engine 'none'; choose one of: .*adapter"):
        get_engine("none")


def test_another_distribution_adds_its_engine(tmp_path):
    (tmp_path / "third_party.py").write_text(
        "from llama_index.tuning.base import BaseEmbeddingFinetuneEngine\n"
        "class Theirs(BaseEmbeddingFinetuneEngine):\n"
        "    def finetune(self): ...\n"
        "    def get_finetuned_model(self, **model_kwargs): ...\n"
        "broken = 3\n"
    )
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{registry.GROUP}]\ntheirs = third_party:Theirs\nbroken = third_party:broken\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from llama_index.tuning import get_engine, list_engines\n"
        "print(list_engines(), 'third_party' in sys.modules, get_engine('theirs').__name__)\n"
        "try: get_engine('broken')\n"
        "except TypeError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "['azure-openai', 'broken', 'cross-encoder', " in done.stdout
    assert "'theirs'] False Theirs" in done.stdout
    assert "engine 'broken' must be a subclass" in done.stdout
