import numpy as np
import pytest

from llama_index.tuning.rerankers.words import Analyzer, code, languages


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
        assert analyzer.codes(text).tolist() == expected
    assert analyzer.codes(text).dtype == np.uint32
