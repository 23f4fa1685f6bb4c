import json
import logging
import time

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import MockLLM

from llama_index.tuning import OpenAIFinetuneEngine, OpenAIFineTuningHandler
from llama_index.tuning.errors import (
    HostedError,
    JobError,
    JobNotFinishedError,
    NotFinetunedError,
    TuningError,
)
from llama_index.tuning.report import FinetuneReport
from tests.jobs_server import JobsServer

from .hosted_parts import MODEL, chats, engine_on, preferences, scaled, train_file

TUNED = f"ft:{MODEL}:org::ftjob-1"


def right(model, messages):
    """The tuned model knows the answer, the base does not."""
    return "5 euros." if model.startswith("ft:") else "I do not know."


def knows(llm):
    return [float("euros" in llm.complete(f"Fee {n}?").text) for n in range(20)]


def test_the_old_packages_flow_from_file_to_answer(tmp_path, caplog):
    path = train_file(tmp_path)
    with JobsServer(file_looks=2) as server:
        engine = engine_on(server, str(path), True, None, True)
        with caplog.at_level(logging.INFO, "llama_index.tuning"):
            report = engine.finetune()
        assert engine.get_current_job().status == "succeeded"
        llm = engine.get_finetuned_model(temperature=0.3)
        assert llm.temperature == 0.3
        assert llm.complete("hi").text == f"{TUNED} says hello"
        chunks = llm.stream_chat([ChatMessage(role="user", content="hi")])
        assert "".join(chunk.delta for chunk in chunks).strip() == f"{TUNED} says hello"
    assert server.files["file-1"]["content"] == path.read_bytes()
    assert "job ftjob-1: Step 3/3" in caplog.text
    assert [point["train_loss"] for point in report.history] == [1.0, 0.5, 1 / 3]
    assert report.data["tuned_model"] == TUNED
    assert report.data["trained_tokens"] == 1234


def test_nothing_measured_is_said_and_not_dressed_up(tmp_path, caplog):
    with JobsServer() as server:
        engine = engine_on(server, chats())
        report = engine.finetune()
        assert engine.get_finetuned_model().model == TUNED
    assert report.gains == {}
    assert report.accepted
    assert report.verdict == "accepted, not measured"
    assert "nothing was measured" in str(report)
    assert "the tuned LLM is used unmeasured" in caplog.text
    assert FinetuneReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    report.save_html(tmp_path / "report.html")
    assert "nothing was measured" in (tmp_path / "report.html").read_text()
    with pytest.raises(ValueError, match="nothing to plot: nothing was measured"):
        report.plot()


def test_a_shown_gain_is_accepted_and_measured_on_both():
    with JobsServer(answer=right, unserved=2) as server:
        engine = engine_on(server, chats(), evaluate=knows)
        report = engine.finetune()
        assert engine.get_finetuned_model().model == TUNED
    gain = report.gains["score"]
    assert (gain.base, gain.tuned, gain.n) == (0.0, 1.0, 20)
    assert report.accepted
    assert report.verdict == "accepted"


def test_the_gate_keeps_the_base_where_no_gain_is_shown(caplog):
    with JobsServer() as server:
        engine = engine_on(server, chats(), evaluate=knows)
        report = engine.finetune()
        assert engine.get_finetuned_model().model == MODEL
        assert 'accept="always" overrides' in caplog.text
        taken = engine_on(server, chats(), evaluate=knows, accept="always")
        assert taken.finetune().accepted
        assert taken.get_finetuned_model().model == TUNED
    assert not report.accepted
    assert report.verdict == "base kept"
    assert len(server.jobs) == 1


def test_the_report_lies_in_the_output_folder_and_no_weights_are_uploaded(tmp_path):
    with JobsServer(answer=right) as server:
        engine = engine_on(server, chats(), evaluate=knows, model_output_path=tmp_path / "out")
        report = engine.finetune()
        engine.save(tmp_path / "copy")
    for name in ("out", "copy"):
        assert FinetuneReport.from_json(tmp_path / name / "report.json") == report
        assert json.loads((tmp_path / name / "tuning.json").read_text())["tuned_model"] == TUNED
    with pytest.raises(TuningError, match="lies at its server"):
        engine.push_to_hub("me/it")


