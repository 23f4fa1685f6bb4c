import json
import logging

import pytest

from llama_index.tuning.errors import TuningError
from llama_index.tuning.hf.checkpoints import COMPLETE, last_checkpoint, mark_complete, prepare


@pytest.fixture
def folder(tmp_path):
    for step in (2, 10):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_bytes(bytes(range(200)))
        (checkpoint / "state.json").write_text("{}")
        mark_complete(checkpoint)
    return tmp_path


def test_the_newest_whole_one_is_found(folder, tmp_path):
    assert last_checkpoint(folder).name == "checkpoint-10"
    assert last_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / COMPLETE).unlink(), "it was not finished"),
        (lambda c: (c / COMPLETE).write_text('{"weig'), "its complete.json is damaged"),
        (lambda c: (c / COMPLETE).write_text("[1]"), "its complete.json is damaged"),
        (lambda c: (c / "weights").unlink(), "its weights is missing"),
        (lambda c: (c / "weights").write_bytes(bytes(100)), "its weights is damaged"),
        (lambda c: (c / "weights").write_bytes(b"\xff" + bytes(range(1, 200))), "is damaged"),
    ],
)
def test_a_damaged_one_is_skipped_with_a_message(folder, damage, words, caplog):
    damage(folder / "checkpoint-10")
    with caplog.at_level(logging.WARNING):
        assert last_checkpoint(folder).name == "checkpoint-2"
    assert words in caplog.text
    assert not (folder / "checkpoint-10" / COMPLETE).exists()


def test_a_new_run_starts_empty_and_a_resumed_one_must_be_the_same(folder):
    prepare(folder, {"epochs": 2, "dims": (4, 2)}, resume=False)
    assert not list(folder.glob("checkpoint-*"))
    (folder / "checkpoint-3").mkdir()
    prepare(folder, {"epochs": 2, "dims": (4, 2)}, resume=True)
    assert (folder / "checkpoint-3").is_dir()
    with pytest.raises(TuningError, match="belong to another run; different: epochs"):
        prepare(folder, {"epochs": 3, "dims": (4, 2)}, resume=True)
    assert json.loads((folder / "run.json").read_text())["epochs"] == 2
