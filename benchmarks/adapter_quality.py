"""What an adapter gains: the tutorial's data (train on Lyft, test on Uber), and three more sets.

The recipe is the library's default; nothing is chosen on the test queries. Intervals are paired
bootstrap over the test queries.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from _data import arguments, dataset, lyft_and_uber, model
from llama_index.embeddings.adapter.utils import TwoLayerNN

from llama_index.tuning import EmbeddingAdapterFinetuneEngine
from llama_index.tuning.embeddings import AdapterOptions
from llama_index.tuning.embeddings.adapter.measure import measure_adapter


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="what the name of a run must contain")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    base = model()
    train, test = lyft_and_uber(args.data)
    header = f"{'set and variant':<46}{'base':>7}{'tuned':>7}  gain, 90 % interval"
    print(header)

    def run(name, taught, measured, seed=0, **engine_arguments) -> None:
        if args.only not in name:
            return
        options = AdapterOptions(seed=seed, **engine_arguments.pop("options", {}))
        with tempfile.TemporaryDirectory() as folder:
            engine = EmbeddingAdapterFinetuneEngine(
                taught,
                base,
                options=options,
                vector_cache=args.cache,
                model_output_path=Path(folder) / "adapter",
                accept="always",
                **engine_arguments,
            )
            report = engine.finetune()
            tuned = engine.get_finetuned_model().adapter
        _, gains = measure_adapter(measured, base, tuned, vector_cache=args.cache)
        for metric in ("hit_rate@10", "ndcg@10"):
            gain = gains[metric]
            print(
                f"{name + ', ' + metric:<46}{gain.base:>7.3f}{gain.tuned:>7.3f}  "
                f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
                flush=True,
            )
        fitted = report.gains["ndcg@10"]
        verdict = "gate: base" if "kept the base" in report.reason else "gate: accepted"
        print(f"    out-of-fold estimate {fitted.mean:+.3f}; {verdict}; {report.seconds}")

    for seed in range(args.seeds):
        run(f"Lyft → Uber, labels, seed {seed}", train, test, seed)
        run(
            f"Lyft → Uber, + Uber's sentences, seed {seed}",
            train,
            test,
            seed,
            unlabelled=test.corpus,
        )
    both = {"side": "both"}
    run("Lyft → Uber, labels, both sides", train, test, options=both)
    run("Lyft → Uber, + sentences, both sides", train, test, options=both, unlabelled=test.corpus)
    run("Uber's sentences alone, both sides", None, test, options=both, unlabelled=test.corpus)
    run("Uber's sentences alone, query side", None, test, unlabelled=test.corpus)
    torch.manual_seed(0)
    for name, (taught, measured) in {
        "Lyft → Uber": (train, test),
        "chunking_eval": [
            dataset(args.data, "chunking_eval", *s) for s in (("train", "val"), ("test",))
        ],
    }.items():
        run(f"{name}, two-layer", taught, measured, options={"adapter": "two_layer"})
        run(f"{name}, low-rank", taught, measured, options={"adapter": "low_rank"})
        own = TwoLayerNN(384, 1024, 384, bias=True, add_residual=True)
        run(f"{name}, the old notebook's network", taught, measured, adapter_model=own)
    for name in ("cranfield", "chunking_eval", "williams_family"):
        taught = dataset(args.data, name, "train", "val")
        measured = dataset(args.data, name, "test")
        run(name, taught, measured)
        run(f"{name}, + sentences", taught, measured, unlabelled=taught.corpus)
        run(f"{name}, both sides", taught, measured, options=both)


if __name__ == "__main__":
    main()
