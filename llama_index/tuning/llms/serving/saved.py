"""A tuned LLM on disk: what transformers and PEFT load, and beside it how it came about.

Full weights lie in the folder as any model does; a LoRA adapter lies there with the path of the
model below it, and in `merged/` as one model, if that was asked for. Nothing is a pickle.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index.tuning.artifacts import CARD, CONFIG, FORMAT, read_config, write_card
from llama_index.tuning.errors import ArtifactError, BaseModelError, MissingExtraError
from llama_index.tuning.hf.processes import no_bars
from llama_index.tuning.llms.serving.loading import (
    Source,
    check_present,
    check_quantize,
    check_vocabulary,
    find_model,
    hashes,
    load_model,
    load_tokenizer,
    model_identity,
)

logger = logging.getLogger(__name__)

KIND = "llm"
MERGED = "merged"

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class LoadedModel:
    """A model of transformers or PEFT with its tokenizer, and the name that it goes by.

    Attributes:
        template_arguments: what its chat template was called with in training.
    """

    model: Any
    tokenizer: Any
    name: str
    template_arguments: Mapping[str, Any] = field(default_factory=dict)


def write_llm(
    folder: Path,
    model: Any,
    tokenizer: Any,
    source: Source,
    *,
    identity: str,
    config: Mapping[str, Any],
    reason: str,
    merge: bool,
) -> None:
    """Write a tuned LLM into a folder that exists.

    Args:
        folder: the folder.
        model: the tuned model; of a PEFT model the adapter is written.
        tokenizer: its tokenizer.
        source: the model that was tuned.
        identity: that model's hash.
        config: what else is written into `tuning.json`.
        reason: of the gate's verdict, for the card.
        merge: write the merged model too.
    """
    from llama_index.tuning import __version__

    adapter = hasattr(model, "peft_config")
    if adapter:  # a relative path would break when the folder moves
        settings = model.peft_config["default"]
        settings.base_model_name_or_path, settings.revision = source.name, source.revision
    with no_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if merge:
            write_merged(folder, tokenizer, source)
        (folder / CARD).unlink(missing_ok=True)  # PEFT's, an empty form
        head = {"format": FORMAT, "kind": KIND, "version": __version__}
        base = {"name": source.name, "revision": source.revision, "identity": identity}
        weights = hashes(folder)
        details = {**head, "adapter": adapter, "base_model": base, "files": weights, **config}
        _write_json(folder / CONFIG, details)
        hub = {} if source.local else {"base_model": source.name}
        library = "peft" if adapter else "transformers"
        write_card(folder, _card(details, reason), library, pipeline_tag="text-generation", **hub)


def write_merged(folder: Path, tokenizer: Any, source: Source) -> None:
    """`merged/`: the adapter in `folder` merged into its model, loaded anew in full precision."""
    from peft import PeftModel

    base = load_model(source, device="cpu", train_all=True)
    save_merged(PeftModel.from_pretrained(base, str(folder)), tokenizer, folder / MERGED)


def save_merged(model: Any, tokenizer: Any, folder: Path) -> None:
    """One model in safetensors with its tokenizer; an adapter goes into its model."""
    if hasattr(model, "peft_config"):
        model = model.merge_and_unload()
    with no_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def read_llm_config(path: PathLike) -> dict[str, Any]:
    """The checked `tuning.json` of a saved LLM; every file is there and as it was written.

    Raises:
        ArtifactError: naming the file.
    """
    config = read_config(path, KIND)
    folder = Path(path)
    missing = [name for name in config["files"] if not (folder / name).is_file()]
    if missing:
        raise ArtifactError(f"{path} is damaged: {missing[0]} is missing")
    found = hashes(folder, config["files"])
    wrong = [name for name, hash_ in config["files"].items() if found[name] != hash_]
    if wrong:
        raise ArtifactError(f"{path} is damaged: {wrong[0]} is not what was saved")
    return config


def load_llm(
    path: PathLike,
    *,
    base_model: PathLike | None = None,
    merged: bool = False,
    device: str | None = None,
    quantize: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """The model and tokenizer of a saved folder; see `TunedHuggingFaceLLM.load`."""
    check_present(device)
    check_quantize(quantize)
    config = read_llm_config(path)
    folder = Path(path).resolve()
    if merged and not (folder / MERGED).is_dir():
        raise ArtifactError(f"{path} has no merged weights; tune with merge=True to get them")
    if not config["accepted"]:
        logger.warning("%s was not accepted when it was tuned: %s", path, config["reason"])
    options: dict[str, Any] = {
        "device": device,
        "quantize": quantize,
        "trust_remote_code": trust_remote_code,
    }
    tokenizer = load_tokenizer(Source(str(folder), local=True), trust_remote_code=trust_remote_code)
    if merged or not config["adapter"]:
        own = folder / MERGED if merged else folder
        model = load_model(Source(str(own), local=True), **options)
    else:
        model = _with_adapter(folder, config["base_model"], base_model, options)
    check_vocabulary(tokenizer, model, str(path))
    model.eval()
    return LoadedModel(model, tokenizer, str(folder), config.get("template_arguments") or {})


def _with_adapter(
    folder: Path,
    base: Mapping[str, Any],
    moved_to: PathLike | None,
    options: Mapping[str, Any],
) -> Any:
    try:
        from peft import PeftModel
    except ImportError as exc:
        raise MissingExtraError("a LoRA adapter", "peft", "llm") from exc
    try:
        source = find_model(moved_to or base["name"], None if moved_to else base["revision"])
    except BaseModelError as exc:
        raise BaseModelError(
            f"the model below the adapter is not there ({exc}); base_model= says where it is now"
        ) from exc
    model = load_model(source, **options)
    identity = model_identity(source, model)
    if identity != base["identity"]:
        if source.local and Path(base["name"]).is_absolute():
            raise BaseModelError(
                f"{source.name} is not the model that the adapter in {folder} was tuned on "
                f"(identity {identity}, tuned on {base['identity']})"
            )
        logger.warning(  # a folder and a name of the hub cannot be compared
            "whether %s is the model that the adapter in %s was tuned on, %s, cannot be told",
            source.name,
            folder,
            base["name"],
        )
    return PeftModel.from_pretrained(model, str(folder))


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


def _card(config: Mapping[str, Any], reason: str) -> str:
    kind = "LoRA adapter" if config["adapter"] else "model"
    name = Path(config["base_model"]["name"]).name
    return (
        f"# A tuned {kind}\n\n"
        f"Tuned from `{name}` with llama-index-tuning {config['version']}.\n"
        f"{reason}\n\n"
        "```python\n"
        "from llama_index.tuning import TunedHuggingFaceLLM\n\n"
        'llm = TunedHuggingFaceLLM.load("this_folder")\n'
        "```\n\n"
        "`tuning.json` holds the options and the hash of every file, `report.json` what was "
        "measured.\n"
    )
