"""A fully tuned model on the vectors that its base has stored: how much of its recall is kept?

`--tuned FOLDER` is a Sentence Transformer tuned from MiniLM. For each set, recall@10 on test
questions: the base on its own vectors, the tuned model on documents embedded anew (what a
re-index would give), and the tuned model's queries mapped into the base's vectors.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from _data import arguments, dataset, lyft_and_uber, model

from llama_index.tuning import DriftAdapterFinetuneEngine
from llama_index.tuning.cli.models import embedding_model
from llama_index.tuning.embeddings import DriftOptions
from llama_index.tuning.embeddings.adapter.measure import measure_adapter
from llama_index.tuning.vectors.embedder import Embedder

KINDS = ("procrustes", "low_rank", "linear")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tuned", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    base, tuned = model(), embedding_model(str(args.tuned))
    sets = {
        "Uber": lyft_and_uber(args.data)[1],
        "cranfield": dataset(args.data, "cranfield", "test"),
    }
    print(f"{'set, texts, kind':<36}{'base':>7}{'re-index':>9}{'mapped':>8}{'kept':>7}  seconds")
    for name, test in sets.items():
        fresh, _ = measure_adapter(test, tuned, vector_cache=args.cache)
        whole = fresh["base"].mean()["recall@10"]
        embedded = Embedder(base, cache=args.cache).documents(list(test.corpus.values()))
        stored = dict(zip(test.corpus, embedded, strict=True))
        variants = [(len(test.corpus), "auto"), (200, "auto")]
        variants += [(len(test.corpus), kind) for kind in KINDS]
        for size, kind in variants:
            with tempfile.TemporaryDirectory() as folder:
                engine = DriftAdapterFinetuneEngine(
                    test.corpus,
                    tuned,
                    base,
                    vectors=stored,
                    val_dataset=test,
                    options=DriftOptions(kind=kind, max_texts=size),
                    vector_cache=args.cache,
                    model_output_path=Path(folder) / "drift",
                    accept="always",
                )
                report = engine.finetune()
            gain = report.gains["recall@10"]
            label = f"{name}, {size}, {kind} ({report.options['chosen']['kind']})"
            print(
                f"{label:<36}{gain.base:>7.3f}{whole:>9.3f}{gain.tuned:>8.3f}"
                f"{gain.tuned / whole:>7.1%}  {report.seconds['learn']}",
                flush=True,
            )
            finds = next(iter(report.slices.values()))["new_model_recall@10"]
            interval = f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}, n={gain.n})"
            print(f"    mapped against base, recall@10: {interval}")
            print(
                f"    the new model's ten nearest: base {finds.base:.3f}, mapped {finds.tuned:.3f}"
            )
            print(f"    {report.notes[0]}")


if __name__ == "__main__":
    main()
