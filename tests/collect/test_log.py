import json
import multiprocessing
import os
import threading

import pytest

from llama_index.tuning.collect.log import Batch, TrafficLog, read_log, segments
from llama_index.tuning.errors import DatasetError


def numbers(path):
    return [row["n"] for row in read_log(path) if row["kind"] == "x"]


def test_records_come_back_in_order_and_the_file_is_the_owners_alone(tmp_path):
    log = TrafficLog(tmp_path / "deep" / "a.jsonl")
    for n in range(3):
        log.append({"kind": "x", "n": n, "text": "größer\u2028日本"})
    assert numbers(log.path) == [0, 1, 2]
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert all(json.loads(line) for line in log.path.read_bytes().splitlines())


def test_half_a_surrogate_pair_comes_back_unchanged(tmp_path):
    log = TrafficLog(tmp_path / "a.jsonl")
    log.append({"kind": "x", "n": "\ud83d", "more": object})
    assert numbers(log.path) == ["\ud83d"]


def test_a_line_that_was_cut_is_passed_over_and_the_next_one_is_whole(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    first = TrafficLog(path)
    first.append({"kind": "x", "n": 0})
    first.close()
    with path.open("ab") as file:
        file.write(b'{"kind":"x","n":1,"te')
    second = TrafficLog(path)
    second.append({"kind": "x", "n": 2})
    assert numbers(path) == [0, 2]
    assert "1 lines were cut short" in caplog.text


def test_a_full_segment_is_followed_by_the_next_and_each_holds_its_attachments(tmp_path):
    log = TrafficLog(tmp_path / "a.jsonl", max_bytes=150)
    text = ("doc", "v1", lambda: {"kind": "node", "id": "doc", "text": "words"})
    for n in range(20):
        log.append({"kind": "x", "n": n}, [text])
    assert numbers(log.path) == list(range(20))
    (tmp_path / "a-2026.jsonl").write_text("another log")
    files = segments(log.path)
    assert [file.name for file in files][:3] == ["a.jsonl", "a.part2.jsonl", "a.part3.jsonl"]
    assert all(file.read_text().count('"node"') == 1 for file in files)


def test_an_attachment_is_written_again_when_it_changed(tmp_path):
    log = TrafficLog(tmp_path / "a.jsonl")
    for stamp in ("v1", "v1", "v2"):
        made = {"kind": "node", "id": "doc", "text": stamp}
        log.append({"kind": "x", "n": 0}, [("doc", stamp, lambda made=made: made)])
    assert [row["text"] for row in read_log(log.path) if row["kind"] == "node"] == ["v1", "v2"]


def test_held_back_records_are_written_by_count_by_time_and_at_the_end(tmp_path):
    log = TrafficLog(tmp_path / "a.jsonl", flush_every=3, flush_seconds=60)
    log.append({"kind": "x", "n": 0})
    log.append({"kind": "x", "n": 1})
    assert log.path.stat().st_size == 0
    log.append({"kind": "x", "n": 2})
    assert numbers(log.path) == [0, 1, 2]
    log.append({"kind": "x", "n": 3})
    log.close()
    assert numbers(log.path) == [0, 1, 2, 3]

    timed = TrafficLog(tmp_path / "b.jsonl", flush_every=100, flush_seconds=0.01)
    timed.append({"kind": "x", "n": 0})
    timed._timer.join(5)
    assert numbers(timed.path) == [0]


def test_many_threads_lose_and_double_nothing(tmp_path):
    log = TrafficLog(tmp_path / "a.jsonl", max_bytes=20_000)

    def work(start):
        for n in range(start, start + 200):
            log.append({"kind": "x", "n": n})

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(numbers(log.path)) == [1000 * k + n for k in range(8) for n in range(200)]


def _write_ten(path, start):
    log = TrafficLog(path)
    for n in range(start, start + 10):
        log.append({"kind": "x", "n": n})


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_write_segments_of_their_own(tmp_path, method):
    path = tmp_path / "a.jsonl"
    log = TrafficLog(path, flush_every=5, flush_seconds=60)
    log.append({"kind": "x", "n": 0})
    context = multiprocessing.get_context(method)
    children = [context.Process(target=_write_ten, args=(path, 100 * n)) for n in (1, 2)]
    [child.start() for child in children]
    [child.join() for child in children]
    log.append({"kind": "x", "n": 1})
    log.close()
    expected = [0, 1, *range(100, 110), *range(200, 210)]
    assert sorted(numbers(path)) == expected


def test_a_forked_process_leaves_its_parents_file_alone(tmp_path):
    log = TrafficLog(tmp_path / "a.jsonl", flush_every=10, flush_seconds=60)
    log.append({"kind": "x", "n": 0})
    pid = os.fork()
    if pid == 0:
        log.append({"kind": "x", "n": 1})
        log.close()
        os._exit(0)
    os.waitpid(pid, 0)
    log.append({"kind": "x", "n": 2})
    log.close()
    assert sorted(numbers(log.path)) == [0, 1, 2]
    assert len(segments(log.path)) == 2


def test_a_write_error_is_counted_and_writing_goes_on(tmp_path, monkeypatch, caplog):
    log = TrafficLog(tmp_path / "a.jsonl")
    node = ("doc", "v1", lambda: {"kind": "node", "id": "doc", "text": "words"})
    log.append({"kind": "x", "n": 0})
    real, room = os.write, [5]

    def nearly_full(fd, data):
        if not room:
            raise OSError(28, "No space left on device")
        return real(fd, data[: room.pop()])

    monkeypatch.setattr(os, "write", nearly_full)
    log.append({"kind": "x", "n": 1}, [node])
    monkeypatch.setattr(os, "write", real)
    log.append({"kind": "x", "n": 2}, [node])
    assert log.lost == 1  # the record: its passage is no record
    assert "could not be written" in caplog.text
    assert numbers(log.path) == [0, 2]
    assert [row["text"] for row in read_log(log.path) if row["kind"] == "node"] == ["words"]


def test_a_folder_that_cannot_be_made_is_counted_not_raised(tmp_path):
    (tmp_path / "file").write_text("in the way")
    log = TrafficLog(tmp_path / "file" / "a.jsonl")
    log.append({"kind": "x", "n": 0})
    assert log.lost == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"kind": "x"}\n', "its first line is not a header"),
        ('["header"]\n', "its first line is not a header"),
        ('{"kind": "header", "format": 9}\n', "has format 9; this version reads format 1"),
        ("query,answer\n", "no line of it is a header"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DatasetError, match=message):
        list(read_log(tmp_path / "a.jsonl"))


