"""Models and tokenizers from a folder or the hub, with errors that come at once."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llama_index.tuning.errors import BaseModelError
from llama_index.tuning.hf.processes import BUILDING, no_bars

PathLike = str | os.PathLike[str]

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SAMPLE = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        name: an absolute folder, or a name of the hub.
        local: whether it is a folder: the hub is not asked then.
        revision: revision of the hub, if one was named.
    """

    name: str
    local: bool
    revision: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What every `from_pretrained` is called with."""
        return {"local_files_only": True} if self.local else {"revision": self.revision}


def find_model(model_id: PathLike, revision: str | None = None) -> Source:
    """The folder or hub name of a model, checked before anything is loaded.

    Raises:
        BaseModelError: no such folder, a folder without a model, no such name, or no hub.
    """
    path = Path(model_id)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BaseModelError(f"{model_id} holds no model: {_missing(path)}")
        if revision is not None:
            raise BaseModelError(f"revision={revision!r} is for the hub; {model_id} is a folder")
        return Source(str(path.resolve()), local=True)
    name = os.fspath(model_id)
    is_path = isinstance(model_id, Path) or path.is_absolute() or name.startswith(".")
    if is_path or path.exists() or not _HUB_NAME.fullmatch(name):
        raise BaseModelError(f"model_id {name!r} is no folder, and no name of the hub")
    _check_on_hub(name, revision)
    return Source(name, local=False, revision=revision)


def _check_on_hub(name: str, revision: str | None) -> None:
    """One request with a time limit: transformers would retry a wrong name for half a minute."""
    import httpx
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return
    nowhere = f"model_id {name!r} is no folder and not in the hub's cache"
    if constants.HF_HUB_OFFLINE:
        raise BaseModelError(f"{nowhere}; HF_HUB_OFFLINE forbids asking the hub")
    try:
        HfApi().model_info(name, revision=revision, timeout=10)
    except HFValidationError as exc:
        raise BaseModelError(f"model_id {name!r} is no folder, and no name of the hub") from exc
    except (HfHubHTTPError, OfflineModeIsEnabled) as exc:
        status = getattr(getattr(exc, "response", None), "status_code", None)
        raise BaseModelError(
            f"{nowhere}; the hub refuses it (HTTP status {status}): it does not exist, or needs a "
            "login"
        ) from exc
    except (httpx.HTTPError, OSError) as exc:
        raise BaseModelError(f"{nowhere}; the hub cannot be reached") from exc


def _missing(folder: Path) -> str:
    if not (folder / "adapter_config.json").is_file():
        return "it has no config.json"
    if (folder / "merged").is_dir():
        return f"it holds an adapter; tune on from {folder / 'merged'}"
    return "it holds an adapter; tune with merge=True, and go on from its folder merged/"


def load_tokenizer(source: Source, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer, with a padding token; an end token it must have.

    Raises:
        BaseModelError: there is none, it is damaged, or it has no end token.
    """
    from transformers import AutoTokenizer

    if source.local and not any(Path(source.name).glob("token*")):
        raise BaseModelError(f"{source.name} has no tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.name, trust_remote_code=trust_remote_code, **source.arguments
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BaseModelError(f"{source.name}: the tokenizer cannot be loaded: {exc}") from exc
    if tokenizer.eos_token_id is None:
        raise BaseModelError(
            f"the tokenizer of {source.name} has no end token (eos_token): a tuned model would "
            "never stop"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def load_model(
    source: Source,
    *,
    device: str | None = None,
    quantize: str | None = None,
    trust_remote_code: bool = False,
    train_all: bool = False,
    flash_attention: bool = False,
) -> Any:
    """The causal language model: float32 on a CPU, bfloat16 on a GPU that has it.

    Args:
        source: where it is.
        device: `"cpu"`, `"cuda:1"`, …; None: a GPU if there is one.
        quantize: `"4bit"`: NF4 weights by bitsandbytes.
        trust_remote_code: run code that the model brings along.
        train_all: keep float32 weights on a GPU too, for all of them to be trained.
        flash_attention: attend with flash attention.

    Raises:
        BaseModelError: it cannot be loaded, or weights are missing.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = device or default_device()
    gpu = device.startswith("cuda")
    half = gpu and torch.cuda.is_bf16_supported() and not train_all
    dtype = torch.bfloat16 if half else torch.float32
    extra: dict[str, Any] = {"attn_implementation": "flash_attention_2"} if flash_attention else {}
    if quantize:
        extra["quantization_config"] = _quantization(dtype)
        extra["device_map"] = {"": device}
    try:
        with BUILDING, no_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source.name,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **source.arguments,
                **extra,
            )
    except Exception as exc:  # of many kinds: OSError, SafetensorError, RuntimeError, KeyError, …
        raise BaseModelError(
            f"{source.name} cannot be loaded as a causal language model: "
            f"{type(exc).__name__}: {exc}"
        ) from exc
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseModelError(
            f"{source.name} lacks {len(missing)} weights of its architecture, such as "
            f"{missing[0]}; they would be random"
        )
    return model if quantize else model.to(device)


def default_device() -> str:
    """A GPU if there is one, of several the one of this process; else the CPU."""
    import torch

    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_present(device: str | None) -> None:
    """The device is on this machine.

    Raises:
        ValueError: it is not.
    """
    if device is None:
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as exc:
        raise ValueError(f"device {device!r} is not on this machine: {exc}") from exc


def check_quantize(quantize: str | None) -> None:
    """Weights can be loaded that way.

    Raises:
        ValueError: no such way.
        ImportError: its library is missing.
    """
    if quantize not in (None, "4bit"):
        raise ValueError(f"unknown quantize {quantize!r}; choose one of: 4bit, None")
    if quantize and find_spec("bitsandbytes") is None:
        raise ImportError(
            "quantize='4bit' needs bitsandbytes, which is not installed: pip install bitsandbytes"
        )


def check_vocabulary(tokenizer: Any, model: Any, name: str) -> None:
    """The model has a vector for each of the tokenizer's tokens."""
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        raise BaseModelError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, the model only {known}: they "
            "do not belong together"
        )


def end_tokens(tokenizer: Any, model: Any) -> list[int]:
    """The tokens at which the model stops: its generation config's and the tokenizer's."""
    config = getattr(model, "generation_config", None)
    given = getattr(config, "eos_token_id", None)
    listed = [given] if isinstance(given, int) else list(given or [])
    return list(dict.fromkeys([int(tokenizer.eos_token_id), *map(int, listed)]))


def context_length(model: Any) -> int:
    """Tokens that the model can attend to."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 4096)


def model_identity(source: Source, model: Any) -> str:
    """A short hash that tells this model from another of its shape.

    Of a folder: its configuration, and of each weights file the size, the table of contents and
    a sample from its middle (whole files may have hundreds of gigabytes). Of the hub: the name
    and the commit.
    """
    digest = hashlib.sha256()
    if not source.local:
        commit = getattr(model.config, "_commit_hash", None)
        return hashlib.sha256(f"{source.name} {commit}".encode()).hexdigest()[:16]
    folder = Path(source.name)
    digest.update((folder / "config.json").read_bytes())
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as handle:
            digest.update(handle.read(_SAMPLE))
            handle.seek(size // 2)
            digest.update(handle.read(_SAMPLE))
    return digest.hexdigest()[:16]


def _quantization(dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call,unused-ignore]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def hashes(folder: Path, names: Mapping[str, Any] | None = None) -> dict[str, str]:
    """File → sha256, of all files below a folder, or of those named."""
    files = (
        [file for file in sorted(folder.rglob("*")) if file.is_file()]
        if names is None
        else [folder / name for name in names]
    )
    return {str(file.relative_to(folder).as_posix()): _sha256(file) for file in files}


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
