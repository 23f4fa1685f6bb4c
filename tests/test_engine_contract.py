"""What every engine must do alike. A tenth engine passes this, or it is no engine."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import Any

import pytest

from llama_index.tuning import get_engine, list_engines
from llama_index.tuning._files import locked
from llama_index.tuning.base import FinetuneEngine
from llama_index.tuning.errors import ArtifactError, NotFinetunedError, TuningError
from llama_index.tuning.report import FinetuneReport
from tests.engines import CASES

HOSTED = {"openai", "azure-openai"}  # they submit and wait: tests/llms/test_hosted_*.py
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6


@dataclass
class Run:
    """One case with its arguments, and both ends of the gate, run once."""

    case: Any
    arguments: dict
    folder: Any

    def engine(self, **changes):
        return self.case.engine(**{"model_output_path": None, **self.arguments, **changes})


@pytest.fixture(scope="module", params=sorted(CASES))
def run(request, tmp_path_factory):
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return Run(case, case.arguments(folder), folder)


@pytest.fixture(scope="module")
def refused(run):
    engine = run.engine(model_output_path=run.folder / "refused", accept="gain")
    engine.finetune()
    return engine


@pytest.fixture(scope="module")
def accepted(run):
    engine = run.engine(model_output_path=run.folder / "accepted", accept="always")
    engine.finetune()
    return engine


def test_every_local_engine_is_asked():
    assert set(list_engines()) - HOSTED <= set(CASES)


def test_it_is_built_on_the_template(run):
    assert issubclass(run.case.engine, FinetuneEngine)
    for step in ("finetune", "get_finetuned_model"):
        assert "finetune" not in vars(run.case.engine) or step != "finetune" or _adds_words(run)


def _adds_words(run):
    """An engine may name its report's class, and nothing else."""
    return "super().finetune()" in inspect.getsource(run.case.engine.finetune)


def test_the_registry_knows_it(run):
    name = next(name for name, case in CASES.items() if case is run.case)
    assert get_engine(name) is run.case.engine


def test_before_finetune_there_is_no_report_and_no_model(run):
    engine = run.engine()
    assert engine.report is None
    for asked in (engine.get_finetuned_model, lambda: engine.push_to_hub("me/it")):
        with pytest.raises(NotFinetunedError, match=r"call finetune\(\) first"):
            asked()


def test_wrong_accept_and_options_are_refused_by_the_constructor(run):
    with pytest.raises(ValueError, match="unknown accept 'maybe'; choose one of: gain, always"):
        run.engine(accept="maybe")
    with pytest.raises(TypeError, match=r"options must be .*Options, got str"):
        run.engine(options="x")


@pytest.mark.parametrize("value", [0, 2.5, "3", True])
def test_wrong_numbers_are_refused_by_the_constructor(run, value):
    for name in run.case.numbers:
        with pytest.raises(ValueError, match=f"{name} must be a whole number >= "):
            run.engine(**{name: value})


def test_a_wrong_output_path_is_refused_by_the_constructor(run):
    with pytest.raises(TypeError, match="model_output_path must be a path, got 5"):
        run.engine(model_output_path=5)


def test_a_folder_of_others_is_refused_before_any_work(run, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="is not a saved component"):
        run.engine(model_output_path=tmp_path / "thesis").finetune()
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_wrong_data_is_refused_without_a_cost(run):
    subject = list(inspect.signature(run.case.engine.__init__).parameters)[1]
    with pytest.raises((TypeError, ValueError)) as failed:
        run.engine(**{subject: 5}).finetune()
    assert subject in str(failed.value) or "dataset" in str(failed.value)


def test_finetune_returns_the_report_and_keeps_it(refused, accepted):
    for engine in (refused, accepted):
        assert isinstance(engine.report, FinetuneReport)
        assert engine.report.reason
        assert engine.report.versions["llama-index-core"]
        assert engine.report.data.get("fingerprint")
        assert engine.report.seconds
    assert not refused.report.accepted
    assert accepted.report.accepted


def test_the_report_lies_in_the_folder(refused, accepted):
    for engine in (refused, accepted):
        read = type(engine.report).from_json(engine.model_output_path / "report.json")
        assert _plain(read) == _plain(engine.report)


def _plain(report):
    import json

    return json.loads(json.dumps(report.to_dict()))


def test_an_accepted_component_is_ready_and_loads(run, accepted):
    component = accepted.get_finetuned_model()
    assert isinstance(component, run.case.kind)
    assert isinstance(run.case.load(accepted.model_output_path, run.arguments), run.case.kind)


def test_a_refusal_hands_out_the_base_and_says_so_once(run, refused, caplog):
    refused._said_kept = False
    with caplog.at_level(logging.WARNING, "llama_index.tuning"):
        base = refused.get_finetuned_model()
        refused.get_finetuned_model()
    said = [r.getMessage() for r in caplog.records if 'accept="always" overrides' in r.getMessage()]
    assert len(said) == 1
    assert "is kept" in said[0]
    assert isinstance(base, run.case.kind)


def test_a_refused_candidate_lies_beside_the_base(run, refused):
    assert (refused.model_output_path / "candidate").is_dir()
    found = run.case.load(refused.model_output_path / "candidate", run.arguments)
    assert isinstance(found, run.case.kind)


def test_the_folder_of_a_refusal_serves_the_base_or_says_that_it_was_kept(run, refused):
    said = None
    try:
        found = run.case.load(refused.model_output_path, run.arguments)
    except ArtifactError as exc:
        said = str(exc)
    if said is None:
        assert isinstance(found, run.case.kind)
    else:
        assert "is kept" in said
        assert "candidate" in said


def test_without_an_output_path_nothing_is_written(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = run.engine(accept="always")
    engine.finetune()
    assert isinstance(engine.get_finetuned_model(), run.case.kind)
    assert not [p for p in tmp_path.iterdir() if not p.name.endswith((".run", ".checkpoints"))]


def test_save_writes_it_elsewhere(run, accepted, tmp_path):
    accepted.save(tmp_path / "copy")
    assert isinstance(run.case.load(tmp_path / "copy", run.arguments), run.case.kind)
    assert (tmp_path / "copy" / "report.json").is_file()


def test_no_bars_unless_asked_for(run, capsys):
    run.engine(accept="always").finetune()
    assert "%|" not in capsys.readouterr().err


def test_what_was_refused_is_not_uploaded(refused):
    with pytest.raises(TuningError, match="nothing is uploaded"):
        refused.push_to_hub("me/it")
    with pytest.raises(ValueError, match="repo_id"):
        refused.push_to_hub("")


def test_two_runs_do_not_write_to_one_folder(run, tmp_path):
    with (
        locked(tmp_path / ".out.lock", AssertionError("held")),
        pytest.raises(ArtifactError, match="is being written by another run"),
    ):
        run.engine(model_output_path=tmp_path / "out").finetune()


def test_replacing_another_run_is_said(run, refused, tmp_path, caplog):
    refused.save(tmp_path / "out")
    other = tmp_path / "out" / "report.json"
    other.write_text(other.read_text().replace(refused.report.title, "something else"))
    with caplog.at_level(logging.WARNING, "llama_index.tuning"):
        refused.save(tmp_path / "out")
    assert any("held another run" in record.getMessage() for record in caplog.records)


def test_default_folders_of_different_engines_differ():
    defaults = {}
    for name, case in CASES.items():
        default = inspect.signature(case.engine.__init__).parameters["model_output_path"].default
        if default is not None:
            defaults.setdefault(str(default), []).append(name)
    assert all(len(names) == 1 for names in defaults.values()), defaults
