"""The encoder judge: a cross-encoder reads query, evidence and response together."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning import artifacts
from llama_index.tuning._arrays import Bools, Float64
from llama_index.tuning._running import ThreadLock
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.hf.cross_encoders import load_cross_encoder, predict
from llama_index.tuning.judges.encoder.windows import LEAST, Pair, Reader, Reading, scores_of
from llama_index.tuning.judges.light.features import FeatureMaker
from llama_index.tuning.judges.light.model import (
    LightJudge,
    load_judge,
    maker_arrays,
    maker_config,
    maker_from,
    rule_from,
)
from llama_index.tuning.judges.records import DecisionRule

if TYPE_CHECKING:
    from llama_index.tuning.vectors.embedder import Embedder


KIND = "judge_encoder"
ENCODER, LIGHT = "encoder", "light"
DEFAULT_LENGTH = 512
"""Tokens of a pair, if neither the model nor its tokenizer has a limit."""

_BUSY: weakref.WeakKeyDictionary[Any, ThreadLock] = weakref.WeakKeyDictionary()
"""One thread at a time for each encoder: tokenizers are not safe in several."""


@dataclass(frozen=True)
class Average:
    """The encoder's logit and the light judge's, each calibrated first, averaged.

    Attributes:
        encoder: calibration of the encoder's logits; its threshold is not used.
        light: calibration of the light judge's; None: there is none.
        share: the encoder's weight, from 0 to 1; the light judge has the rest.
    """

    encoder: DecisionRule
    light: DecisionRule | None = None
    share: float = 1.0

    def logits(self, encoded: Float64, light: Float64 | None) -> Float64:
        """Shape `(n,)` from the logits of both, each of shape `(n,)`."""
        found = self.encoder.slope * encoded + self.encoder.offset
        if light is None or self.light is None:
            return found
        other = self.light.slope * light + self.light.offset
        return self.share * found + (1 - self.share) * other


@dataclass(frozen=True, eq=False)
class EncoderJudge:
    """A trained cross-encoder as a judge, alone or averaged with a light one.

    Attributes:
        maker: makes the light judge's features; alone, it names weakly supported sentences.
        encoder: a sentence-transformers `CrossEncoder` with one output.
        average: how its logit is calibrated and averaged with the light judge's.
        rule: calibration of the average, and threshold.
        light: the light judge; None alone.
        pairwise: whether it compares two responses.
        query: whether every answer it learned from came with a query.
        training_keys: hashes of the items it was trained on.
        details: how it came about, for people.
        batch_size: windows a batch.
    """

    maker: FeatureMaker
    encoder: Any
    average: Average
    rule: DecisionRule
    light: LightJudge | None = None
    pairwise: bool = False
    query: bool = True
    training_keys: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 32

    @property
    def base_model(self) -> str:
        """Name of the embedding model of the light judge; empty without."""
        return "" if self.light is None else self.light.base_model

    def probabilities(self, items: Sequence[Any], embedder: Embedder | None) -> Float64:
        """Probability of a pass (pairwise: that the first is better), shape `(n,)`."""
        return self.judged(items, embedder)[0]

    def judged(self, items: Sequence[Any], embedder: Embedder | None) -> tuple[Float64, Bools]:
        """Probabilities, and which items are unlike all that the light judge learned from."""
        with _BUSY.setdefault(self.encoder, ThreadLock()):
            reader = reader_of(self.encoder, self.maker, self.query)
            encoded = encoder_logits(self.encoder, reader, items, self.batch_size)
        light, novel = None, np.zeros(len(encoded), dtype=bool)
        if self.light is not None:
            light, novel = self.light.weighed(items, embedder)
        return self.rule.chances(self.average.logits(encoded, light)), novel

    def save(self, path: artifacts.PathLike) -> None:
        """Write the judge's folder, atomically."""
        with artifacts.replacing_folder(path) as folder:
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Write into a folder that exists: no pickle, the encoder in a folder of its own."""
        config = {
            **maker_config(self.maker),
            "average": asdict(self.average),
            "rule": vars(self.rule),
            "pairwise": self.pairwise,
            "query": self.query,
            "max_length": self.encoder.max_seq_length,
            "batch_size": self.batch_size,
            "training_keys": list(self.training_keys),
            "details": dict(self.details),
        }
        artifacts.write_component(folder, KIND, config, maker_arrays(self.maker), _card(self))
        self.encoder.save_pretrained(str(folder / ENCODER), create_model_card=False)
        if self.light is not None:
            (folder / LIGHT).mkdir()
            self.light.write(folder / LIGHT)


def encoder_logits(encoder: Any, reader: Reader, items: Sequence[Any], batch_size: int) -> Float64:
    """The encoder's logits, shape `(n,)`; of a pair half the difference of its two orders.

    So they change their sign, and nothing else, if the two responses change places.
    """
    if not items:
        return np.zeros(0)

    def score(pairs: list[Pair]) -> Float64:
        return predict(encoder, pairs, batch_size)

    if items[0].second_response is None:
        return scores_of([reader.reading(item) for item in items], score)
    # The same two texts in the same order, whichever comes first: not even rounding differs.
    turned = np.array([item.response > item.second_response for item in items])
    both: list[Reading] = []
    for item, swapped in zip(items, turned.tolist(), strict=True):
        both += [reader.reading(item, swapped=swapped), reader.reading(item, swapped=not swapped)]
    scores = scores_of(both, score).reshape(-1, 2)
    logits: Float64 = np.where(turned, -0.5, 0.5) * (scores[:, 0] - scores[:, 1])
    logits[[item.response == item.second_response for item in items]] = 0.0
    return logits


def reader_of(encoder: Any, maker: FeatureMaker, query: bool) -> Reader:
    """Splits to the encoder's own length, by its own tokenizer, what the judge learned from."""
    tokenizer = encoder.tokenizer
    limits = [encoder.max_seq_length, getattr(tokenizer, "model_max_length", None)]
    length = min((n for n in limits if n and n < 1_000_000), default=DEFAULT_LENGTH)
    room = length - tokenizer.num_special_tokens_to_add(pair=True)
    if room < LEAST:
        raise ArtifactError(f"the encoder reads {room} tokens; a judge needs {LEAST} at least")
    return Reader(
        _counter(tokenizer),
        room,
        tokenizer.sep_token or "|",
        query=query,
        contexts=maker.contexts,
        reference=maker.reference,
    )


