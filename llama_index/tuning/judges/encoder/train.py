"""Training of an encoder judge: its rows, its weight in the average, and what its report notes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.hf.checkpoints import held
from llama_index.tuning.hf.cross_encoders import load_cross_encoder
from llama_index.tuning.hf.tracking import named_trackers, trainer_callbacks
from llama_index.tuning.judges.data import MIN_OF_A_KIND, JudgeData
from llama_index.tuning.judges.encoder.model import Average, EncoderJudge, encoder_logits, reader_of
from llama_index.tuning.judges.encoder.options import EncoderOptions
from llama_index.tuning.judges.encoder.windows import Reader, Reading
from llama_index.tuning.judges.light.features import FeatureMaker
from llama_index.tuning.judges.light.fit import (
    calibrate,
    choose_rule,
    choose_setting,
    fit_linear,
    held_out_predictions,
    log_loss,
    with_margin,
)
from llama_index.tuning.judges.light.model import LightJudge, novelty_of
from llama_index.tuning.judges.measure import equal_length_auroc
from llama_index.tuning.judges.records import TIE, DecisionRule, Predictions, Rows
from llama_index.tuning.judges.student import TrainingData, TrainingResult

NO_SPREAD = 1e-6
"""Logits that differ by no more are alike but for rounding."""
SHARES = tuple(round(0.1 * i, 1) for i in range(11))


def check(data: JudgeData, options: EncoderOptions) -> None:
    """Before any work: the verdicts can be split, and the model loads."""
    split_queries(data, options.held_out, seed=0)  # the numbers of each kind do not depend on it
    new_encoder(options, seed=0)
    _callbacks(options)


def learn(training: TrainingData, options: EncoderOptions) -> TrainingResult:
    """Train on most queries; calibrate, average and choose the rule on the others."""
    data, seed = training.data, training.options.seed
    inside, apart = split_queries(data, options.held_out, seed)
    encoder = new_encoder(options, seed)
    reader = reader_of(encoder, training.maker, data.query)
    shown, rows = data[apart], training.rows[apart]
    texts = training_rows(data[inside], training.maker, reader)
    history = _train(encoder, reader, texts, shown, rows, training, options)

    def encoded(items: Sequence[Any]) -> Float64:
        return encoder_logits(encoder, reader, items, 2 * options.batch_size)

    light = _light(training, inside) if options.with_light else None
    given = encoded(shown.items), _light_logits(light, rows.table)
    average, rule, values = settle(*given, rows, training)
    logits = average.logits(*given)
    predictions = Predictions(*values)
    if training.held_out is not None:
        assert training.other is not None
        both = encoded(training.held_out.items), _light_logits(light, training.other)
        logits = average.logits(*both)
        chances = rule.chances(logits)
        predictions = Predictions(chances, rule.verdicts(chances), rule.certainties(chances))
    judge = EncoderJudge(
        training.maker,
        encoder,
        average,
        rule,
        light,
        pairwise=data.pairwise,
        query=data.query,
        training_keys=tuple(dict.fromkeys(data.keys)),
        batch_size=2 * options.batch_size,
    )
    return TrainingResult(
        model=judge,
        predictions=predictions,
        method="held-out queries" if training.held_out is None else "validation verdicts",
        measured=apart,
        flip_rate=_flips(rule, logits) if data.pairwise else None,
        settings={
            "trained_on": len(inside),
            "chosen_on": len(apart),
            "training_windows": len(texts["label"]),
            "tokens": reader.limit,
            "encoder_share": average.share,
        },
        options={"student": _plain(options)},
        history=history,
        notes=notes_of(data, training.held_out or shown, predictions, average, reader, len(apart)),
    )


def split_queries(data: JudgeData, share: float, seed: int) -> tuple[Ints, Ints]:
    """Rows to train on, and rows on other queries to choose on.

    The share is taken of the queries whose verdicts are all passes, all fails, and mixed, each.

    Raises:
        DatasetError: too few verdicts of a kind on either side.
    """
    clusters, labels = data.clusters, data.labels
    queries = np.unique(clusters)
    lowest, highest = np.ones(len(queries)), np.zeros(len(queries))
    np.minimum.at(lowest, np.searchsorted(queries, clusters), labels)
    np.maximum.at(highest, np.searchsorted(queries, clusters), labels)
    kind = 2 * (lowest == 0) + (highest == 1)
    rng = np.random.default_rng(seed)
    taken = [
        rng.permutation(queries[kind == k])[: round(share * int((kind == k).sum()))]
        for k in np.unique(kind)
    ]
    apart = np.isin(clusters, np.concatenate(taken))
    for side, rows in (("to train on", ~apart), ("held out", apart)):
        _check_side(labels[rows], data.pairwise, f"{side} (held_out={share})")
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def _check_side(labels: Float64, pairwise: bool, side: str) -> None:
    if pairwise:
        if (labels == TIE).all():
            raise DatasetError(f"no verdict {side} prefers a response; more are needed")
        return
    for kind, count in (("passes", labels.sum()), ("fails", (1 - labels).sum())):
        if count < MIN_OF_A_KIND:
            raise DatasetError(
                f"{int(count)} verdicts {side} are {kind}; the encoder student needs "
                f"{MIN_OF_A_KIND} of each kind on either side"
            )


def new_encoder(options: EncoderOptions, seed: int) -> Any:
    """The model to train; an encoder gets a new head, and so does one for three classes (NLI)."""
    from llama_index.tuning.errors import MissingExtraError

    try:
        from transformers import set_seed
    except ImportError as exc:
        raise MissingExtraError(
            "EncoderStudent", "sentence-transformers", "sentence-transformers"
        ) from exc
    set_seed(seed)
    encoder = load_cross_encoder(
        options.model,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
        new_head=True,
    )
    if options.max_length is not None:
        encoder.max_seq_length = options.max_length
    return encoder


def settle(
    encoded: Float64, light: Float64 | None, rows: Rows, training: TrainingData
) -> tuple[Average, DecisionRule, Float64]:
    """The average and its rule on rows not trained on, and cross-fitted predictions.

    Returns:
        The average; its rule; probabilities, verdicts and certainties, shape `(3, n)`.
    """
    options = training.options

    def logits_by(chosen: NDArray[np.bool_]) -> Float64:
        other = None if light is None else light[chosen]
        return choose_average(encoded[chosen], other, rows[chosen]).logits(encoded, light)

    values = held_out_predictions(rows, options, logits_by)
    average = choose_average(encoded, light, rows)
    rule = choose_rule(average.logits(encoded, light), rows, options)
    return average, with_margin(rule, values, options), values


def choose_average(encoded: Float64, light: Float64 | None, rows: Rows) -> Average:
    """Both calibrated; the weight with the least log loss, of several as good the smallest."""
    encoder = _calibrated(encoded, rows)
    if light is None:
        return Average(encoder)
    averages = [Average(encoder, calibrate(light, rows), share) for share in SHARES]
    return min(averages, key=lambda a: log_loss(a.logits(encoded, light), rows))


def _calibrated(logits: Float64, rows: Rows) -> DecisionRule:
    """Platt's calibration, whose penalty then does not depend on the logits' scale."""
    scale = float(np.sqrt((logits**2).mean() if rows.pairwise else logits.var()))
    if scale < NO_SPREAD:
        return calibrate(logits, rows)
    rule = calibrate(logits / scale, rows)
    return replace(rule, slope=rule.slope / scale)


def _light(training: TrainingData, inside: Ints) -> LightJudge:
    """A light judge that saw what the encoder is trained on and no more."""
    rows, data = training.rows[inside], training.data
    return LightJudge(
        training.maker,
        fit_linear(rows, choose_setting(rows)),
        DecisionRule(),
        pairwise=data.pairwise,
        query=data.query,
        base_model=training.base_model,
        training_keys=tuple(dict.fromkeys(data[inside].keys)),
        novelty=novelty_of(rows),
    )


def _light_logits(light: LightJudge | None, table: Float64) -> Float64 | None:
    return None if light is None else light.linear.logits(table)


def _train(
    encoder: Any,
    reader: Reader,
    texts: dict[str, list[Any]],
    shown: JudgeData,
    rows: Rows,
    training: TrainingData,
    options: EncoderOptions,
) -> list[dict[str, float]]:
    from llama_index.tuning.judges.encoder.trainer import train

    def loss_now() -> float:
        return log_loss(encoder_logits(encoder, reader, shown.items, 2 * options.batch_size), rows)

    data = training.data
    parts = [*data.keys, data.labels.tobytes().hex(), data.weights.tobytes().hex()]
    identity = {
        **_plain(replace(options, resume=False, checkpoints=None)),
        "seed": training.options.seed,
        "verdicts": hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16],
    }
    with ExitStack() as stack:
        folder = options.checkpoints or stack.enter_context(TemporaryDirectory())
        stack.enter_context(held(Path(folder), keep=options.checkpoints is None))
        return train(
            encoder,
            texts,
            loss_now,
            Path(folder),
            options,
            seed=training.options.seed,
            identity=identity,
            callbacks=_callbacks(options, training.output),
            show_progress=training.show_progress,
        )


def _callbacks(options: EncoderOptions, output: Path | None = None) -> list[Any]:
    return trainer_callbacks(options.callbacks, named_trackers(options.report_to), output)


def _plain(options: EncoderOptions) -> dict[str, Any]:
    """The options as JSON values, without who watches; of folders the names alone."""
    found = asdict(replace(options, callbacks=(), report_to=()))
    del found["callbacks"], found["report_to"]
    found["model"] = Path(options.model).name if Path(options.model).exists() else options.model
    found["checkpoints"] = None if options.checkpoints is None else Path(options.checkpoints).name
    return {name: str(v) if isinstance(v, Path) else v for name, v in found.items()}


def _flips(rule: DecisionRule, logits: Float64) -> float:
    """Share of pairs whose verdict changes with their order; logits change their sign then."""
    one, other = (rule.verdicts(rule.chances(given)) for given in (logits, -logits))
    return float((one != 1 - other).mean())


FAILING_WINDOWS = 4
"""Windows of an answer that fails to train on: those that look most like support."""


def training_rows(data: JudgeData, maker: FeatureMaker, reader: Reader) -> dict[str, list[Any]]:
    """Columns `first`, `second` and `label`: the verdict, and how much the row counts (mean 1).

    Multiple instances (Andrews et al. 2002): if an answer fails, no window supports it; if
    it passes, some window does, and the one with most of its words is taken. A pair makes rows in
    both orders, each of half its weight. The rows of one item count together as much as the item.
    """
    rows: list[tuple[str, str, float, float]] = []
    for item, label, weight in zip(data.items, data.labels, data.weights, strict=True):
        if data.pairwise:
            for swapped, said in ((False, label), (True, 1 - label)):
                reading = reader.reading(item, swapped=swapped)
                rows += _rows(reading, float(said), float(weight) / 2, maker)
        else:
            rows += _rows(reader.reading(item), float(label), float(weight), maker)
    mean = float(np.mean([weight for *_, weight in rows])) or 1.0
    return {
        "first": [first for first, *_ in rows],
        "second": [second for _, second, *_ in rows],
        "label": [[label, weight / mean] for *_, label, weight in rows],
    }


def _rows(
    reading: Reading, label: float, weight: float, maker: FeatureMaker
) -> list[tuple[str, str, float, float]]:
    found = []
    for pairs, evidence in zip(reading.parts, reading.evidence, strict=True):
        kept = range(len(pairs))
        if len(pairs) > 1:
            response = maker.text(pairs[0][1])
            shares = [maker.support(response, maker.text(text))[0] for text in evidence]
            order = np.argsort(-np.array(shares), kind="stable").tolist()
            kept = order[: 1 if label >= TIE else FAILING_WINDOWS]
        each = weight / len(reading.parts) / len(kept)
        found += [(*pairs[number], label, each) for number in kept]
    return found


def notes_of(
    data: JudgeData,
    measured: JudgeData,
    predictions: Predictions,
    average: Average,
    reader: Reader,
    chosen_on: int,
) -> list[str]:
    """Who was trained on what, what could not be read whole, and what length explains.

    Args:
        data: all verdicts that were learnt from.
        measured: those that the predictions are on.
        predictions: held out.
        average: what was chosen.
        reader: how items are read.
        chosen_on: number of verdicts that were held out to choose on.
    """
    trained = len(data.items) - chosen_on
    chosen = "calibration and threshold"
    if average.light is not None:
        chosen = "calibration, threshold and the weight of the average"
    notes = [f"trained on {trained} verdicts; {chosen_on} on other queries chose {chosen}"]
    if average.light is not None:
        notes.append(f"the encoder's weight in the average with the light judge: {average.share}")
        if average.share == 0:
            notes.append("the encoder adds nothing: student='light' is as good and faster")
    return [*notes, *cut_notes(data, reader), *length_notes(measured, predictions)]


def cut_notes(data: JudgeData, reader: Reader) -> list[str]:
    """How many items lose a part."""
    cut = sum(map(reader.is_cut, data.items))
    if not cut:
        return []
    what = "queries or responses" if data.pairwise else "queries"
    return [f"{cut} of {len(data.items)} verdicts have {what} too long to be read whole"]


def length_notes(data: JudgeData, predictions: Predictions) -> list[str]:
    """How much is left of the AUC between answers of equal length."""
    from sklearn.metrics import roc_auc_score

    if data.pairwise or len(np.unique(data.labels)) < 2:
        return []
    words = np.array([len((item.response or "").split()) for item in data.items])
    found = equal_length_auroc(data.labels, predictions.chances, words)
    if found is None:
        return ["no two answers of different verdicts are equally long"]
    overall = float(roc_auc_score(data.labels, predictions.chances))
    note = (
        f"AUC {overall:.3f}; between answers of equally many words {found[0]:.3f} "
        f"({found[1]} pairs; length alone: 0.5)"
    )
    if found[0] - 0.5 < (overall - 0.5) / 2:
        note += ": most of what it knows is the length"
    return [note]
