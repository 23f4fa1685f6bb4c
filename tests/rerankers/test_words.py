import numpy as np
import pytest

from llama_index.tuning.text.statistics import CodesMemory, code
from llama_index.tuning.text.words import Analyzer, languages


def test_english_words_share_their_stem():
    analyzer = Analyzer("english")
    assert analyzer.words("Refunded REFUNDS, refunding!") == ["refund"] * 3


def test_german_words_meet_across_cases_and_spellings():
    analyzer = Analyzer("german")
    assert analyzer.words("Die Häuser in der STRASSE") == analyzer.words("die Haus in der Straße")
    assert analyzer.query("Wie hoch sind die Gebühren?") == analyzer.words("hoch Gebühr")


def test_arabic_ignores_vowel_signs_and_the_article():
    analyzer = Analyzer("arabic")
    assert analyzer.words("المُدَرِّسُونَ") == analyzer.words("مدرس")


def test_chinese_gives_overlapping_pairs():
    assert Analyzer("none").words("机器学习 Python入门") == [
        "机器",
        "器学",
        "学习",
        "python",
        "入门",
    ]


def test_a_single_character_is_a_word():
    assert Analyzer("none").words("猫") == ["猫"]


def test_indic_vowel_signs_do_not_cut_words():
    assert Analyzer("none").words("हिन्दी की किताब") == ["हिन्दी", "की", "किताब"]


@pytest.mark.parametrize(
    ("seen", "meant"),
    [("Ge\u00adbüh\u00adren", "Gebühren"), ("ශ්\u200dරී", "ශ්රී"), ("fe\ufeffe", "fee")],
)
def test_invisible_hyphens_and_joiners_do_not_cut_words(seen, meant):
    analyzer = Analyzer("none")
    assert analyzer.words(seen) == analyzer.words(meant)
    assert len(analyzer.words(seen)) == 1


def test_width_and_case_do_not_matter():
    assert Analyzer("none").words("ＡＢＣ　ｶﾅ") == Analyzer("none").words("abc カナ")


def test_numbers_keep_points_and_commas():
    assert Analyzer().words("rose 1,250.50 in 2021, 3") == ["rose", "1,250.50", "in", "2021", "3"]


def test_a_query_of_stop_words_keeps_them():
    assert Analyzer("english").query("to be or not to be") == ["to", "be", "or", "not", "to", "be"]


def test_stop_words_can_be_given():
    assert Analyzer("english", stop_words=["Fees"]).query("the fee") == ["the"]
    with pytest.raises(TypeError, match="stop_words must be a list of words, got 'the'"):
        Analyzer("english", stop_words="the")


def test_an_unknown_language_lists_the_known():
    with pytest.raises(ValueError, match="unknown language 'klingon'; choose one of: none, arabic"):
        Analyzer("klingon")
    assert "german" in languages()


@pytest.mark.parametrize("text", ["Fees, fees 3.5% – naïve", "机器学习 is fun", "", "…", "x" * 100])
def test_codes_are_those_of_the_words(text):
    analyzer = Analyzer("english")
    for _ in range(2):  # the second time from memory
        expected = [code(word) for word in analyzer.words(text)]
        assert analyzer.codes([text])[0].tolist() == expected
    assert analyzer.codes([text])[0].dtype == np.uint32


def test_codes_are_those_of_the_words_in_any_mixture_of_scripts():
    pieces = [
        *("fee", "Fees", "a3.5b", "1,250.50", "1..2", "12.", ".5", "3,٤", "x_y", "it’s", "—", "½"),
        *("机器学习", "Straße", "مُدرس", "हिन्दी", "ﬁnd", "İ", "ısı", "ＡＢ", "a\u00adb"),
        *("\ud800", "x" * 70, "\x00"),
    ]
    gaps = [" ", "", ".", ",", "-", "\n", "_", "  ", "$"]
    rng = np.random.default_rng(0)
    texts = [
        "".join(
            part
            for _ in range(rng.integers(0, 9))
            for part in (pieces[rng.integers(len(pieces))], gaps[rng.integers(len(gaps))])
        )
        for _ in range(400)
    ]
    for analyzer in (Analyzer("english"),) * 2 + (Analyzer("turkish"),):
        for text, found in zip(texts, analyzer.codes(texts), strict=True):
            assert found.tolist() == [code(word) for word in analyzer.words(text)], repr(text)


def test_long_texts_are_cut_into_parts_and_none_is_lost():
    analyzer = Analyzer("none")
    texts = [f"word{i} " * 4_000 for i in range(10)] + ["", "end"]
    found = analyzer.codes(texts)
    assert [len(codes) for codes in found] == [4_000] * 10 + [0, 1]
    assert [codes[0] for codes in found[:10]] == [code(f"word{i}") for i in range(10)]
    assert len(analyzer.codes(["many words " * 50_000])[0]) == 100_000
    assert analyzer.codes([]) == []


def test_a_memory_that_is_full_forgets_and_still_answers():
    calls = []

    def codes(texts):
        calls.append(list(texts))
        return [np.array([len(text)]) for text in texts]

    memory = CodesMemory(codes, 2)
    assert [int(c[0]) for c in memory(["a", "bb", "a"])] == [1, 2, 1]
    assert [int(c[0]) for c in memory(["bb", "ccc"])] == [2, 3]
    assert calls == [["a", "bb"], ["ccc"]]


def test_the_two_letters_i_of_turkish_meet_their_capitals():
    turkish = Analyzer("turkish")
    for small, capital in (("istanbul", "İstanbul"), ("ırak", "Irak"), ("yıl", "YIL")):
        assert turkish.words(small) == turkish.words(capital)
        assert np.array_equal(*turkish.codes([small, capital]))
    assert Analyzer("none").words("İstanbul") == ["istanbul"]


@pytest.mark.parametrize("language", ["klingon", "", None, 5])
def test_what_is_no_language_is_named(language):
    with pytest.raises(ValueError, match=f"unknown language {language!r}; choose one of: none, ar"):
        Analyzer(language)
