"""The encoder student at work."""

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

from llama_index.tuning._checkpoints import held
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.encoder import (
    Average,
    EncoderJudge,
    encoder_logits,
    reader_of,
)
from llama_index.tuning.judges.encoder_notes import notes_of
from llama_index.tuning.judges.encoder_rows import training_rows
from llama_index.tuning.judges.encoder_student import EncoderStudent
from llama_index.tuning.judges.familiar import familiar_of
from llama_index.tuning.judges.features import Floats
from llama_index.tuning.judges.fitting import (
    Rows,
    calibrate,
    choose_setting,
    draw_line,
    fit_linear,
    held_out_opinions,
    log_loss,
    with_margin,
)
from llama_index.tuning.judges.light import TIE, LightJudge, Line
from llama_index.tuning.judges.material import MIN_OF_A_KIND, Material
from llama_index.tuning.judges.student import Ints, Learnt, Lesson, Opinions
from llama_index.tuning.judges.windows import Reader
from llama_index.tuning.rerankers.tuned import load_cross_encoder

NO_SPREAD = 1e-6
"""Logits that differ by no more are alike but for rounding."""
SHARES = tuple(round(0.1 * i, 1) for i in range(11))


def check(material: Material, options: EncoderStudent) -> None:
    """Before any work: the verdicts can be split, and the model loads."""
    split_queries(
        material, options.held_out, seed=0
    )  # the numbers of each kind do not depend on it
    new_encoder(options, seed=0)


def learn(lesson: Lesson, options: EncoderStudent) -> Learnt:
    """Train on most queries; calibrate, average and draw the line on the others."""
    material, seed = lesson.material, lesson.options.seed
    inside, apart = split_queries(material, options.held_out, seed)
    encoder = new_encoder(options, seed)
    reader = reader_of(encoder, lesson.maker, material.query)
    shown, rows = material[apart], lesson.rows[apart]
    texts = training_rows(material[inside], lesson.maker, reader)
    history = _train(encoder, reader, texts, shown, rows, lesson, options)

    def encoded(items: Sequence[Any]) -> Floats:
        return encoder_logits(encoder, reader, items, 2 * options.batch_size)

    light = _light(lesson, inside) if options.with_light else None
    given = encoded(shown.items), _light_logits(light, rows.table)
    average, line, values = settle(*given, rows, lesson)
    logits = average.logits(*given)
    opinions = Opinions(*values)
    if lesson.held_out is not None:
        assert lesson.other is not None
        both = encoded(lesson.held_out.items), _light_logits(light, lesson.other)
        logits = average.logits(*both)
        chances = line.chances(logits)
        opinions = Opinions(chances, line.verdicts(chances), line.certainties(chances))
    judge = EncoderJudge(
        lesson.maker,
        encoder,
        average,
        line,
        light,
        pairwise=material.pairwise,
        query=material.query,
        training_keys=tuple(dict.fromkeys(material.keys)),
        batch_size=2 * options.batch_size,
    )
    return Learnt(
        model=judge,
        opinions=opinions,
        method="held-out queries" if lesson.held_out is None else "validation verdicts",
        measured=apart,
        flip_rate=_flips(line, logits) if material.pairwise else None,
        settings={
            "trained_on": len(inside),
            "chosen_on": len(apart),
            "training_windows": len(texts["label"]),
            "tokens": reader.limit,
            "encoder_share": average.share,
        },
        options={"student": _plain(options)},
        history=history,
        notes=notes_of(material, lesson.held_out or shown, opinions, average, reader, len(apart)),
    )


def split_queries(material: Material, share: float, seed: int) -> tuple[Ints, Ints]:
    """Rows to train on, and rows on other queries to choose on.

    The share is taken of the queries whose verdicts are all passes, all fails, and mixed, each.

    Raises:
        DatasetError: too few verdicts of a kind on either side.
    """
    clusters, labels = material.clusters, material.labels
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
        _check_side(labels[rows], material.pairwise, f"{side} (held_out={share})")
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def _check_side(labels: Floats, pairwise: bool, side: str) -> None:
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


