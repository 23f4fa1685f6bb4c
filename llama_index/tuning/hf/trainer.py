"""What every engine on a sentence-transformers trainer needs; imported while training only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from llama_index.tuning._running import is_main_process
from llama_index.tuning.errors import MissingExtraError, TuningError
from llama_index.tuning.hf.checkpoints import (
    WEIGHTS,
    last_checkpoint,
    mark_complete,
    prepare,
    step_number,
    training_curve,
)


class DurableCheckpoints:
    """Mixin for a trainer: a checkpoint holds all that is trained, and a mark when it is done.

    The trainers' own way saves a model folder and loads it as a new model, which fails for one
    with low-rank updates, and then keeps the last weights instead of the best with a log line.

    Attributes:
        loadable: whether a checkpoint is also a model folder that loads by itself.
        tolerance: a checkpoint before the last is kept only if its metric is better by more.
        kept: step of the checkpoint whose weights remained, if one was chosen.
    """

    loadable = False
    tolerance = 0.0
    kept: int | None = None
    args: Any
    state: Any
    model: Any
    accelerator: Any

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        from safetensors.torch import save_file

        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: it.detach().contiguous() for name, it in _trained(self.model).items()}
        save_file(state, str(folder / WEIGHTS))
        if self.loadable:
            self.model.save_pretrained(str(folder), create_model_card=False)

    def _load_from_checkpoint(self, path: str, model: Any = None) -> None:
        from safetensors.torch import load_file

        whole = model or self.model
        state = load_file(str(Path(path) / WEIGHTS))
        if state.keys() != _trained(whole).keys():
            raise TuningError(f"{path} holds other weights than are trained now")
        whole.load_state_dict(state, strict=False)

    def _load_best_model(self) -> None:
        name = self.args.metric_for_best_model
        last = [entry[name] for entry in self.state.log_history if name in entry][-1]
        self.kept = int(self.state.global_step)
        if abs(self.state.best_metric - last) > self.tolerance:
            best = self.state.best_model_checkpoint
            self._load_from_checkpoint(best)
            self.kept = step_number(Path(best))

    def add_model_card_callback(self, _: Any) -> None:
        """None: we write a card of our own."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        from transformers.trainer_utils import rotate_checkpoints

        # Older checkpoints go after the new one is marked, not before.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # each process writes its random state
        if self.args.should_save:
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
            rotate_checkpoints(
                output_dir=self.args.output_dir,
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )


def _trained(model: Any) -> dict[str, Any]:
    """What training changes: with low-rank updates, a hundredth of the model."""
    saved = model.state_dict().keys()
    state = {name: it for name, it in model.named_parameters() if it.requires_grad}
    return state | {name: it for name, it in model.named_buffers() if name in saved}


class EvaluateAtEnd(TrainerCallback):
    """Looks at the last step too: else the steps after the last full interval count for nothing."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for an evaluation and a checkpoint after the last step."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True


def train(
    trainer: Any, folder: Path, identity: Mapping[str, Any], *, resume: bool
) -> list[dict[str, float]]:
    """Run a trainer that was set up, silently; with `resume`, from its last whole checkpoint.

    Args:
        trainer: it writes its checkpoints to `folder`.
        folder: of the checkpoints.
        identity: what a checkpoint must have come from to go on from it; see `prepare`.
        resume: go on, if there is something to go on from.

    Returns:
        The training curve.
    """
    from transformers import PrinterCallback

    if is_main_process():
        prepare(folder, identity, resume=resume)
        last_checkpoint(folder)  # takes the mark from damaged ones, before the others look
    trainer.accelerator.wait_for_everyone()
    checkpoint = last_checkpoint(folder) if resume else None
    trainer.remove_callback(PrinterCallback)  # the library does not print
    if trainer.args.load_best_model_at_end:
        trainer.add_callback(EvaluateAtEnd())
    finished = _finished(checkpoint) if checkpoint else None
    if finished is not None:
        trainer.state = finished  # the trainer would make one step more
        trainer._load_from_checkpoint(str(checkpoint))
        if trainer.args.load_best_model_at_end:
            trainer._load_best_model()
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return training_curve(trainer.state.log_history)


def _finished(checkpoint: Path) -> TrainerState | None:
    """The state of a run that was killed after its last step, else nothing."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    control = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
    done = state.global_step >= state.max_steps or control.get("should_training_stop")
    return state if done else None


def on_model(loss: Any, model: Any) -> Any:
    """A loss that was made for a model of the user's; the one that is trained takes its place."""
    for name, child in loss.named_children():
        if name == "model" and isinstance(child, type(model)):
            loss.model = model
        elif name != "guide":
            setattr(loss, name, on_model(child, model))
    return loss


@contextlib.contextmanager
def full_precision(model: Any) -> Iterator[None]:
    """Weights in 32 bits within the block: in half precision most steps would be rounded away."""
    own = [parameter.dtype for parameter in model.parameters()]
    model.float()
    yield
    for parameter, kind in zip(model.parameters(), own, strict=True):
        parameter.data = parameter.data.to(kind)


def add_lora(transformer: Any, rank: int, *, save: Sequence[str] = ()) -> Any:
    """Low-rank updates on all linear layers of a Hugging Face model (Hu et al. 2021).

    Args:
        transformer: the model; its own weights are frozen.
        rank: of the updates; they are scaled by two.
        save: names of modules that are trained whole.

    Returns:
        A handle on the same model, whose linear layers were replaced in place;
        `merge_and_unload()` puts plain ones there again, with the updates in their weights.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as exc:
        raise MissingExtraError("lora_rank", "peft", "lora") from exc
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", modules_to_save=list(save) or None
    )
    return get_peft_model(transformer, config)
