import json
import os
import threading

import numpy as np
import pytest

from llama_index.tuning import artifacts
from llama_index.tuning.artifacts import exchange
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
    assert (path / "README.md").read_text() == "# Thing"


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