def new_encoder(options: EncoderStudent, seed: int) -> Any:
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
    encoded: Floats, light: Floats | None, rows: Rows, lesson: Lesson
) -> tuple[Average, Line, Floats]:
    """The average and the line on rows not trained on, and opinions cross-fitted over folds.

    Returns:
        The average; its line; probabilities, verdicts and certainties, shape `(3, n)`.
    """
    options = lesson.options

    def logits_by(chosen: NDArray[np.bool_]) -> Floats:
        other = None if light is None else light[chosen]
        return choose_average(encoded[chosen], other, rows[chosen]).logits(encoded, light)

    values = held_out_opinions(rows, options, logits_by)
    average = choose_average(encoded, light, rows)
    line = draw_line(average.logits(encoded, light), rows, options)
    return average, with_margin(line, values, options), values


def choose_average(encoded: Floats, light: Floats | None, rows: Rows) -> Average:
    """Both calibrated; the weight with the least log loss, of several as good the smallest."""
    encoder = _calibrated(encoded, rows)
    if light is None:
        return Average(encoder)
    averages = [Average(encoder, calibrate(light, rows), share) for share in SHARES]
    return min(averages, key=lambda a: log_loss(a.logits(encoded, light), rows))


def _calibrated(logits: Floats, rows: Rows) -> Line:
    """Platt's calibration, whose penalty then does not depend on the logits' scale."""
    scale = float(np.sqrt((logits**2).mean() if rows.pairwise else logits.var()))
    if scale < NO_SPREAD:
        return calibrate(logits, rows)
    line = calibrate(logits / scale, rows)
    return replace(line, slope=line.slope / scale)


def _light(lesson: Lesson, inside: Ints) -> LightJudge:
    """A light judge that saw what the encoder is trained on and no more."""
    rows, material = lesson.rows[inside], lesson.material
    return LightJudge(
        lesson.maker,
        fit_linear(rows, choose_setting(rows)),
        Line(),
        pairwise=material.pairwise,
        query=material.query,
        base_model=lesson.base_model,
        training_keys=tuple(dict.fromkeys(material[inside].keys)),
        familiar=familiar_of(rows),
    )


def _light_logits(light: LightJudge | None, table: Floats) -> Floats | None:
    return None if light is None else light.linear.logits(table)


def _train(
    encoder: Any,
    reader: Reader,
    texts: dict[str, list[Any]],
    shown: Material,
    rows: Rows,
    lesson: Lesson,
    options: EncoderStudent,
) -> list[dict[str, float]]:
    from llama_index.tuning.judges.encoder_trainer import train

    def loss_now() -> float:
        return log_loss(encoder_logits(encoder, reader, shown.items, 2 * options.batch_size), rows)

    material = lesson.material
    parts = [*material.keys, material.labels.tobytes().hex(), material.weights.tobytes().hex()]
    identity = {
        **_plain(replace(options, resume=False, checkpoints=None)),
        "seed": lesson.options.seed,
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
            seed=lesson.options.seed,
            identity=identity,
            show_progress=lesson.show_progress,
        )


def _plain(options: EncoderStudent) -> dict[str, Any]:
    """The options as JSON values; of folders the names alone."""
    found = asdict(options)
    found["model"] = Path(options.model).name if Path(options.model).exists() else options.model
    found["checkpoints"] = None if options.checkpoints is None else Path(options.checkpoints).name
    return {name: str(v) if isinstance(v, Path) else v for name, v in found.items()}


def _flips(line: Line, logits: Floats) -> float:
    """Share of pairs whose verdict changes with their order; logits change their sign then."""
    one, other = (line.verdicts(line.chances(given)) for given in (logits, -logits))
    return float((one != 1 - other).mean())
