"""Full tuning against the plain sentence-transformers trainer: quality, the gate's word, cost.

For each set and seed, MiniLM with texts cut to 64 tokens learns from the same questions: by the
plain trainer (multiple negatives ranking, no duplicates in a batch) on all of them, and by the
engine, which holds some out to decide and to measure, and learns them too once its gate accepts.
Both are measured on questions that neither saw, and the engine's own report beside that. Costs are
CPU seconds: of the plain training; of the engine without its refit; and of its measuring alone.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
import types
import warnings
from pathlib import Path

import numpy as np
from _data import arguments, dataset, lyft_and_uber

import llama_index.tuning.base as spine
from llama_index.tuning import RetrievalDataset, SentenceTransformersFinetuneEngine
from llama_index.tuning.demo import minilm_folder
from llama_index.tuning.embeddings import SentenceTransformersOptions
from llama_index.tuning.embeddings.full.measure import Vectors
from llama_index.tuning.embeddings.full.model import encode
from llama_index.tuning.evaluate.bootstrap import paired_gain

SETS = ("Lyft", "chunking_eval", "xquad_en", "williams_family")
TOKENS, BATCH, RATE = 64, 16, 5e-5
DOCUMENTS = 250


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=200, help="to learn from")
    parser.add_argument("--fresh", type=int, default=150, help="to measure on")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    spine.time = types.SimpleNamespace(perf_counter=time.process_time)  # reports in CPU seconds
    print(f"{'set, seed':<22}{'base':>6}{'plain':>7}{'served':>7}  engine's own word; costs")
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / "minilm"
        shutil.copytree(minilm_folder(), short)
        settings = short / "sentence_bert_config.json"
        told = json.loads(settings.read_text())
        settings.write_text(json.dumps({**told, "max_seq_length": TOKENS}))
        for name in args.sets:
            for seed in range(args.seeds):
                train, test = parts(args, name, seed)
                show(f"{name}, {seed}", train, test, short, Path(folder), seed, args.epochs)


def parts(args, name: str, seed: int) -> tuple[RetrievalDataset, RetrievalDataset]:
    """Questions to learn from and fresh ones, over the documents of both and some others."""
    if name == "Lyft":
        train, test = lyft_and_uber(args.data)[0].split(0.3, by="document", seed=seed)
    else:
        train, test = dataset(args.data, name, "train"), dataset(args.data, name, "test")
    draw = random.Random(seed)
    train, test = (
        part.subset(draw.sample(list(part.queries), min(count, len(part))))
        for part, count in ((train, args.questions), (test, args.fresh))
    )
    needed = {doc for part in (train, test) for d in part.relevant_docs.values() for doc in d}
    others = [id_ for id_ in train.corpus if id_ not in needed]
    more = draw.sample(others, min(len(others), max(0, DOCUMENTS - len(needed))))
    corpus = {id_: train.corpus[id_] for id_ in train.corpus if id_ in {*needed, *more}}
    return tuple(
        RetrievalDataset(part.queries, corpus, part.relevant_docs) for part in (train, test)
    )


def show(label, train, test, base: Path, folder: Path, seed: int, epochs: int) -> None:
    """One set and seed."""
    from sentence_transformers import SentenceTransformer

    untuned = scores(SentenceTransformer(str(base), device="cpu"), test)
    by_plain, plain_cost = plain(train, base, folder, seed, epochs)
    engine = SentenceTransformersFinetuneEngine(
        train,
        str(base),
        folder / "tuned",
        batch_size=BATCH,
        epochs=epochs,
        device="cpu",
        options=SentenceTransformersOptions(learning_rate=RATE, seed=seed),
    )
    report = engine.finetune()
    served = scores(SentenceTransformer(str(folder / "tuned"), device="cpu"), test)
    of_plain = scores(by_plain, test)
    told, fresh = report.gains["ndcg@10"], paired_gain(untuned, served)
    behind = paired_gain(of_plain, served)
    seconds = report.seconds
    measuring = seconds["measure base"] + seconds["measure tuned"]
    ours = seconds["rows"] + seconds["train"] + measuring
    print(
        f"{label:<22}{untuned.mean():>6.3f}{of_plain.mean():>7.3f}{served.mean():>7.3f}  "
        f"{'accepted' if report.accepted else 'refused '} {told.mean:+.3f} ({told.low:+.3f}, "
        f"n={told.n}), fresh {fresh.mean:+.3f} ({fresh.low:+.3f} to {fresh.high:+.3f}, n={fresh.n})"
        f"; against plain {behind.mean:+.3f} ({behind.low:+.3f} to {behind.high:+.3f}); plain "
        f"{plain_cost:.0f} s, ours {ours:.0f} of which measuring {measuring:.0f}, "
        f"(ours - measuring) / plain {(ours - measuring) / plain_cost:.2f}",
        flush=True,
    )


def plain(train: RetrievalDataset, base: Path, folder: Path, seed: int, epochs: int):
    """The library's own trainer, with its defaults but for what both have."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses
    from transformers import PrinterCallback

    model = SentenceTransformer(str(base), device="cpu")
    rows = [
        (query, train.corpus[doc])
        for id_, query in train.queries.items()
        for doc in train.relevant_docs[id_]
    ]
    columns = dict(zip(("anchor", "positive"), map(list, zip(*rows, strict=True)), strict=True))
    started = time.process_time()
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(folder / "plain"),
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            warmup_steps=0.1,
            batch_sampler="no_duplicates",
            save_strategy="no",
            disable_tqdm=True,
            report_to=[],
            use_cpu=True,
            bf16=fast(),
            seed=seed,
        ),
        train_dataset=Dataset.from_dict(columns),
        loss=losses.MultipleNegativesRankingLoss(model),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return model, time.process_time() - started


def fast() -> bool:
    """Whether the engine trains in bf16 here: then both do."""
    from llama_index.tuning.embeddings.full.model import precision_of

    return precision_of(SentenceTransformersOptions(), "cpu") == "bf16"


def scores(model, test: RetrievalDataset) -> np.ndarray:
    """nDCG@10 of each fresh question."""
    vectors = Vectors(
        encode(model, list(test.queries.values()), ""), encode(model, [*test.corpus.values()], "")
    )
    return vectors.scores(test).values["ndcg@10"]


if __name__ == "__main__":
    main()
