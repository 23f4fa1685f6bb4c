"""No questions yet: the documents' own sentences teach, without labels and without an LLM."""

import tempfile

from llama_index.tuning import EmbeddingAdapterFinetuneEngine
from llama_index.tuning.demo import minilm, questions_about, reference_nodes
from llama_index.tuning.embeddings import AdapterOptions

nodes = reference_nodes()
some_real_questions = questions_about(nodes, "held_out")  # to measure on, not to learn from

with tempfile.TemporaryDirectory() as folder:
    engine = EmbeddingAdapterFinetuneEngine(
        None,
        minilm(),
        unlabelled=nodes,
        options=AdapterOptions(max_unlabelled=1000),  # quick; the default takes up to 5,000
        val_dataset=some_real_questions,
        model_output_path=f"{folder}/adapter",
    )
    print(engine.finetune())
