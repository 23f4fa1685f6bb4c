"""Tune an adapter of your own

Any torch network that derives from LlamaIndex's `BaseAdapter` can be tuned: here three layers with
a residual connection.
"""

import tempfile

import torch
from llama_index.embeddings.adapter import BaseAdapter

from llama_index.tuning import AdapterEmbeddingModel, EmbeddingAdapterFinetuneEngine
from llama_index.tuning.demo import minilm, questions_about, reference_nodes

# The network: `x + f(x)`. Its last layer starts at zero, so that it starts as the base model.
# `get_config_dict` gives the arguments that make it anew when the folder is loaded.


class ResidualNetwork(BaseAdapter):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dim, self.hidden = dim, hidden
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(dim, hidden),
            torch.nn.GELU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.GELU(),
            torch.nn.Linear(hidden, dim),
        )
        torch.nn.init.zeros_(self.layers[-1].weight)
        torch.nn.init.zeros_(self.layers[-1].bias)

    def forward(self, embed: torch.Tensor) -> torch.Tensor:
        mapped: torch.Tensor = embed + self.layers(embed)
        return mapped

    def get_config_dict(self) -> dict[str, int]:
        return {"dim": self.dim, "hidden": self.hidden}


# Training goes as with any adapter. Every fourth passage keeps the example short.

base = minilm()
train = questions_about(reference_nodes()[::4], "train")
folder = tempfile.mkdtemp()
engine = EmbeddingAdapterFinetuneEngine(
    train,
    base,
    adapter_model=ResidualNetwork(384, 64),
    model_output_path=f"{folder}/adapter",
    accept="always",  # to show loading; the gate would keep the base where no gain is shown
)
print(engine.finetune())

# Loading takes the class.

model = AdapterEmbeddingModel(base, f"{folder}/adapter", adapter_cls=ResidualNetwork)
print(len(model.get_query_embedding("how do I sort a dictionary by value")), "numbers")
