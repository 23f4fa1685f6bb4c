"""Tune an embedding model with sentence-transformers

The training by hand, with sentence-transformers' own trainer: what to take if you want a loss, a
sampler or a schedule of your own. This package brings the data and the measuring.
`embedding_model.py` does the same in one call, keeps false negatives out of the batches, stops in
time, and keeps the base where no gain is shown.
"""

import tempfile

from datasets import Dataset
from llama_index.core import VectorStoreIndex
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from llama_index.tuning import evaluate_retriever
from llama_index.tuning.demo import minilm_folder, questions_about, reference_nodes

# The data: beginners' questions about Python, and the passages of its language reference that
# answer them. Every fourth passage keeps the example short. Put your own nodes and questions in
# their place; `generate_qa_embedding_pairs` writes questions where there are none.

nodes = reference_nodes()[::4]
train, test = questions_about(nodes, "train"), questions_about(nodes, "held_out")
print(len(nodes), "passages,", len(train), "questions to learn from,", len(test), "to measure on")

# Pairs of a question and a passage that answers it. The other passages of a batch are the wrong
# answers.

pairs = [(id_, passages[0]) for id_, passages in train.query_docid_pairs]
rows = Dataset.from_dict(
    {
        "question": [question for question, _ in pairs],
        "passage": [train.corpus[passage] for _, passage in pairs],
    }
)

# The training: twelve steps of 16 pairs. `BAAI/bge-small-en-v1.5`, or any other model, goes the
# same way.

folder = tempfile.mkdtemp()
model = SentenceTransformer(str(minilm_folder()), device="cpu")
model.max_seq_length = 64
trainer = SentenceTransformerTrainer(
    model,
    SentenceTransformerTrainingArguments(
        folder,
        max_steps=12,
        per_device_train_batch_size=16,
        learning_rate=5e-5,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=rows,
    loss=MultipleNegativesRankingLoss(model),
)
trainer.train()
model.max_seq_length = 256
model.save_pretrained(f"{folder}/tuned")

# Base and tuned in LlamaIndex, on questions that were not learnt. All passages are embedded again:
# their vectors changed, too.

for name, path in {"base": str(minilm_folder()), "tuned": f"{folder}/tuned"}.items():
    index = VectorStoreIndex(nodes, embed_model=HuggingFaceEmbedding(path, device="cpu"))
    print(f"{name:<6}", evaluate_retriever(index.as_retriever(similarity_top_k=10), test, ks=[10]))
