"""Whatever goes wrong on the way: one upload, one job, the right ending."""

import os
import signal
import subprocess
import sys
import time

import pytest

from llama_index.tuning._files import locked
from llama_index.tuning.errors import HostedError, JobError, RunFileError
from llama_index.tuning.llms.hosted.calls import Clock
from tests.jobs_server import FAULTS, JobsServer

from .hosted_parts import MODEL, chats, engine_on, train_file

ENDPOINTS = ("upload", "file", "files", "create", "job", "jobs", "events")


@pytest.mark.parametrize("fault", [*FAULTS, "429:0.5", "409"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_passing_fault_of_each_request_is_survived(endpoint, fault):
    with JobsServer(faults={endpoint: [fault, None, fault]}, file_looks=1) as server:
        report = engine_on(server, chats()).finetune()
    assert report.data["status"] == "succeeded"
    assert (len(server.files), len(server.jobs)) == (1, 1)
    assert server.kinds_seen[fault] >= 1


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("first", ["drop_after", "500", "garbage"])
def test_a_lost_reply_makes_no_second_job_or_upload(first, lean):
    """Lost for good: five times in a row, and the engine is started again."""
    faults = {"upload": ["drop_after", first], "create": ["drop_after", first, first]}
    with JobsServer(faults=faults, lean=lean) as server:
        assert engine_on(server, chats()).finetune().accepted
        assert (len(server.files), len(server.jobs)) == (1, 1)
        assert len(server.asked("POST", "/jobs")) == 1  # it is looked for before it is asked again


def test_a_file_that_is_not_ready_is_waited_for():
    faults = {"create": ["not_ready"] * 7}
    with JobsServer(faults=faults, file_looks=None) as server:
        assert engine_on(server, chats()).finetune().accepted
    assert len(server.asked("POST", "/jobs")) == 8


def test_a_file_that_is_never_ready_ends_in_the_servers_words():
    with JobsServer(faults={"create": ["not_ready"] * 999}, file_looks=999) as server:
        engine = engine_on(server, chats())
        with pytest.raises(HostedError, match="answered 400: File 'file-1' is still being"):
            engine.finetune()
    assert not server.jobs


def test_a_file_that_the_server_finds_faulty_is_an_error():
    with JobsServer() as server:
        shown = server._shown
        broken = {"status": "error", "status_details": "line 3 is no JSON"}
        server._shown = lambda id_: {**shown(id_), **broken}
        with pytest.raises(HostedError, match="refused file file-1: line 3 is no JSON"):
            engine_on(server, chats()).finetune()


def test_a_long_outage_while_polling_is_waited_out():
    faults = {"job": ["503"] * 20 + ["drop_before"] * 5 + ["429:120"] * 10}
    with JobsServer(faults=faults) as server:
        assert engine_on(server, chats()).finetune().accepted


def test_an_outage_beyond_the_deadline_is_told_and_later_resumed():
    with JobsServer(faults={"job": ["503"] * 10_000}) as server:
        engine = engine_on(server, chats(), timeout=300.0)
        with pytest.raises(HostedError, match=r"cannot look at job ftjob-1: .* answered 503"):
            engine.finetune()
        server._faults.clear()
        assert engine.finetune().data["job"] == "ftjob-1"


def test_a_rate_limit_is_waited_for_as_the_server_asks():
    slept = []
    clock = Clock(sleep=slept.append)
    with JobsServer(faults={"create": ["429:7", "429:0.25"]}) as server:
        engine_on(server, chats(), clock=clock).finetune()
    assert slept[:2] == [7.0, 0.25]


def test_no_credit_is_not_tried_again():
    with JobsServer(faults={"create": ["quota", "quota"]}) as server:
        with pytest.raises(HostedError, match="exceeded your current quota; there is no credit"):
            engine_on(server, chats()).finetune()
        assert len(server.asked("POST", "/jobs")) == 1


def test_a_server_that_cannot_list_jobs_leaves_no_doubt_open():
    faults = {"jobs": ["404"] * 99, "create": ["drop_after"]}
    doubt = pytest.raises(HostedError, match=r"cannot list jobs: whether one runs is unknown")
    with JobsServer(faults=faults) as server, doubt:
        engine_on(server, chats()).finetune()
    assert len(server.jobs) == 1


def test_a_server_without_lists_works_where_nothing_is_lost():
    with JobsServer(faults={"jobs": ["404"] * 99, "files": ["405"] * 99}) as server:
        assert engine_on(server, chats()).finetune().accepted


def test_a_server_that_refuses_metadata_is_asked_without():
    with JobsServer(faults={"create": ["400:Unknown parameter: 'metadata'."]}) as server:
        assert engine_on(server, chats()).finetune().accepted
    first, second = server.asked("POST", "/jobs")
    assert "metadata" in first
    assert "metadata" not in second


ENDINGS = (
    {"ending": "succeeded"},
    {"ending": "succeeded", "stages": ("queued", "moved_to_another_cluster")},
    {"ending": "failed", "error": {"code": "moderation", "message": "unsafe", "param": None}},
    {"ending": "cancelled"},
    {"ending": "succeeded", "lean": True, "file_looks": None},
)


def one_faulty_run(seed, folder):
    """A run with faults in a third of all requests, started again after each error."""
    told = ENDINGS[seed % len(ENDINGS)]
    folder.mkdir()
    data = train_file(folder) if seed % 2 else chats()
    with JobsServer(share=0.33, seed=seed, **{"file_looks": 1, **told}) as server:
        for _ in range(20):
            try:
                ending = engine_on(server, data).finetune().data["status"]
                break
            except JobError as exc:
                ending = exc.state
                break
            except HostedError:
                continue  # five faults in a row: the process ends, and is started again
        else:
            pytest.fail("no ending in 20 starts")
    assert ending == told["ending"]
    assert (len(server.files), len(server.jobs)) == (1, 1), server.kinds_seen
    return sum(server.kinds_seen.values())


def test_faulty_runs_make_one_upload_and_one_job_each(tmp_path):
    faults = [one_faulty_run(seed, tmp_path / str(seed)) for seed in range(20)]
    assert sum(faults) > 60


@pytest.mark.slow
def test_a_hundred_faulty_runs_make_one_upload_and_one_job_each(tmp_path):
    faults = [one_faulty_run(seed, tmp_path / str(seed)) for seed in range(20, 120)]
    assert sum(faults) > 300


PARENT = """
import os, sys
from openai import OpenAI
from llama_index.tuning.llms.hosted.engine import OpenAIFinetuneEngine
from tests.llms.hosted_parts import MODEL, scaled
def run(url, key, path):
    client = OpenAI(base_url=url, api_key=key)
    engine = OpenAIFinetuneEngine(MODEL, path, client=client, clock=scaled(), poll_interval=10)
    print(engine.finetune().data["tuned_model"], flush=True)
run(*sys.argv[1:])  # imports everything
for line in sys.stdin:
    child = os.fork()
    if not child:
        run(*line.split())
        os._exit(0)
    print(child, flush=True)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A process that has imported everything; each line on its input is a run in a child."""
    path = train_file(tmp_path_factory.mktemp("first"))
    with JobsServer() as server:
        command = [sys.executable, "-c", PARENT, server.base_url, server.key, str(path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, **pipes, text=True) as process:
            assert process.stdout.readline().startswith("ft:")
            yield process
            process.stdin.close()


def start(parent, server, path):
    print(server.base_url, server.key, path, file=parent.stdin, flush=True)
    return int(parent.stdout.readline())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forks")
@pytest.mark.parametrize("number", range(1, 12))
def test_a_process_killed_at_any_request_is_resumed(parent, tmp_path, number):
    path = train_file(tmp_path)
    with JobsServer(file_looks=1) as server:
        server.at_request[number] = lambda: os.kill(child, signal.SIGKILL)
        child = start(parent, server, path)
        assert parent.stdout.readline() == f"ended {int(signal.SIGKILL)}\n"
        assert len(server.seen) >= number
        start(parent, server, path)
        assert parent.stdout.readline() == f"ft:{MODEL}:org::ftjob-1\n"
        assert parent.stdout.readline() == "ended 0\n"
    assert (len(server.files), len(server.jobs)) == (1, 1)


def test_two_processes_do_not_make_two_jobs(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with JobsServer() as server:
        engine = engine_on(server, chats())
        key = engine._checked_files().key
        with locked(tmp_path / f"llama-index-tuning-{key}.lock", RuntimeError()):
            with pytest.raises(RunFileError, match="another process is submitting the same data"):
                engine.finetune()
            assert not server.files
        assert engine.finetune().accepted


def test_a_lost_job_is_found_among_many():
    with JobsServer(faults={"create": ["drop_after"]}) as server:
        for number in range(250):
            old = {"id": f"old-{number}", "status": "succeeded", "training_file": "file-0"}
            server.jobs[old["id"]] = {**old, "model": "m", "fine_tuned_model": "m", "began": 0}
        assert engine_on(server, chats()).finetune().data["job"] == "ftjob-251"
    assert len(server.jobs) == 251


def test_a_job_that_is_not_known_everywhere_yet_is_waited_for():
    with JobsServer(faults={"job": ["404", "404", None, "404"]}) as server:
        with pytest.raises(HostedError, match=r"cannot look at job ftjob-1: .* 404"):
            engine_on(server, chats()).finetune()  # known once, then gone
        assert engine_on(server, chats()).finetune().data["job"] == "ftjob-1"


def test_a_file_that_was_deleted_at_the_server_hides_no_job():
    with JobsServer() as server:
        engine_on(server, chats()).finetune()
        server.files.clear()
        assert engine_on(server, chats()).finetune().data["job"] == "ftjob-1"
    assert not server.files


def test_a_run_does_not_take_up_another_s_job():
    with JobsServer(lean=True, faults={"create": ["400:no such model"]}) as server:
        with pytest.raises(HostedError, match="no such model"):
            engine_on(server, chats()).finetune()
        # Another one's, on the same file:
        server.client().fine_tuning.jobs.create(model="other", training_file="file-1")
        assert engine_on(server, chats()).finetune().data["job"] == "ftjob-2"
        # The same data with other options has a file, and so a job, of its own:
        assert engine_on(server, chats(), seed=1).finetune().data["job"] == "ftjob-3"
        assert engine_on(server, chats()).finetune().data["job"] == "ftjob-2"


def test_limits_on_events_do_not_hold_up_the_job():
    with JobsServer(faults={"events": ["429:3600"] * 99}) as server:
        started = time.monotonic()
        assert engine_on(server, chats()).finetune().accepted
        assert time.monotonic() - started < 1.5  # an hour of the clock would be 1.8 seconds
    assert len(server.asked("GET", "/events")) == 3
