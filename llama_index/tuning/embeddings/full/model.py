"""The sentence-transformers model that is tuned: loaded, frozen, merged with its base, written."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning.artifacts import write_component
from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
from llama_index.tuning.embeddings.full.settings import Prompts
from llama_index.tuning.errors import ArtifactError, MissingExtraError
from llama_index.tuning.hf.processes import BUILDING
from llama_index.tuning.report import FinetuneReport

Arithmetic = Literal["fp32", "bf16", "fp16"]


def check_device(device: Any) -> None:
    """The device exists here, and can be chosen for training.

    Raises:
        ValueError: it does not, or it is one GPU of several.
    """
    if device is None:
        return
    import torch

    try:
        torch.empty(0, device=device)
        index = torch.device(device).index
    except (RuntimeError, AssertionError, TypeError) as exc:
        raise ValueError(f"device {device!r} is not on this machine: {exc}") from exc
    if index:
        raise ValueError(
            f"device {device!r}: training takes the first GPU that it sees; choose another by "
            f"CUDA_VISIBLE_DEVICES={index}"
        )


def load_model(model_id: str, device: Any, trust_remote_code: bool) -> Any:
    """A SentenceTransformer that can embed.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ArtifactError: there is none at that name, or it lacks a part such as the tokenizer.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as exc:
        raise MissingExtraError(
            "SentenceTransformersFinetuneEngine", "sentence-transformers", "sentence-transformers"
        ) from exc
    try:
        with BUILDING:
            model = SentenceTransformer(
                model_id,
                device=str(device) if device else None,
                trust_remote_code=trust_remote_code,
            )
        model.encode(["probe"], show_progress_bar=False)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
        raise ArtifactError(
            f"model_id: {model_id} holds no sentence-transformers model that works "
            f"(weights, configuration and tokenizer are needed): {exc}"
        ) from exc
    # If its files are missing, transformers makes a tokenizer that knows no word.
    tokenizer = model.tokenizer
    if hasattr(tokenizer, "get_vocab") and set(tokenizer.get_vocab()) <= set(
        tokenizer.all_special_tokens
    ):
        raise ArtifactError(
            f"model_id: {model_id} holds no sentence-transformers model that works: "
            "its tokenizer's files are missing"
        )
    return model


@contextlib.contextmanager
def loading_bars(show: bool) -> Iterator[None]:
    """transformers shows bars while it loads and saves weights, asked for or not."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if shown and not show:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]


@contextlib.contextmanager
def shortened(model: Any, tokens: int | None) -> Iterator[None]:
    """Texts are cut to this many tokens within the block."""
    own = model.max_seq_length
    if tokens is not None:
        model.max_seq_length = min(tokens, own or tokens)
    try:
        yield
    finally:
        model.max_seq_length = own


def encode(model: Any, texts: Sequence[str], prompt: str, batch_size: int = 32) -> Float32:
    """Unit vectors, shape `(len(texts), dim)`."""
    vectors = model.encode(
        list(texts),
        prompt=prompt,
        batch_size=batch_size,
        normalize_embeddings=True,
        convert_to_numpy=True,
        show_progress_bar=False,
    )
    return np.asarray(vectors, dtype=np.float32)


def freeze(model: Any, patterns: Sequence[str]) -> None:
    """Parameters that match one of the regular expressions are not trained.

    Raises:
        ValueError: a pattern matches none, or nothing is left to train.
    """
    for pattern in patterns:
        found = [p for name, p in model.named_parameters() if re.search(pattern, name)]
        if not found:
            names = ", ".join(name for name, _ in list(model.named_parameters())[:3])
            raise ValueError(f"freeze: {pattern!r} matches no parameter (there are {names}, …)")
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"freeze: {list(patterns)} leave nothing to train")


def freeze_unreached(model: Any) -> None:
    """What no gradient reaches, such as the pooling layer that BERT brings along, is not trained.

    Several processes would wait for its gradient for ever.
    """
    features = {
        name: value.to(model.device) if hasattr(value, "to") else value
        for name, value in model.preprocess(["a text"]).items()
    }
    model(features)["sentence_embedding"].sum().backward()
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
        parameter.grad = None


def check_dims(model: Any, dims: Sequence[int]) -> None:
    """Matryoshka dimensions are no larger than the model's."""
    whole = int(model.get_embedding_dimension())
    if dims and max(dims) > whole:
        raise ValueError(f"matryoshka_dims must be at most the model's {whole}, got {max(dims)}")


