"""Re-rankers, routers and judges under several settings each, for `generalisation.py`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from _data import dataset, lyft_and_uber, model
from _routing import load, shots, tuned
from generalisation_rerankers import candidates, score
from judge_quality import judgments

from llama_index.tuning import JudgeFinetuneEngine, LightRerankerFinetuneEngine
from llama_index.tuning.gate import decide
from llama_index.tuning.judges import JudgeOptions
from llama_index.tuning.rerankers import LightRerankerOptions
from llama_index.tuning.rerankers.data import FeatureMaker
from llama_index.tuning.rerankers.light.model import default_ranker
from llama_index.tuning.routers import RouterOptions
from llama_index.tuning.routers.fit import one_thread
from llama_index.tuning.routers.run import scores_of

Scores = dict[str, float]
RERANKERS = {"default": {}, "pairwise": {"loss": "pairwise"}, "start zero": {"start": "zero"}}
ROUTERS = {
    "default": {},
    "words": {"words": True},
    "no words": {"words": False},
    "not robust": {"robust": False},
    "balanced": {"balanced": True},
    "tau 1": {"tau": 1.0},
    "tau 10": {"tau": 10.0},
}
JUDGES = {
    "default": {},
    "no vectors": {},
    "accuracy": {"target": "accuracy"},
    "unstemmed": {"language": "none"},
    "10 folds": {"folds": 10},
}


def rerankers(args: argparse.Namespace) -> Iterator[tuple[str, Scores]]:
    """nDCG@10 on test questions; what the gate would serve is "served"."""
    embed = model()
    for name in args.sets or ("llamaindex_10k", "chunking_eval", "williams_family", "cranfield"):
        if name == "llamaindex_10k":
            train, test = lyft_and_uber(args.data)
        else:
            train, test = (dataset(args.data, name, split) for split in ("train", "test"))
        learn, retriever = candidates(train, embed, args.cache)
        measured, searched = candidates(test, embed, args.cache)
        lists = FeatureMaker(searched.index.analyzer, searched.index).lists(measured)
        found = {"base": score(lists, default_ranker())}
        for setting, options in RERANKERS.items():
            engine = LightRerankerFinetuneEngine(
                learn, retriever, options=LightRerankerOptions(**options), accept="always"
            )
            report = engine.finetune()
            found[setting] = score(lists, engine.get_finetuned_model().ranker)
            if setting == "default":
                refused = "would have kept" in report.reason
                found["served"] = found["base" if refused else "default"]
        yield name, found


def routers(args: argparse.Namespace) -> Iterator[tuple[str, Scores]]:
    """Accuracy on test queries from ten examples a choice; "base" is the stock selector's rule."""
    for name in args.sets or ("hwu64", "datasource_routing", "williams_routing"):
        sets = load(args, name)
        train, test = shots(sets.train, 10, 0), sets.test
        stock = (test.vectors @ train.described.T).argmax(axis=1) == test.labels
        found = {"base": float(stock.mean())}
        for setting, options in ROUTERS.items():
            with one_thread():
                run, _ = tuned(train, RouterOptions(**options))
            picked = scores_of(run, test, np.arange(len(test.dataset))).argmax(axis=1)
            found[setting] = float((picked == test.labels).mean())
            if setting == "default":
                base = train.vectors[run.measured.examples] @ train.described.T
                shown = decide("accuracy", run.measured.gains(base, 0)["accuracy"]).accepted
                found["served"] = found["default" if shown else "base"]
        yield name, found


def judges(args: argparse.Namespace) -> Iterator[tuple[str, Scores]]:
    """Balanced accuracy on test verdicts; "base" is the best of the shortcuts."""
    embed = model()
    for name in args.sets or ("halueval_qa", "halueval_general", "pandalm"):
        learn, measured = (judgments(args.data, name, split) for split in ("train", "test"))
        found = {}
        for setting, options in JUDGES.items():
            report = JudgeFinetuneEngine(
                learn,
                None if setting == "no vectors" else embed,
                val_dataset=measured,
                options=JudgeOptions(**options),
                accept="always",
                vector_cache=args.cache,
            ).finetune()
            gain = report.gains["balanced accuracy"]
            found[setting] = gain.tuned
            if setting == "default":
                refused = "would have kept" in report.reason
                found |= {"base": gain.base, "served": gain.base if refused else gain.tuned}
        yield name, found


ENGINES: dict[str, Callable[[argparse.Namespace], Iterator[tuple[str, Scores]]]] = {
    "reranker": rerankers,
    "router": routers,
    "judge": judges,
}
SETTINGS = {"reranker": [*RERANKERS], "router": [*ROUTERS], "judge": [*JUDGES]}
