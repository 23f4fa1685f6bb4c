import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from llama_index.tuning import _files, artifacts
from llama_index.tuning._files import exchange, write_text_atomic
from llama_index.tuning.errors import ArtifactError


def write(folder, **config):
    artifacts.write_component(folder, "thing", config, {"w": np.ones(3, np.float32)}, "# Thing")


def saved(path, **config):
    with artifacts.replacing_folder(path) as folder:
        write(folder, **config)
    return path


def test_a_component_comes_back(tmp_path):
    path = saved(tmp_path / "a" / "thing", answer=42)
    assert artifacts.read_config(path, "thing")["answer"] == 42
    assert artifacts.read_tensors(path)["w"].tolist() == [1, 1, 1]
    assert (path / "README.md").read_text().endswith("# Thing")


def test_a_failed_save_leaves_the_old_component_and_no_litter(tmp_path):
    path = saved(tmp_path / "thing", answer=1)

    def save_without_space():
        with artifacts.replacing_folder(path) as folder:
            write(folder, answer=2)
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_without_space()
    assert artifacts.read_config(path, "thing")["answer"] == 1
    assert os.listdir(tmp_path) == ["thing"]
    saved(path, answer=3)
    assert artifacts.read_config(path, "thing")["answer"] == 3
    assert os.listdir(tmp_path) == ["thing"]


def test_a_reader_beside_writers_always_finds_a_whole_component(tmp_path):
    path = saved(tmp_path / "thing", answer=0)
    if not exchange(saved(tmp_path / "a"), saved(tmp_path / "b")):
        pytest.skip("this system cannot swap folders in one step")
    failed = []

    def write_often(answer):
        try:
            for _ in range(50):
                saved(path, answer=answer)
        except OSError as exc:
            failed.append(exc)

    writers = [threading.Thread(target=write_often, args=(n,)) for n in (1, 2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert artifacts.read_config(path, "thing")["answer"] in (0, 1, 2)
    assert not failed
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "thing"]


def test_without_such_a_call_folders_are_swapped_in_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "exchange", lambda one, other: False)
    path = saved(saved(tmp_path / "thing", answer=1), answer=2)
    assert artifacts.read_config(path, "thing")["answer"] == 2
    assert os.listdir(tmp_path) == ["thing"]


def test_weights_that_find_no_space_are_an_oserror(tmp_path):
    resource = pytest.importorskip("resource")
    path = saved(tmp_path / "thing", answer=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_without_space():
        with artifacts.replacing_folder(path) as folder:
            large = {"w": np.ones(10_000, np.float32)}
            artifacts.write_component(folder, "thing", {}, large, "")

    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(OSError, match="thing could not be saved"):
            save_without_space()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert artifacts.read_config(path, "thing")["answer"] == 1


def test_a_folder_with_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"not a saved component \(it holds thesis.tex\)"):
        saved(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="is a file or a link"):
        saved(tmp_path / "file")
    with pytest.raises(ArtifactError, match=r"deeper cannot be made: .*file is a file"):
        saved(tmp_path / "file" / "and" / "deeper")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"format": 99, "kind": "thing"}', "has format 99; this version reads format 1"),
        ('{"format": 1, "kind": "router"}', "holds a 'router', not a 'thing'"),
    ],
)
def test_a_bad_config_is_named(tmp_path, config, words):
    path = saved(tmp_path / "thing")
    (path / "tuning.json").write_text(config)
    with pytest.raises(ArtifactError, match=words):
        artifacts.read_config(path, "thing")


def test_weights_are_checked(tmp_path):
    path = saved(tmp_path / "thing")
    good = (path / "model.safetensors").read_bytes()
    for bad in (good[:-4], b"", b"\x80\x04pickle", good.replace(b"F32", b"I32")):
        (path / "model.safetensors").write_bytes(bad)
        with pytest.raises(ArtifactError):
            artifacts.read_tensors(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"has no model.safetensors"):
        artifacts.read_tensors(path)


def test_a_file_name_in_the_config_is_never_followed(tmp_path):
    (tmp_path / "secret").write_text("x")
    path = saved(tmp_path / "thing", weights="../secret", files=["/etc/passwd"])
    config = artifacts.read_config(path, "thing")
    assert json.dumps(config).count("secret") == 1
    assert artifacts.read_tensors(path)["w"].tolist() == [1, 1, 1]