def trainable(model: Any) -> int:
    """Number of parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def precision_of(options: SentenceTransformersOptions, device: Any) -> Arithmetic:
    """Of the training's arithmetic on this device; the weights stay in fp32.

    On CPUs with instructions for it, a step in bf16 takes about two thirds of the time.
    """
    import torch

    kind, fast = torch.device(device).type, False
    if options.precision == "fp16" and kind == "cpu":
        raise ValueError("precision 'fp16' needs a GPU; choose bf16 or fp32 on a CPU")
    if options.precision != "auto":
        return options.precision
    if kind == "cuda":
        fast = torch.cuda.is_bf16_supported()
    elif kind == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        fast = bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return "bf16" if fast else "fp32"


KIND = "sentence_transformer"


def write_model(
    folder: Path, model: Any, model_id: str, prompts: Prompts, report: FinetuneReport
) -> None:
    """The model and its card, into a folder that exists."""
    details = {
        "accepted": report.accepted,
        "reason": report.reason,
        "base_model": base_name(model_id),
        "query_prompt": prompts.query,
        "document_prompt": prompts.document,
        "options": report.options,
        "data": report.data,
        "versions": report.versions,
    }
    write_component(folder, KIND, details, {}, "")
    model.save_pretrained(str(folder), create_model_card=False)
    (folder / "README.md").write_text(card(model_id, prompts, report), encoding="utf-8")


def base_name(model_id: str) -> str:
    """A hub's name as it is; of a folder its last part, since it lies elsewhere elsewhere."""
    return Path(model_id).name if Path(model_id).is_dir() else model_id


def card(model_id: str, prompts: Prompts, report: FinetuneReport) -> str:
    """The model card, with the metadata that the Hugging Face hub reads."""
    head = ["---", "library_name: sentence-transformers", "pipeline_tag: sentence-similarity"]
    if not Path(model_id).is_dir():
        head.append(f"base_model: {model_id}")
    head += ["tags:", *(f"- {tag}" for tag in _TAGS), "---"]
    arguments = "".join(
        f", {name}={json.dumps(text, ensure_ascii=False)}"
        for name, text in (
            ("query_instruction", prompts.query),
            ("text_instruction", prompts.document),
        )
        if text
    )
    return "\n".join(
        [
            *head,
            "",
            f"# {base_name(model_id)}, tuned for retrieval",
            "",
            "```python",
            "from llama_index.embeddings.huggingface import HuggingFaceEmbedding",
            "",
            f'embed_model = HuggingFaceEmbedding("path/of/this/folder"{arguments})',
            "```",
            "",
            "Documents that were embedded by the base model must be embedded again.",
            "",
            "## What was measured",
            "",
            "```",
            str(report),
            "```",
            "",
            "## How it came about",
            "",
            "```json",
            json.dumps(
                {
                    "base_model": base_name(model_id),
                    "data": report.data,
                    "options": report.options,
                    "versions": report.versions,
                },
                ensure_ascii=False,
                indent=2,
            ),
            "```",
            "",
        ]
    )


_TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "llama-index")


State = Mapping[str, Any]


def merge_best(
    model: Any, base: State, shares: Sequence[float], score: Callable[[Any], float]
) -> tuple[float, dict[float, float]]:
    """Set the model to the average of base and tuned that scores best (Wortsman et al. 2022).

    Args:
        model: the tuned model; changed in place.
        base: the untuned model's state.
        shares: of the tuned weights, each above 0 and at most 1.
        score: how good a model is, on queries that are neither trained on nor reported.

    Returns:
        The share that was taken – of equal ones the largest – and share → score.
    """
    tuned = cloned(model)
    found: dict[float, float] = {}
    for share in sorted(set(shares), reverse=True):
        _set(model, base, tuned, share)
        found[share] = score(model)
    best = max(found, key=lambda share: (found[share], share))
    _set(model, base, tuned, best)
    return best, found


def merge_at(model: Any, base: State, share: float) -> None:
    """Set the model to the average with this share of its own weights."""
    _set(model, base, cloned(model), share)


def cloned(model: Any) -> dict[str, Any]:
    """A copy of the model's state, which further training leaves alone."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _set(model: Any, base: State, tuned: State, share: float) -> None:
    model.load_state_dict(
        {
            name: base[name].to(tensor.device) * (1 - share) + tensor * share
            if tensor.is_floating_point()
            else tensor
            for name, tensor in tuned.items()
        }
    )