def test_a_gate_that_could_not_look_yet_lets_nothing_through():
    with JobsServer(answer=right) as server:
        engine = engine_on(server, chats(), evaluate=knows)
        engine.submit()
        while engine.get_current_job().status != "succeeded":
            pass
        with pytest.raises(NotFinetunedError, match="nothing is measured yet: call finetune"):
            engine.get_finetuned_model()
        assert engine.finetune().accepted
        assert engine.get_finetuned_model().model == TUNED


def test_a_bar_is_shown_on_request_only(capsys):
    with JobsServer() as server:
        engine_on(server, chats()).finetune()
        assert capsys.readouterr().err == ""
        engine_on(server, chats(), seed=1, show_progress=True).finetune()
    shown = capsys.readouterr().err
    assert "ftjob-2" in shown
    assert "3/3" in shown
    assert "succeeded" in shown


def test_protected_items_that_lose_refuse_a_gain():
    def forgets(llm):
        return [float("do not know" in llm.complete("Weather?").text)] * 20

    with JobsServer(answer=right) as server:
        report = engine_on(
            server, chats(), evaluate=knows, protect={"small talk": forgets}
        ).finetune()
    assert not report.accepted
    assert "small talk lose: score -1.000" in report.reason
    assert report.slices["small talk"]["score"].mean == -1.0


def test_peers_are_compared_and_decide_nothing():
    with JobsServer(answer=right) as server:
        report = engine_on(server, chats(), evaluate=knows, peers={"rule": [1.0] * 20}).finetune()
    assert report.accepted
    assert "all items (n=20" in str(report)
    assert report.slices["rule as the base"]["score"].base == 1.0
    assert report.slices["rule as the base"]["score"].tuned == report.gains["score"].tuned


def test_a_faulty_evaluation_costs_nothing():
    with JobsServer() as server:
        with pytest.raises(ValueError, match=r"evaluate must give scores between 0 and 1, got 2.0"):
            engine_on(server, chats(), evaluate=lambda llm: [2.0]).finetune()
        with pytest.raises(TypeError, match="must give a list of numbers"):
            engine_on(server, chats(), evaluate=lambda llm: 0.5).finetune()
        counts = iter([3, 4])
        uneven = engine_on(server, chats(), evaluate=lambda llm: [1.0] * next(counts))
        assert not server.files
        with pytest.raises(
            ValueError, match="score: the same items must be scored each time, got 3"
        ):
            uneven.finetune()