def _counter(tokenizer: Any) -> Callable[[str], int]:
    @lru_cache(maxsize=50_000)
    def count(text: str) -> int:
        found = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)
        return len(found["input_ids"])

    return count


def load_encoder_judge(
    path: artifacts.PathLike, *, device: str | None = None, trust_remote_code: bool = False
) -> EncoderJudge:
    """The judge of a folder.

    Args:
        path: the folder.
        device: where the encoder runs; chosen by sentence-transformers by default.
        trust_remote_code: run code that the encoder brings along.

    Raises:
        ArtifactError: no such judge, or a damaged one.
        MissingExtraError: sentence-transformers is not installed.
    """
    config = artifacts.read_config(path, KIND)
    arrays = artifacts.read_arrays(path)
    try:
        settings: dict[str, Any] = {
            "maker": maker_from(config, arrays),
            "average": _average_from(config["average"]),
            "rule": rule_from(config["rule"]),
            "pairwise": bool(config["pairwise"]),
            "query": bool(config["query"]),
            "batch_size": int(config["batch_size"]),
            "training_keys": tuple(map(str, config["training_keys"])),
            "details": dict(config["details"]),
        }
        max_length = None if config["max_length"] is None else int(config["max_length"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtifactError(f"{path}: {artifacts.CONFIG} is damaged: {exc!r}") from exc
    average: Average = settings["average"]
    lines = [rule for rule in (average.encoder, average.light, settings["rule"]) if rule]
    slopes = all(rule.slope > 0 for rule in lines)
    if not slopes or not 0 <= average.share <= 1 or settings["batch_size"] < 1:
        raise ArtifactError(
            f"{path} is damaged: slopes must be above 0, share from 0 to 1, batch_size at least 1"
        )
    encoder = load_cross_encoder(
        Path(path) / ENCODER, device=device, trust_remote_code=trust_remote_code
    )
    encoder.max_seq_length = max_length
    light = load_judge(Path(path) / LIGHT) if average.light is not None else None
    artifacts.check_intact(path)  # last: what is missing has been named by then
    return EncoderJudge(encoder=encoder, light=light, **settings)


def _average_from(config: Mapping[str, Any]) -> Average:
    light = config["light"]
    return Average(
        rule_from(config["encoder"]),
        None if light is None else rule_from(light),
        float(config["share"]),
    )


def _card(judge: EncoderJudge) -> str:
    what = "compares two responses" if judge.pairwise else "says whether a response passes"
    averaged = ""
    if judge.light is not None:
        averaged = (
            f", averaged with a light judge (the encoder's share is {judge.average.share:.1f})"
        )
    model = ", embed_model" if judge.maker.embedded else ""
    return f"""# Tuned judge

A cross-encoder for LlamaIndex{averaged}: it {what}.

{judge.details.get("reason", "")}

```python
from llama_index.tuning import TunedJudge

judge = TunedJudge.load("this/folder"{model})
```

Written by llama-index-tuning; `tuning.json` holds options, data fingerprint and scores.
"""
