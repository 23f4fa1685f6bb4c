"""A tuned component on disk.

A folder with `tuning.json` (what it is, how it came about), `model.safetensors` (weights) and
`README.md` (for people). A component may add files for other loaders; they are never read back.
Nothing is unpickled, and no file name is ever taken from a file's content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._checks import folder_path
from llama_index.tuning._files import (
    PathLike as PathLike,
    draft_beside,
    exchange,
    lock_of_path,
    ordinary_file,
    read_json,
)
from llama_index.tuning.errors import ArtifactError

FORMAT = 1
CONFIG = "tuning.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
REPORT = "report.json"
CANDIDATE = "candidate"  # beside a base that was kept: what the gate refused
KEPT_BASE = "kept-base"
_NEVER_READ = (CONFIG, "report.json", "config.json")  # the last is for the stock adapter


@contextlib.contextmanager
def replacing_folder(path: PathLike) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` when the block succeeds.

    If the block fails (no disk left, Ctrl-C), what was at `path` stays as it was. What a process
    that was killed while it saved here left behind is removed.

    Raises:
        OSError: a file could not be written.
    """
    from safetensors import SafetensorError

    check_writable(path)
    target = Path(path).absolute()
    with draft_beside(target, folder=True) as temporary:
        try:
            yield temporary
            _seal(temporary)
            for file in temporary.rglob("*"):
                _sync(file)
            temporary.chmod(0o755)
            _swap(temporary, target)
        except SafetensorError as exc:  # its own error for a full disk, which is no OSError
            raise OSError(f"{path} could not be saved: {exc}") from exc


def check_writable(path: PathLike) -> None:
    """Refuse to replace anything that is not a saved component or an empty folder."""
    target = folder_path("path", path)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ArtifactError(f"{path} is a file or a link; a component is saved as a folder")
    above = next((parent for parent in target.absolute().parents if parent.exists()), None)
    if above is not None and not above.is_dir():
        raise ArtifactError(f"{path} cannot be made: {above} is a file")
    if not target.exists():
        return
    names = {entry.name for entry in target.iterdir()}
    saved = CONFIG in names or {"config.json", "pytorch_model.bin"} <= names
    if names and not saved:
        raise ArtifactError(
            f"{path} exists and is not a saved component (it holds {', '.join(sorted(names)[:3])})"
            "; choose another path, it would be replaced"
        )


def write_component(
    folder: Path,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    card: str,
) -> None:
    """Write the three files of a component into a folder that exists."""
    from safetensors.numpy import save_file

    from llama_index.tuning import __version__

    head = {"format": FORMAT, "kind": kind, "version": __version__}
    text = json.dumps({**head, **config}, ensure_ascii=False, indent=2)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(arrays, folder / WEIGHTS)
    write_card(folder, card)


def write_card(folder: Path, card: str, library: str = "llama-index-tuning", **found: str) -> None:
    """Write the model card, under the metadata that the Hugging Face hub reads.

    Args:
        folder: of the component.
        card: Markdown; with a head of its own it stays as it is.
        library: that loads the folder.
        **found: other metadata, such as `pipeline_tag`.
    """
    if not card.startswith("---\n"):
        lines = [f"library_name: {library}", *(f"{name}: {value}" for name, value in found.items())]
        tags = ["tags:", "- llama-index", "- llama-index-tuning"]
        card = "\n".join(["---", *lines, *tags, "---", "", card])
    (folder / CARD).write_text(card, encoding="utf-8")


def write_kept_base(folder: Path, kept: str, reason: str) -> None:
    """Say in a folder that the gate kept a base which has no saved form of its own."""
    card = f"# The {kept} is kept\n\n{reason}\n\nWhat was refused lies in `{CANDIDATE}/`.\n"
    write_component(folder, KEPT_BASE, {"kept": kept, "reason": reason}, {}, card)


def read_config(path: PathLike, *kinds: str) -> dict[str, Any]:
    """The checked `tuning.json` of a component of one of these kinds."""
    config = _settings(path)
    file = Path(path) / CONFIG
    if config.get("format") != FORMAT:
        raise ArtifactError(
            f"{file} has format {config.get('format')!r}; this version reads format {FORMAT}"
        )
    if config.get("kind") == KEPT_BASE and KEPT_BASE not in kinds:
        raise ArtifactError(
            f"{path} holds no tuned component: the {config.get('kept')} is kept "
            f"({config.get('reason')}); what was refused lies in {Path(path) / CANDIDATE}"
        )
    if config.get("kind") not in kinds:
        wanted = " or a ".join(map(repr, kinds))
        raise ArtifactError(f"{path} holds a {config.get('kind')!r}, not a {wanted}")
    config.pop("checksums", None)  # see check_intact
    return config


