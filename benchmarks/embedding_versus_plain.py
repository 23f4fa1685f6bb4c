"""Full tuning against the plain sentence-transformers trainer: quality, the gate's word, cost.

For each set and seed, the first layers of MiniLM (two of six: a run takes half a minute of one
thread), texts cut to 32 tokens, learn from the same questions: by the plain trainer (multiple
negatives ranking, no duplicates in a batch) on all of them, and by the engine, which holds some out
to decide and to measure, and trains once more on all. Both models are measured on questions that
neither saw; beside that stands what the engine's report claimed and whether its gate alone would
have accepted. Costs are CPU seconds: of the plain training, and of the engine without its refit.
"""

from __future__ import annotations

import random
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
TOKENS, BATCH, RATE = 32, 16, 5e-5
DOCUMENTS = 150


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--questions", type=int, default=150, help="to learn from")
    parser.add_argument("--fresh", type=int, default=100, help="to measure on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--layers", type=int, default=2, help="of MiniLM's six")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    spine.time = types.SimpleNamespace(perf_counter=time.process_time)  # reports in CPU seconds
    print(f"{'set, seed':<22}{'base':>6}{'plain':>7}{'ours':>7}  the report's word; costs")
    behind, told, costs = [], [], []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = shallow(args.layers, folder / "minilm")
        for seed in args.seeds:
            for name in args.sets:
                train, test = parts(args, name, seed)
                found = run(f"{name}, {seed}", train, test, base, folder, seed, args.epochs)
                behind.append(found[0])
                told.append(found[1])
                costs.append(found[2])
    shown, refused = ([gain for one, gain in told if one is kind] for kind in (True, False))
    print(
        f"ours - plain: mean {np.mean(behind):+.4f}, worst {min(behind):+.4f} of {len(behind)}\n"
        f"accepted {len(shown)}: {sum(gain > 0 for gain in shown)} gain on fresh questions, mean "
        f"{np.mean(shown or [0]):+.4f}\n"
        f"refused {len(refused)}: mean on fresh questions {np.mean(refused or [0]):+.4f}\n"
        f"training without refit over the plain trainer's: {np.mean(costs):.2f}"
    )


def shallow(layers: int, folder: Path) -> Path:
    """MiniLM's first layers, texts cut."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm_folder()), device="cpu")
    inner = model.transformers_model
    inner.encoder.layer = torch.nn.ModuleList(list(inner.encoder.layer)[:layers])
    inner.config.num_hidden_layers = layers
    model.max_seq_length = TOKENS
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


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


def run(label, train, test, base: Path, folder: Path, seed: int, epochs: int):
    """One set and seed: ours - plain, (whether the gate accepts, the fresh gain), cost's ratio."""
    from sentence_transformers import SentenceTransformer

    untuned = scores(SentenceTransformer(str(base), device="cpu"), test)
    by_plain, plain_cost = plain(train, base, folder, seed, epochs)
    report = SentenceTransformersFinetuneEngine(
        train,
        str(base),
        folder / "tuned",
        batch_size=BATCH,
        epochs=epochs,
        device="cpu",
        options=SentenceTransformersOptions(learning_rate=RATE, seed=seed),
        accept="always",
    ).finetune()
    ours = scores(SentenceTransformer(str(folder / "tuned"), device="cpu"), test)
    of_plain = scores(by_plain, test)
    told, fresh = report.gains["ndcg@10"], paired_gain(untuned, ours)
    against = paired_gain(of_plain, ours)
    accepted = "the gate alone would have kept" not in report.reason
    measuring = report.seconds["measure base"] + report.seconds["measure tuned"]
    training = report.seconds["rows"] + report.seconds["train"]
    print(
        f"{label:<22}{untuned.mean():>6.3f}{of_plain.mean():>7.3f}{ours.mean():>7.3f}  "
        f"{'accepts' if accepted else 'refuses'} {told.mean:+.3f} (from {told.low:+.3f}, n={told.n}"
        f"), fresh {fresh.mean:+.3f} ({fresh.low:+.3f} to {fresh.high:+.3f}, n={fresh.n}); ours "
        f"- plain {against.mean:+.3f} ({against.low:+.3f} to {against.high:+.3f}); plain "
        f"{plain_cost:.0f} s, ours {training:.0f} + measuring {measuring:.0f}",
        flush=True,
    )
    return against.mean, (accepted, fresh.mean), training / plain_cost


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
