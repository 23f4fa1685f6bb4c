"""What every engine and its component must do alike. A tenth engine passes this, or it is none."""

from __future__ import annotations

import inspect

import pytest
from llama_index.core.llms import LLM

from llama_index.tuning import get_engine, list_engines
from llama_index.tuning.testing import (
    ENGINE_CHECKS,
    EngineRun,
    Probe,
    check_component,
)
from tests.engines import CASES
from tests.routers.conftest import world

HOSTED = {"openai", "azure-openai"}  # they submit and wait: tests/llms/test_hosted_*.py
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6


@pytest.fixture(scope="module", params=sorted(CASES))
def run(request, tmp_path_factory):
    return EngineRun(CASES[request.param], tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
def test_engines(run, check):
    check(run)


def test_the_component_is_what_an_app_expects(run):
    component = run.accepted.get_finetuned_model()
    if hasattr(component, "defer_to"):
        component.defer_to = None  # it is another evaluator's answer then
    rebuild = None
    if hasattr(component, "adapter_path"):
        base = run.arguments.get("embed_model") or run.arguments["new_model"]
        component = run.load(run.accepted.model_output_path)
        rebuild = lambda data: type(component).from_dict(data, base_embed_model=base)  # noqa: E731
    if isinstance(component, LLM):
        component.max_new_tokens = 8
    on_torch = run.case.kind is LLM or "model_id" in run.arguments
    check_component(component, _probe(run), rebuild=rebuild, fork=not on_torch)


def _probe(run):
    if run.case.kind is LLM:
        return Probe(questions=("How high is the fee?",))  # each answer takes it a while
    if not hasattr(run.arguments.get("dataset"), "choices"):
        return Probe()
    choices = world(per_choice=4)[0].choices
    questions = ("orders question 0", "refunds question 1", "something else")
    return Probe(questions, tuple(choices.values()), tuple(choices))


TRAINED_IN_STEPS = ("cross-encoder", "embedding-model", "huggingface-llm")


@pytest.mark.parametrize("name", TRAINED_IN_STEPS)
def test_trainers_take_callbacks(name, tmp_path):
    from transformers import TrainerCallback

    steps = []

    class Tracker(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.append(state.global_step)

    case = EngineRun(CASES[name], tmp_path)
    with pytest.raises(TypeError, match=r"callbacks must be TrainerCallbacks .*, got 5"):
        case.engine(callbacks=[5]).finetune()
    case.engine(callbacks=[Tracker()]).finetune()
    assert steps[0] == 1


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
