from types import SimpleNamespace

import numpy as np
import pytest

from llama_index.tuning.judges.encoder.windows import Reader, scores_of


def item(response="It is amber.", second=None, query="Code?", contexts=(), reference=None):
    return SimpleNamespace(
        query=query,
        response=response,
        second_response=second,
        contexts=list(contexts),
        reference=reference,
    )


def reader(limit=20, **flags):
    return Reader(lambda text: len(text.split()), limit, **flags)


LONG = [f"Sentence {n} is here." for n in range(30)]


def test_every_sentence_of_long_contexts_is_read_once():
    given = item(contexts=[" ".join(LONG[:20]), " ".join(LONG[20:])])
    ((windows,), (evidence,)) = vars(reader().reading(given)).values()
    assert len(windows) > 5
    assert " ".join(evidence) == " ".join(LONG)
    for (first, second), text in zip(windows, evidence, strict=True):
        assert first == f"Code?\n{text}"
        assert second == "It is amber."
        assert len(first.split()) + len(second.split()) <= 20


def test_short_contexts_are_one_window():
    reading = reader().reading(item(contexts=["One.", "Two three."], reference="Amber."))
    assert reading.parts == [[("Code?\nAmber. One. Two three.", "It is amber.")]]


def test_a_long_response_is_read_in_parts():
    reading = reader().reading(item(response=" ".join(LONG), contexts=["Only this."]))
    assert " ".join(part[0][1] for part in reading.parts) == " ".join(LONG)
    assert all(len(part) == 1 for part in reading.parts)


@pytest.mark.parametrize("text", ["word " * 200, "x" * 300, "费用很高" * 60])
def test_what_has_no_sentences_is_cut_without_loss(text):
    by_letters = Reader(len, 40)
    pieces = by_letters.pieces(text.strip(), 10)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert max(map(len, pieces)) <= 10


def test_a_long_query_and_a_long_pair_lose_their_middle():
    long = " ".join(f"w{n}" for n in range(40))
    given = item(query=long, response=long, second="short")
    (first, second), *_ = reader(40).reading(given).parts[0]
    assert first.startswith("w0 w1")
    assert first.endswith("w38 w39")
    assert len(first.split()) <= 10
    assert second.endswith("w39 | short")
    assert 10 < len(second.split()) <= 20
    assert reader(40).is_cut(given)
    assert reader(40).is_cut(item(response=long, second=long))
    assert not reader(40).is_cut(item(response=long))


def test_what_the_judge_did_not_learn_from_is_not_read():
    given = item(contexts=["Context."], reference="Right.")
    blind = reader(query=False, contexts=False, reference=False)
    assert blind.reading(given).parts == [[("", "It is amber.")]]


def test_a_pair_is_read_in_either_order():
    given = item("one", "two")
    assert reader().reading(given).parts == [[("Code?", "one | two")]]
    assert reader().reading(given, swapped=True).parts == [[("Code?", "two | one")]]


def test_scores_are_the_mean_over_parts_of_the_largest_over_windows():
    long = reader().reading(item(response=" ".join(LONG[:6]), contexts=LONG))
    short = reader().reading(item())
    assert len(long.parts) == 3
    asked = []

    def score(pairs):
        asked.append(len(pairs))
        return np.arange(len(pairs))

    ends = np.cumsum([len(part) for part in long.parts])
    assert scores_of([long, short], score).tolist() == [np.mean(ends - 1), ends[-1]]
    assert asked == [ends[-1] + 1]