def test_what_killed_saves_left_is_cleared_by_the_next(tmp_path):
    code = """
import os, sys
from llama_index.tuning import _files, artifacts
with artifacts.replacing_folder(sys.argv[1]) as folder:
    (folder / "half").write_text("x")
    os.kill(os.getpid(), 9)
"""
    target = tmp_path / "a[1]"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert len(list(tmp_path.iterdir())) == 1  # the second cleared what the first left
    (tmp_path / ".other.new-x").mkdir()
    with artifacts.replacing_folder(target) as folder:
        artifacts.write_component(folder, "k", {}, {}, "")
    assert {entry.name for entry in tmp_path.iterdir()} == {"a[1]", ".other.new-x"}


def test_a_save_that_is_at_work_is_left_alone(tmp_path):
    with artifacts.replacing_folder(tmp_path / "a") as one:
        artifacts.write_component(one, "k", {"n": 1}, {}, "")
        with artifacts.replacing_folder(tmp_path / "a") as other:
            artifacts.write_component(other, "k", {"n": 2}, {}, "")
        assert one.exists()
    assert artifacts.read_config(tmp_path / "a", "k")["n"] == 1


def test_what_was_moved_aside_by_a_killed_save_comes_back(tmp_path):
    with artifacts.replacing_folder(tmp_path / "a") as folder:
        artifacts.write_component(folder, "k", {"n": 1}, {}, "")
    aside = tmp_path / ".a.old-x"
    aside.mkdir()
    (tmp_path / "a").rename(aside / "was")
    with pytest.raises(KeyError), artifacts.replacing_folder(tmp_path / "a"):
        raise KeyError
    assert artifacts.read_config(tmp_path / "a", "k")["n"] == 1
    assert not aside.exists()


def test_files_of_killed_writers_are_cleared_too(tmp_path):
    code = """
import os, sys
from pathlib import Path
from llama_index.tuning._files import draft_beside
with draft_beside(Path(sys.argv[1]), folder=False):
    os.kill(os.getpid(), 9)
"""
    file = tmp_path / "data.json"
    subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    write_text_atomic(file, "{}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.json"]


def test_a_component_is_sealed(tmp_path):
    def saved():
        with artifacts.replacing_folder(tmp_path / "a") as folder:
            arrays = {"w": np.ones(3, np.float32)}
            artifacts.write_component(folder, "k", {"bias": 0.5}, arrays, "card")
            (folder / "words").mkdir()
            (folder / "words" / "ids.json").write_text("[1]")
        return tmp_path / "a"

    def told(change):
        change(saved())
        with pytest.raises(ArtifactError, match="is damaged") as caught:
            artifacts.check_intact(tmp_path / "a")
        return str(caught.value)

    def negate(path):
        save_file({"w": -np.ones(3, np.float32)}, path / artifacts.WEIGHTS)

    def turn(path):
        text = (path / artifacts.CONFIG).read_text()
        (path / artifacts.CONFIG).write_text(text.replace("0.5", "-0.5"))

    assert "model.safetensors is not what was saved" in told(negate)
    assert "tuning.json is not what was saved" in told(turn)
    assert "words/ids.json is not" in told(lambda p: (p / "words" / "ids.json").write_text("[2]"))
    assert "ids.json" in told(lambda p: (p / "words" / "ids.json").unlink())
    (saved() / "README.md").write_text("for people: may be edited")
    artifacts.check_intact(tmp_path / "a")
    assert "checksums" not in artifacts.read_config(tmp_path / "a", "k")


_WORKER = """
import sys, time
from pathlib import Path
from llama_index.tuning._files import locked, remove_locked_folder
folder, times, end = Path(sys.argv[1]), 0, time.monotonic() + 3
while time.monotonic() < end:
    try:
        with locked(folder / "lock", BlockingIOError()):
            (folder / "work").mkdir()
            remove_locked_folder(folder / "lock")
            times += 1
    except BlockingIOError:
        pass
print(times)
"""


def test_one_at_a_time_holds_a_folder_that_goes_with_its_lock(tmp_path):
    command = [sys.executable, "-c", _WORKER, tmp_path / "run"]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    times = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]  # else `work` was there already
    assert sum(map(int, times)) > 100


def test_a_file_that_is_written_atomically_inside_a_draft_does_not_wait_for_its_lock(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(_files.time, "sleep", lambda _: pytest.fail("it waits"))
    with artifacts.replacing_folder(tmp_path / "out") as folder:
        write_text_atomic(folder / "report.json", "{}")
    assert os.listdir(tmp_path / "out") == ["report.json"]
