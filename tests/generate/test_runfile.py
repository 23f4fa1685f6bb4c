import os

import pytest

from llama_index.tuning.asking.run_file import RunFile
from llama_index.tuning.errors import RunFileError

HEAD = {"task": "questions", "prompt": "Ask: {x}"}


def test_what_was_put_is_there_when_opened_again(tmp_path):
    path = tmp_path / "folder" / "run.jsonl"
    with RunFile(path, HEAD) as run:
        run.put("questions", "n1", "prompt", ["Was kostet das – 5 €?\n\u2028"])
        run.fail("questions", "n2", "prompt 2", {"error": "ValueError"})
    with RunFile(path, HEAD) as run:
        assert run.get("questions", "n1", "prompt") == ["Was kostet das – 5 €?\n\u2028"]
        assert run.get("questions", "n2", "prompt 2") is None
        assert run.get("verify", "n1", "prompt") is None
        assert run.get("questions", "n1", "changed prompt") is None
        assert run.get("questions", "n9", "prompt") is None
        assert run.get("questions", "n9", "prompt", any_id=True) is not None


@pytest.mark.parametrize("cut", [1, 2, 30, 60])
def test_a_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path, cut):
    path = tmp_path / "run.jsonl"
    with RunFile(path, HEAD) as run:
        run.put("s", "n1", "p", [1])
        run.put("s", "n2", "p", ["x" * 60])
    os.truncate(path, path.stat().st_size - cut)
    with RunFile(path, HEAD) as run:
        assert run.get("s", "n1", "p") == [1]
        assert run.get("s", "n2", "p") is None
        run.put("s", "n2", "p", [2])
    with RunFile(path, HEAD) as run:
        assert run.get("s", "n2", "p") == [2]


def test_a_torn_header_is_a_new_file(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"kind": "llama-index-tun')
    with RunFile(path, HEAD) as run:
        run.put("s", "n", "p", [1])
    with RunFile(path, HEAD) as run:
        assert run.get("s", "n", "p") == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("notes of mine", "is not a run file"),
        ('{"a": 1}\n', "is not a run file"),
        ("[1]\n", "is not a run file"),
        ("[1]\nnotes", "is not a run file"),
        ("x" * 50 + "\nnotes", "is not a run file"),
        ("{broken}\n", "is not a run file"),
        ('{"kind": "llama-index-tuning run", "format": 9}\n', "has format 9"),
    ],
)
def test_another_file_is_refused_and_left_as_it_is(tmp_path, content, message):
    path = tmp_path / "mine.txt"
    path.write_text(content)
    with pytest.raises(RunFileError, match=message), RunFile(path, HEAD):
        pass
    assert path.read_text() == content


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "run.jsonl"
    with RunFile(path, HEAD) as run:
        run.put("s", "n", "p", [1])
    path.write_bytes(path.read_bytes() + b'{"step": \n{"step": "s"}\n')
    with pytest.raises(RunFileError, match="line 3 is not valid JSON"), RunFile(path, HEAD):
        pass


def test_a_header_that_differs_is_refused_and_named(tmp_path):
    path = tmp_path / "run.jsonl"
    with RunFile(path, HEAD):
        pass
    for other in ({**HEAD, "prompt": "Other"}, {**HEAD, "more": 1}, {"task": "questions"}):
        with pytest.raises(RunFileError, match="belongs to another run: its"), RunFile(path, other):
            pass


def test_two_writers_are_refused(tmp_path):
    with (
        RunFile(tmp_path / "run.jsonl", HEAD),
        pytest.raises(RunFileError, match="is being written by another run"),
        RunFile(tmp_path / "run.jsonl", HEAD),
    ):
        pass
    with RunFile(tmp_path / "run.jsonl", HEAD):
        pass


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "run.jsonl"
    real = os.write
    with RunFile(path, HEAD) as run:
        run.put("s", "n1", "p", [1])

        def half(handle, data):
            if len(data) < 10:
                raise OSError(28, "No space left on device")
            return real(handle, data[: len(data) // 2])

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space left"):
            run.put("s", "n2", "p", ["x" * 100])
        monkeypatch.setattr(os, "write", real)
        run.put("s", "n3", "p", [3])
    with RunFile(path, HEAD) as run:
        assert [run.get("s", id_, "p") for id_ in ("n1", "n2", "n3")] == [[1], None, [3]]
