"""What every engine and its component must do alike. A tenth engine passes this, or it is none."""

from __future__ import annotations

import inspect

import pytest
from huggingface_hub import ModelCard
from llama_index.core.llms import LLM

from llama_index.tuning import get_engine, list_engines
from llama_index.tuning.testing import (
    ENGINE_CHECKS,
    EngineRun,
    Probe,
    check_component,
)
from tests.engines import CASES
from tests.hub import hub as hub
from tests.routers.conftest import world

HOSTED = {"openai", "azure-openai"}  # they submit and wait: tests/llms/test_hosted_*.py
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6


@pytest.fixture(scope="module", params=sorted(CASES))
def run(request, tmp_path_factory):
    return EngineRun(CASES[request.param], tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
def test_engines(run, check):
    check(run)


def test_it_goes_to_the_hub_with_a_card_and_loads_from_there(run, hub, tmp_path):
    engine = run.accepted
    address = engine.push_to_hub("me/mine", token="t", revision="r", commit_message="mine")
    assert address.endswith("/commit/1")
    assert (hub.created["name"], hub.created["visibility"]) == ("mine", "private")
    assert (hub.revision, hub.token) == ("r", "Bearer t")
    assert "report.json" not in hub.files  # it holds users' questions
    for name, content in hub.files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    assert isinstance(run.load(tmp_path / "copy"), run.case.kind)
    card = ModelCard(hub.files["README.md"].decode())
    assert "llama-index" in card.data.tags
    assert card.data.library_name
    assert engine.report.reason in card.text
    ours = run.case.engine.__module__.startswith("llama_index.tuning")
    assert "```python\nfrom " in card.text or not ours


def test_the_component_is_what_an_app_expects(run):
    component = run.accepted.get_finetuned_model()
    loaded = run.load(run.accepted.model_output_path)
    if hasattr(component, "defer_to"):
        component.defer_to = loaded.defer_to = None  # it is another evaluator's answer then
    rebuild = None
    if hasattr(component, "encoder_path"):
        component = run.load(run.accepted.model_output_path)
        rebuild = lambda data: type(component).from_dict(  # noqa: E731
            data, base_embed_model=component.base_embed_model, device="cpu"
        )
    elif hasattr(component, "adapter_path"):
        base = run.arguments.get("embed_model") or run.arguments["new_model"]
        component, loaded = loaded, component  # what was saved can be built anew
        rebuild = lambda data: type(component).from_dict(data, base_embed_model=base)  # noqa: E731
    if isinstance(component, LLM):
        component.max_new_tokens = loaded.max_new_tokens = 8
    on_torch = run.case.kind is LLM or "model_id" in run.arguments
    check_component(component, _probe(run), rebuild=rebuild, fork=not on_torch, loaded=loaded)


def _probe(run):
    if run.case.kind is LLM:
        return Probe(questions=("How high is the fee?",))  # each answer takes it a while
    if not hasattr(run.arguments.get("dataset"), "choices"):
        return Probe()
    choices = world(per_choice=4)[0].choices
    questions = ("orders question 0", "refunds question 1", "something else")
    return Probe(questions, tuple(choices.values()), tuple(choices))


TRAINED_IN_STEPS = ("cross-encoder", "embedding-model", "huggingface-llm", "query-encoder")


@pytest.mark.parametrize("name", TRAINED_IN_STEPS)
def test_trainers_take_callbacks_and_trackers(name, tmp_path, monkeypatch):
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    steps = []

    class Tracker(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.append(state.global_step)

    case = EngineRun(CASES[name], tmp_path)
    with pytest.raises(TypeError, match=r"callbacks must be TrainerCallbacks .*, got 5"):
        case.engine(callbacks=[5]).finetune()
    with pytest.raises(TypeError, match=r"report_to must be a tracker's name .*, got 5"):
        case.engine(report_to=5)
    with pytest.raises(ValueError, match=r"unknown report_to 'tensorbord'; .*, tensorboard,"):
        case.engine(report_to="tensorbord").finetune()
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    with pytest.raises(ValueError, match=r"report_to='wandb' cannot start: .*wandb"):
        case.engine(report_to="wandb").finetune()
    engine = case.engine(
        callbacks=[Tracker()], report_to=["tensorboard"], model_output_path=tmp_path / "out"
    )
    engine.finetune()
    assert steps[0] == 1
    logged = [file.read_bytes() for file in (tmp_path / "out.tensorboard").iterdir()]
    assert any(b"train_loss" in content for content in logged)


@pytest.mark.parametrize("name", sorted(set(CASES) - set(TRAINED_IN_STEPS)))
def test_engines_without_a_trainer_take_no_trackers(name):
    taken = inspect.signature(CASES[name].engine.__init__).parameters
    assert not {"callbacks", "report_to"} & set(taken)


def test_every_local_engine_is_asked():
    assert set(list_engines()) - HOSTED <= set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_registry_knows_it(name):
    assert get_engine(name) is CASES[name].engine


def test_default_folders_of_different_engines_differ():
    defaults = {}
    for name, case in CASES.items():
        default = inspect.signature(case.engine.__init__).parameters["model_output_path"].default
        if default is not None:
            defaults.setdefault(str(default), []).append(name)
    assert all(len(names) == 1 for names in defaults.values()), defaults