def test_nothing_recorded_is_an_error_that_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was recorded there yet"):
        list(read_log(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("argument", ["flush_every", "max_bytes", "flush_seconds"])
def test_limits_below_their_range_are_named(tmp_path, argument):
    with pytest.raises(ValueError, match=f"{argument} must be (a (whole )?number >|above 0)"):
        TrafficLog(tmp_path / "a.jsonl", **{argument: 0})


def test_a_text_is_on_disk_before_any_batch_that_refers_to_it(tmp_path):
    log = TrafficLog(tmp_path / "a.jsonl")
    text = ("doc", "v1", lambda: {"kind": "node", "id": "doc", "text": "words"})
    slow, quick = Batch(), Batch()
    log.append({"kind": "x", "n": 0}, [text], slow)
    log.append({"kind": "x", "n": 1}, [text], quick)
    log.end(quick)
    assert [row["kind"] for row in read_log(log.path)] == ["node", "x"]
    log.end(slow)
    log.append({"kind": "x", "n": 2}, [], slow)
    assert numbers(log.path) == [1, 0, 2]


def test_a_batch_that_is_open_when_a_segment_is_full_stays_with_its_texts(tmp_path):
    log = TrafficLog(tmp_path / "a.jsonl", max_bytes=150)
    text = ("doc", "v1", lambda: {"kind": "node", "id": "doc", "text": "words"})
    batch = Batch()
    log.append({"kind": "x", "n": 0}, [text], batch)
    for n in range(1, 9):
        log.append({"kind": "x", "n": n, "text": "so many words"})
    log.end(batch)
    assert sorted(numbers(log.path)) == list(range(9))
    assert '"doc"' in log.path.read_text()
    assert '"n":0' in log.path.read_text()


def test_a_process_forked_in_the_middle_of_a_batch_doubles_nothing(tmp_path):
    log = TrafficLog(tmp_path / "a.jsonl")
    batch = Batch()
    log.append({"kind": "x", "n": 0}, [], batch)
    pid = os.fork()
    if pid == 0:
        log.append({"kind": "x", "n": 1}, [], batch)
        log.end(batch)
        log.close()
        os._exit(0)
    os.waitpid(pid, 0)
    log.end(batch)
    assert sorted(numbers(log.path)) == [0, 1]


def test_an_object_that_cannot_be_written_loses_its_own_batch_alone(tmp_path):
    class Broken:
        def __str__(self):
            raise RuntimeError("no words")

    log = TrafficLog(tmp_path / "a.jsonl")
    broken, whole = Batch(), Batch()
    log.append({"kind": "x", "n": Broken()}, [], broken)
    log.append({"kind": "x", "n": 1}, [], whole)
    log.close()
    assert numbers(log.path) == [1]
    assert log.lost == 1


def test_a_request_that_hangs_is_written_all_the_same(tmp_path):
    log, batch = TrafficLog(tmp_path / "a.jsonl", flush_seconds=0.05), Batch()
    log.append({"kind": "x", "n": 1}, batch=batch)
    timer = log._timer
    timer.join(5)
    assert numbers(log.path) == [1]  # neither an end nor another record came
    log.end(batch)
    assert numbers(log.path) == [1]


def test_a_hook_whose_own_work_is_recorded_neither_hangs_nor_recurses(tmp_path):
    def redact(text):
        log.append({"kind": "x", "n": "the hook's own"})
        return text.upper()

    log = TrafficLog(tmp_path / "a.jsonl", redact=redact)
    writer = threading.Thread(target=log.append, args=({"kind": "x", "n": "a"},), daemon=True)
    writer.start()
    writer.join(5)
    assert not writer.is_alive()
    assert numbers(log.path) == ["A"]


def test_a_hook_that_is_no_function_is_named_at_once(tmp_path):
    with pytest.raises(TypeError, match="redact must be a function of a text or None, got 'mask'"):
        TrafficLog(tmp_path / "a.jsonl", redact="mask")
