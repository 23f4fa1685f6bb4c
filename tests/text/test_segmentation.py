import time

import pytest

from llama_index.tuning.generate import generate_sentence_queries
from llama_index.tuning.text.segmentation import clauses, count_words, sentences

PARAGRAPHS = {
    "hi": ("भारत एक देश है। इसकी राजधानी दिल्ली है। यहाँ बहुत लोग रहते हैं। क्या यह सच है? हाँ, यह सच है।", 5),
    "ur": ("پاکستان ایک ملک ہے۔ اس کا دارالحکومت اسلام آباد ہے۔ کیا یہ سچ ہے؟", 3),
    "ar": ("ما هي عاصمة مصر؟ القاهرة هي عاصمة مصر. هل هذا صحيح؟", 3),
    "zh": ("北京是中国的首都。上海是最大的城市。你知道吗？知道！", 4),
    "ja": ("東京は日本の首都です。大阪は大きい都市です。本当ですか？", 3),
    "ko": ("서울은 수도입니다. 부산은 큰 도시입니다. 정말입니까?", 3),
    "my": ("မြန်မာနိုင်ငံသည် အရှေ့တောင်အာရှတွင် ရှိသည်။ ရန်ကုန်သည် အကြီးဆုံးမြို့ဖြစ်သည်။", 2),
    "am": ("ኢትዮጵያ ሀገር ናት። ዋና ከተማዋ አዲስ አበባ ነው። እውነት ነው፧", 3),
    "hy": ("Հայաստանը երկիր է։ Երևանը մայրաքաղաքն է։", 2),
    "km": ("ប្រទេសកម្ពុជា ជាប្រទេសមួយ។ រាជធានីគឺភ្នំពេញ។", 2),
    "bo": ("བོད་ནི་ས་ཆ་ཞིག་ཡིན། ལྷ་ས་ནི་རྒྱལ་ས་ཡིན།", 2),
    "bn": ("বাংলাদেশ একটি দেশ। ঢাকা এর রাজধানী।", 2),
    "el": ("Η Ελλάδα είναι χώρα. Πού είναι η Αθήνα; Στην Αττική.", 3),
    "ru": ("Россия большая. Где Москва? Там!", 3),
    "en": ("Dr. Smith went to Washington. He paid 5.3 million, e.g. in cash. Why?", 3),
}


@pytest.mark.parametrize("code", PARAGRAPHS)
def test_sentences_are_found_in_every_script(code):
    text, number = PARAGRAPHS[code]
    language = "el" if code == "el" else "en"
    assert len(sentences(text, language=language)) == number
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_thai_is_cut_at_spaces_and_by_length():
    phrase = "ประเทศไทยเป็นประเทศในเอเชียตะวันออกเฉียงใต้"
    parts = sentences(f"{phrase} {phrase} {phrase} {phrase} {phrase} {phrase}")
    assert len(parts) >= 3
    assert all(5 <= count_words(part) <= 40 for part in parts)
    assert all(count_words(part) <= 40 for part in sentences(phrase * 20))


def test_a_hindi_paragraph_gives_its_sentences_as_queries():
    text = "भारत दक्षिण एशिया का एक देश है। इसकी राजधानी नई दिल्ली शहर है।"
    assert len(generate_sentence_queries({"d": text}).queries) == 2


def test_documents_that_gave_nothing_are_counted_and_said(caplog):
    found = generate_sentence_queries({"d": "Refunds take five working days.", "e": "No."})
    assert found.counts["documents_without_sentence"] == 1
    assert "1 of 2 documents gave no sentence" in caplog.text


def test_nodes_will_do():
    from llama_index.core.schema import TextNode

    node = TextNode(id_="n", text="Refunds take five working days.")
    assert generate_sentence_queries([node]).relevant_docs == {"sentence-0": ["n"]}


def test_a_document_without_a_text_costs_only_itself(caplog):
    given = {"d": "Refunds take five working days.", "image": "", "blank": " \n"}
    found = generate_sentence_queries(given)
    assert found.corpus == {"d": given["d"]}
    assert "2 of 3 documents gave no sentence" in caplog.text


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        (
            "帮我查一下明天的天气，然后预订一家便宜的酒店",
            ["帮我查一下明天的天气", "预订一家便宜的酒店"],
        ),
        ("明天北京的天气怎么样？帮我订一家酒店。", ["明天北京的天气怎么样？", "帮我订一家酒店。"]),
        (
            "明日の東京の天気を教えて、それから安いホテルを予約して",
            ["明日の東京の天気を教えて", "安いホテルを予約して"],
        ),
        (
            "ما هو الطقس غدا في روما؟ ابحث عن فندق رخيص",
            ["ما هو الطقس غدا في روما؟", "ابحث عن فندق رخيص"],
        ),
        ("रोम में मौसम कैसा है। एक सस्ता होटल खोजो।", ["रोम में मौसम कैसा है।", "एक सस्ता होटल खोजो।"]),
        ("你好，世界", []),
    ],
)
def test_clauses_of_other_scripts(query, parts):
    assert clauses(query) == parts


@pytest.mark.parametrize(
    "run", ["a", "a. ", '"( ', "ก", "ก ", "中", "中。", "।", "\n", " ", "e.g. ", "。”"]
)
def test_a_long_text_takes_time_in_proportion(run):
    start = time.process_time()
    text = run * (300_000 // len(run))
    sentences(text)
    clauses(text)
    assert time.process_time() - start < 3
