"""A router's folder, which is read without pickle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from llama_index.tuning import artifacts
from llama_index.tuning._arrays import Float32
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.routers.serving.model import (
    Kept,
    Lexicon,
    NewChoice,
    RouterModel,
    ScopeScores,
)

KIND = "router"
_PLAIN = ("sharpness", "threshold", "margin", "several", "base_model", "details")


def write_router(model: RouterModel, folder: Path, settings: dict[str, Any]) -> None:
    """Fill a folder that exists; `settings` are the selector's own."""
    config: dict[str, Any] = {name: getattr(model, name) for name in _PLAIN}
    config |= {
        "choices": [list(item) for item in model.choices.items()],
        "queries": model.kept.queries,
        "ends": model.kept.ends,
        "by_description": asdict(model.by_description),
        "by_examples": asdict(model.by_examples),
        "terms": None if model.lexicon is None else model.lexicon.known,
        "words_scale": 0.0 if model.lexicon is None else model.lexicon.scale,
        "dim": model.dim,
        "scores": asdict(model.scores),
        "settings": settings,
        "fingerprint": model.fingerprint,
    }
    tensors = {
        "weight": model.weight,
        "bias": model.bias,
        "prototypes": model.prototypes,
        "descriptions": model.descriptions,
        "kept": model.kept.vectors,
    }
    if model.lexicon is not None and model.words is not None:
        tensors |= {"words": model.words, "idf": model.lexicon.idf}
    artifacts.write_component(folder, KIND, config, tensors, _card(model))


def load_router(path: artifacts.PathLike) -> tuple[RouterModel, dict[str, Any]]:
    """The router and the selector's settings.

    Raises:
        ArtifactError: no router, damaged, or edited.
    """
    config = artifacts.read_config(path, KIND)
    tensors = artifacts.read_tensors(path)
    try:
        model = _model(config, tensors)
        settings, recorded = dict(config["settings"]), config["fingerprint"]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ArtifactError(f"{path}: {artifacts.CONFIG} is damaged: {exc!r}") from exc
    fault = _fault(model)
    if fault or model.fingerprint != recorded:
        raise ArtifactError(
            f"{path} is damaged or was edited: "
            f"{fault or f'its weights do not match {artifacts.CONFIG}'}"
        )
    artifacts.check_intact(path)
    return model, settings


def _model(config: dict[str, Any], tensors: dict[str, Float32]) -> RouterModel:
    lexicon = None
    if config["terms"] is not None:
        lexicon = Lexicon(config["terms"], tensors["idf"], float(config["words_scale"]))
    return RouterModel(
        choices={str(name): str(text) for name, text in config["choices"]},
        weight=tensors["weight"],
        bias=tensors["bias"],
        prototypes=tensors["prototypes"],
        descriptions=tensors["descriptions"],
        kept=Kept(list(config["queries"]), tensors["kept"], [int(e) for e in config["ends"]]),
        by_description=NewChoice(**config["by_description"]),
        by_examples=NewChoice(**config["by_examples"]),
        lexicon=lexicon,
        words=tensors["words"] if lexicon is not None else None,
        scores=_scores(config.get("scores", {})),
        **{name: config[name] for name in _PLAIN},
    )


def _scores(config: dict[str, Any]) -> ScopeScores:
    lists = {name: tuple(map(float, config.get(name, ()))) for name in ("inside", "outside")}
    return ScopeScores(**lists, recall=float(config.get("recall", ScopeScores.recall)))


def _fault(model: RouterModel) -> str:
    count = len(model.choices)
    square = (count, model.dim) if model.weight.ndim == 2 else ()
    shapes = {
        "weight": (model.weight, square),
        "bias": (model.bias, (count,)),
        "prototypes": (model.prototypes, square),
        "descriptions": (model.descriptions, square),
        "kept": (model.kept.vectors, (len(model.kept.queries), *square[1:])),
    }
    if model.lexicon is not None and model.words is not None:
        shapes["words"] = (model.words, (len(model.lexicon), count))
        shapes["idf"] = (model.lexicon.idf, (len(model.lexicon),))
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            return f"{name} has shape {array.shape}, {shape} was expected"
    ends = np.array(model.kept.ends)
    sound = len(ends) == count + 1 and ends[0] == 0 and ends[-1] == len(model.kept.queries)
    if not sound or (np.diff(ends) < 0).any():
        return "the kept queries do not fit the choices"
    return ""


def _card(model: RouterModel) -> str:
    shown = ", ".join(list(model.choices)[:20]) + (", …" if len(model.choices) > 20 else "")
    return f"""# Router

Routes a query to one of {len(model.choices)} choices ({shown}) by its vector of
`{model.base_model or "?"}`.

{model.details.get("reason", "")}

```python
from llama_index.tuning import TunedSelector

selector = TunedSelector.load("this/folder", embed_model)
```

Written by llama-index-tuning; `tuning.json` holds options, data fingerprint and scores.
"""
