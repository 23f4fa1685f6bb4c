"""The parts of the engine by hand: batches without false negatives, and a loss of your own.

`SentenceTransformersFinetuneEngine` takes any loss of sentence-transformers – by name, as an
object, or as a function of the model – and the callbacks of transformers' trainer.
"""

import tempfile
from typing import Any

from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback

from llama_index.tuning import SentenceTransformersFinetuneEngine
from llama_index.tuning.demo import minilm_folder, questions_about, reference_nodes
from llama_index.tuning.embeddings import SentenceTransformersOptions


class Steps(TrainerCallback):
    """Counts steps; TensorBoard's and Weights & Biases' callbacks go the same way."""

    def __init__(self) -> None:
        self.made = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.made = state.global_step


train = questions_about(reference_nodes()[::4], "train")  # a part, to keep it short
steps = Steps()
with tempfile.TemporaryDirectory() as folder:
    engine = SentenceTransformersFinetuneEngine(
        train,
        str(minilm_folder()),
        f"{folder}/tuned",
        batch_size=16,
        # Both directions count: from the question to its document, and back.
        loss=lambda model: MultipleNegativesRankingLoss(
            model, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
        ),
        show_progress_bar=False,
        callbacks=[steps],
        options=SentenceTransformersOptions(
            max_length=64, max_steps=6, matryoshka_dims=(384, 96), merge=(0.5, 1.0)
        ),
    )
    report = engine.finetune()
print(steps.made, "steps;", report.reason)
for name in ("all queries", "first 96 dimensions"):
    gain = report.groups()[name]["ndcg@10"]
    print(f"{name}: nDCG@10 {gain.base:.3f} → {gain.tuned:.3f}")