def load_component(path: PathLike, loaders: Mapping[str, str], **arguments: Any) -> Any:
    """What a folder holds, by the kind that it says it is.

    Args:
        path: the folder.
        loaders: kind → `module:function` or `module:Class.method`, imported when it is needed.
        **arguments: for the loader.

    Raises:
        ArtifactError: none of these kinds, or a damaged one.
    """
    module, _, name = loaders[read_config(path, *loaders)["kind"]].partition(":")
    return attrgetter(name)(import_module(module))(path, **arguments)


def _settings(path: PathLike) -> dict[str, Any]:
    """The object in a component's `tuning.json`, unchecked."""
    folder = folder_path("path", path)
    try:
        if not folder.is_dir():
            raise ArtifactError(f"{path} is not a folder")
        config = read_json(folder / CONFIG, ArtifactError)
    except FileNotFoundError:
        raise ArtifactError(f"{path} holds no saved component: it has no {CONFIG}") from None
    except OSError as exc:
        raise ArtifactError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(config, dict):
        raise ArtifactError(
            f"{folder / CONFIG} must hold a JSON object, got {type(config).__name__}"
        )
    return config


def read_tensors(path: PathLike) -> dict[str, NDArray[np.float32]]:
    """The weights of a component: float32, finite."""
    tensors = read_arrays(path)
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            raise ArtifactError(
                f"{Path(path) / WEIGHTS}: {name} must be float32, got {tensor.dtype}"
            )
    return tensors


def read_arrays(path: PathLike, file_name: str = WEIGHTS) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file of a component, of any type; numbers are finite."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = folder_path("path", path) / file_name
    try:
        tensors: dict[str, NDArray[Any]] = load_file(ordinary_file(file, ArtifactError))
    except FileNotFoundError:
        raise ArtifactError(f"{path} has no {file_name}") from None
    except ArtifactError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, OSError, MemoryError) as exc:
        raise ArtifactError(f"{file} is not a safetensors file, or is truncated: {exc}") from exc
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ArtifactError(f"{file}: {name} holds NaN or infinite values")
    return tensors


def check_intact(path: PathLike) -> None:
    """What a component's folder holds is what was saved there: settings, weights, other files.

    For the end of a loader, whose own checks name a fault better. A folder that was written
    without checksums, by an earlier version, passes.

    Raises:
        ArtifactError: naming the file that was changed.
    """
    folder = Path(path)
    config = _settings(path)
    seal = config.pop("checksums", None)
    if seal is None:
        return
    try:
        wanted = dict(seal)
        found = {name: _checksum_of(folder / name) for name in wanted if name != CONFIG}
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise ArtifactError(f"{path} is damaged: {exc}") from exc
    found[CONFIG] = _checksum_of_settings(config)
    for name, checksum in wanted.items():
        if found[name] != checksum:
            raise ArtifactError(f"{path} is damaged or was edited: {name} is not what was saved")


def _seal(folder: Path) -> None:
    """Note the checksums of what a component's loader reads."""
    if not (folder / CONFIG).is_file():
        return
    config = _settings(folder)
    config.pop("checksums", None)
    if "files" in config:  # a language model: its loader has hashes of every file
        return
    inner = [file.parent for file in folder.rglob(CONFIG) if file.parent != folder]
    names = [
        file.relative_to(folder).as_posix()
        for file in sorted(folder.rglob("*"))
        if file.suffix in (".safetensors", ".json")
        and file.name not in _NEVER_READ
        and not any(file.is_relative_to(other) for other in inner)
    ]
    sums = {name: _checksum_of(folder / name) for name in names}
    sums[CONFIG] = _checksum_of_settings(config)
    text = json.dumps({**config, "checksums": sums}, ensure_ascii=False, indent=2)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _checksum_of(file: Path) -> str:
    digest = hashlib.sha256()
    with ordinary_file(file, ArtifactError).open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:32]


def _checksum_of_settings(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:32]


def _swap(new: Path, target: Path) -> None:
    """Put the new folder there; what was there lies where the new one was, or is gone."""
    while not exchange(new, target):
        if target.exists():
            _swap_in_steps(new, target)
            return
        try:
            new.rename(target)
            return
        except OSError:
            if not target.exists():  # else another one was saved here meanwhile
                raise


def _swap_in_steps(new: Path, target: Path) -> None:
    # For a moment there is nothing at the target.
    old = new.with_name(new.name.replace(".new-", ".old-"))
    old.mkdir()
    held = lock_of_path(old)
    try:
        target.rename(old / "was")
        try:
            new.rename(target)
        except BaseException:
            (old / "was").rename(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
        if held is not None:
            os.close(held)


def _sync(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())
