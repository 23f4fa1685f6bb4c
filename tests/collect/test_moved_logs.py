"""A log that is renamed or removed while it is open goes on in a new file, and nothing is lost."""

import json

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex

from llama_index.tuning.collect import FinetuningRecorder
from llama_index.tuning.collect.log import TrafficLog, read_log


def rename(path):
    path.rename(path.with_name("rotated.jsonl"))


def remove(path):
    path.unlink()


def remove_folder(path):
    path.unlink()
    path.parent.rmdir()


MOVES = [rename, remove, remove_folder]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("flush_every", [1, 100])
def test_a_log_that_was_moved_goes_on_in_a_new_file(tmp_path, scripted, move, flush_every):
    path = tmp_path / "logs" / "traffic.jsonl"
    with FinetuningRecorder(path, flush_every=flush_every) as recorder:
        scripted().complete("before")
        recorder.flush()
        move(path)
        for n in range(5):
            scripted().complete(f"after {n}")
    asked = [r.data["messages"][0]["content"] for r in recorder.traffic().records]
    assert asked == [f"after {n}" for n in range(5)]
    assert recorder.failures == 0


@pytest.mark.parametrize("move", MOVES)
def test_a_request_under_way_when_the_log_moves_is_whole(tmp_path, scripted, move):
    path = tmp_path / "logs" / "traffic.jsonl"

    class Moves(scripted):
        def complete(self, prompt, formatted=False, **kwargs):
            recorder._log._write()  # the passages' texts are in the file that moves
            move(path)
            return super().complete(prompt, formatted, **kwargs)

    index = VectorStoreIndex.from_documents(
        [Document(text="5 euros")], embed_model=MockEmbedding(4)
    )
    with FinetuningRecorder(path, flush_every=1) as recorder:
        index.as_query_engine(llm=Moves()).query("Fee?")
    traffic = recorder.traffic()
    assert [record.kind for record in traffic.records] == ["retrieval", "llm", "query"]
    assert list(traffic.texts.values()) == ["5 euros"]


def test_texts_known_to_the_old_file_are_written_to_the_new_one(tmp_path):
    path = tmp_path / "a.jsonl"
    log = TrafficLog(path)
    node = ("n", "text", lambda: {"kind": "node", "id": "n", "text": "text"})
    log.append({"kind": "x"}, [node])
    rename(path)
    log.append({"kind": "y"}, [node])
    log.close()
    assert [row["kind"] for row in read_log(path)] == ["node", "y"]
    lines = (tmp_path / "rotated.jsonl").read_text().splitlines()
    first = [json.loads(line)["kind"] for line in lines]
    assert first == ["header", "node", "x"]


def test_what_cannot_be_written_is_counted_when_the_log_is_closed(tmp_path, caplog):
    path = tmp_path / "logs" / "a.jsonl"
    log = TrafficLog(path, flush_every=10)
    log.append({"kind": "x"})
    remove_folder(path)
    path.parent.write_text("a file where the folder was")
    log.append({"kind": "y"})
    log.close()
    assert log.lost == 2