def test_preferences_are_tuned_by_dpo():
    with JobsServer() as server:
        engine_on(server, preferences(), method="dpo", hyperparameters={"beta": 0.2}).finetune()
    [asked] = server.asked("POST", "/jobs")
    assert asked["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
    line = json.loads(server.files["file-1"]["content"].splitlines()[0])
    assert line["non_preferred_output"] == [{"role": "assistant", "content": "No idea."}]


def test_the_same_run_again_sends_nothing_and_other_options_make_another():
    with JobsServer() as server:
        engine_on(server, chats()).finetune()
        assert engine_on(server, chats()).get_finetuned_model().model == TUNED
        engine_on(server, chats()).finetune()
        assert (len(server.files), len(server.jobs)) == (1, 1)
        engine_on(server, chats(), seed=7).finetune()
        assert (len(server.files), len(server.jobs)) == (2, 2)
        engine_on(server, chats(), validation_data=chats(3)).finetune()
    assert (len(server.files), len(server.jobs)) == (4, 3)
    assert server.jobs["ftjob-3"]["validation_file"] == "file-4"


def test_a_job_that_exists_is_followed_without_data():
    with JobsServer() as server:
        engine_on(server, chats()).submit()
        engine = engine_on(server, None, False, "ftjob-1")
        assert engine.finetune().data["tuned_model"] == TUNED
        assert engine.get_finetuned_model().model == TUNED
        assert (len(server.files), len(server.jobs)) == (1, 1)
        with pytest.raises(HostedError, match="Could not find fine tune: ftjob-9"):
            engine_on(server, None, start_job_id="ftjob-9").finetune()


def test_a_job_is_cancelled():
    with JobsServer(stages=(("queued", 1e9),)) as server:
        engine = engine_on(server, chats(), timeout=100.0)
        with pytest.raises(NotFinetunedError, match="there is no job yet"):
            engine.cancel()
        assert engine.submit().status == "queued"
        with pytest.raises(JobNotFinishedError, match="job ftjob-1 is still queued"):
            engine.get_finetuned_model()
        with pytest.raises(JobNotFinishedError, match=r"is still queued after 100.0 seconds"):
            engine.finetune()
        assert engine.cancel().status == "cancelled"
        with pytest.raises(HostedError, match="job ftjob-1 has status cancelled"):
            engine.get_finetuned_model()
    assert len(server.jobs) == 1


def test_cancelling_survives_a_lost_reply():
    with JobsServer(stages=(("queued", 1e9),), faults={"cancel": ["drop_after"]}) as server:
        engine = engine_on(server, chats())
        engine.submit()
        assert engine.cancel().status == "cancelled"


def test_a_checkpoint_is_served_by_its_name():
    with JobsServer() as server:
        engine = engine_on(server, chats())
        engine.finetune()
        assert engine.get_finetuned_model(model=f"{TUNED}:ckpt").model == f"{TUNED}:ckpt"


def test_a_failed_job_tells_code_message_and_param_and_can_be_tried_again():
    error = {"code": "invalid_training_file", "message": "row 3 is unsafe", "param": "training"}
    with JobsServer(stages=("queued",), ending="failed", error=error) as server:
        engine = engine_on(server, chats())
        with pytest.raises(JobError, match="row 3 is unsafe, code invalid_training_file") as caught:
            engine.finetune()
        assert (caught.value.job_id, caught.value.state) == ("ftjob-1", "failed")
        assert (caught.value.code, caught.value.param) == ("invalid_training_file", "training")
        assert caught.value.events == ["Created job ftjob-1"]
        server.ending = "succeeded"
        assert engine.finetune().data["job"] == "ftjob-2"
    assert (len(server.files), len(server.jobs)) == (1, 2)


def test_a_job_cancelled_elsewhere_is_an_error():
    with JobsServer(ending="cancelled") as server, pytest.raises(JobError, match="was cancelled"):
        engine_on(server, chats()).finetune()


def test_an_unknown_status_is_waited_on():
    with JobsServer(stages=("queued", "reticulating", "paused_by_us", "running")) as server:
        assert engine_on(server, chats()).finetune().accepted


def test_hours_in_the_queue_pass_and_the_deadline_holds():
    hours = 50_000.0  # seconds of the clock in one of ours
    slow = {"stages": (("queued", 5 * 3600), ("running", 3600)), "clock": scaled(hours).now}
    with JobsServer(**slow) as server:
        started = time.monotonic()
        report = engine_on(server, chats(), clock=scaled(hours), poll_interval=60).finetune()
        assert report.data["status"] == "succeeded"
        assert 6 * 3600 / hours <= time.monotonic() - started < 15
        waited = {"clock": scaled(hours), "timeout": 1800, "seed": 1, "poll_interval": 60}
        engine = engine_on(server, chats(), **waited)
        with pytest.raises(JobNotFinishedError, match="is still queued after 1800 seconds") as late:
            engine.finetune()
        assert late.value.job_id == "ftjob-2"
        engine.timeout = None
        assert engine.finetune().data["job"] == "ftjob-2"
    assert len(server.jobs) == 2


def test_handler_to_file_to_engine_is_one_flow(tmp_path):
    handler = OpenAIFineTuningHandler()
    llm = MockLLM(callback_manager=CallbackManager([handler]))
    for number in range(10):
        llm.complete(f"What is fee {number}?")
    path = tmp_path / "events.jsonl"
    with JobsServer() as server:
        engine = OpenAIFinetuneEngine.from_finetuning_handler(
            handler, MODEL, str(path), client=server.client(), clock=scaled()
        )
        assert engine.estimate().examples == 10
        assert engine.finetune().accepted
    first = json.loads(server.files["file-1"]["content"].splitlines()[0])
    assert first["messages"][0] == {"role": "user", "content": "What is fee 0?"}


def test_a_server_that_tells_little_is_enough():
    faults = {"events": ["404"], "create": ["drop_after"]}
    with JobsServer(lean=True, file_looks=None, faults=faults) as server:
        report = engine_on(server, chats(), model="acme/small").finetune()
    assert report.data["tuned_model"] == "ft:acme/small:org::ftjob-1"
    assert (len(server.files), len(server.jobs)) == (1, 1)
