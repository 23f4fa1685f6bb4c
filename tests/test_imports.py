import subprocess
import sys

import pytest

import llama_index.tuning as tuning

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


def test_every_public_name_resolves_and_the_lists_agree():
    assert sorted(tuning.__all__) == sorted(tuning._HOMES)
    for name in tuning.__all__:
        assert getattr(tuning, name).__name__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = tuning.Nothing


def test_serving_an_adapter_never_imports_torch(tmp_path):
    code = f"""
import sys
import numpy as np
from llama_index.core import MockEmbedding
from llama_index.tuning import AdapterEmbeddingModel
model = AdapterEmbeddingModel(MockEmbedding(embed_dim=4), {str(tmp_path / "a")!r})
print(len(model.get_query_embedding("q")), len(model.get_text_embedding_batch(["a", "b"])))
print("torch" in sys.modules)
"""
    make = f"""
import numpy as np
from llama_index.tuning.embeddings.adapters import Adapter
from llama_index.tuning.embeddings.maps import LinearMap
Adapter(LinearMap(np.eye(4, dtype=np.float32))).save({str(tmp_path / "a")!r})
"""
    run(make)
    assert run(code).split() == ["4", "2", "False"]
