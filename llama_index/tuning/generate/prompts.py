"""The prompts, and the styles of generated queries."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

# The old package's own words: a template made for it keeps working.
DEFAULT_QA_GENERATE_PROMPT_TMPL = """\
Context information is below.

---------------------
{context_str}
---------------------

Given the context information and no prior knowledge.
generate only questions based on the below query.

You are a Teacher/ Professor. Your task is to setup \
{num_questions_per_chunk} questions for an upcoming \
quiz/examination. The questions should be diverse in nature \
across the document. Restrict the questions to the \
context information provided."
"""

WITH_ANSWERS = """
Answer each question from the context alone. Reply with a JSON list and nothing else:
[{"question": "…", "answer": "…"}, …]
"""

QUESTION_STYLES: dict[str, str] = {
    "question": "Write each as one full, natural sentence, in the words of a user who has not "
    "read the text.",
    "keywords": "Write each as a search query of two to six keywords, without a question mark.",
    "short": "Write each as a short, colloquial question of at most seven words.",
    "typos": "Write each as a question typed in a hurry: lower case, one or two typos, no care "
    "for punctuation.",
    "situation": "Write each as a user who first tells the situation in a sentence and then asks.",
}
"""Built-in styles: name → instruction. Any other persona is given as a mapping of this kind."""

STYLE = "\nHow the questions are to be written: {instruction}\n"

VERIFY_PROMPT = '''Can the question be answered fully from the passage alone?

Passage: """{context}"""

Question: {question}

Reply with one word: "Yes" or "No".'''

PARAPHRASE_PROMPT = """Rewrite the search query in {count} different ways that other users might \
type, with other words and the same meaning. Keep names, numbers and the language.
{style}
Query: {query}

Reply with the {count} rewritten queries, one per line, and nothing else."""

MULTI_HOP_PROMPT = """Below are {passages} passages of one collection.

{context}

Write {count} question{plural} that can only be answered by combining what all {passages} \
passages say: each passage alone must not be enough. Do not mention passages or texts.
{style}
Reply with the question{plural}, one per line, and nothing else."""

UNANSWERABLE_PROMPT = '''A user searches a collection that holds this passage:

"""{context}"""

Write {count} question{plural} on the same subject that sound as if the passage answered them, \
but that it does not answer: they ask for a detail, date, amount, case or condition that it lacks.
{style}
Reply with the question{plural}, one per line, and nothing else.'''

OUT_OF_SCOPE_PROMPT = '''A search assistant serves a collection with texts such as this one:

"""{context}"""

Write {count} message{plural} that a user might send to it by mistake and that have nothing to do \
with the collection: small talk, other subjects, requests that no search can serve.
{style}
Reply with the message{plural}, one per line, and nothing else.'''

NEGATIVE_PROMPT = '''Does the passage answer the query, even in part?

Query: {query}

Passage: """{context}"""

Reply with one word: "Yes" or "No".'''

DEFAULT_QUERY_DOC_RELEVANCE_PROMPT = '''You decide whether a retrieved document is relevant to \
a query: whether someone who asks the query would want to read it. Reply with one word, "Yes" or \
"No".

Query: How long does a refund take?
Document: """Money that you are owed is back on your card five working days after our decision."""
Relevant: Yes

Query: How long does a refund take?
Document: """A card can be returned at any branch. Returning it is free of charge."""
Relevant: No

Query: {query}
Document: """{document}"""
Relevant:'''

DEFAULT_QUERY_GEN_SYSTEM_PROMPT = """You are an expert in {qa_topic} and write questions that \
users might ask."""

DEFAULT_QUERY_GEN_USER_PROMPT = """Read the document below and write {num_questions_per_chunk} \
questions that it answers. Reply with the questions, one per line, and nothing else.

Document: {context}"""

GRADED_PROMPT = '''How well does the passage answer the query?

3: it answers the query fully.
2: it answers a large part of it.
1: it is on the subject but does not answer the query.
0: it has nothing to do with the query.

Query: {query}

Passage: """{document}"""

Reply with the number alone.'''


def check_template(name: str, template: str, *fields: str, optional: Sequence[str] = ()) -> None:
    """The template is a string that names the fields it needs, and no other."""
    if not isinstance(template, str):
        raise TypeError(f"{name} must be a string, got {type(template).__name__}")
    try:
        found = {part[1].split(".")[0] for part in string.Formatter().parse(template) if part[1]}
    except ValueError as exc:
        raise ValueError(f"{name} is not a format string: {exc}") from None
    missing = sorted(set(fields) - found)
    unknown = sorted(found - {*fields, *optional})
    if missing:
        raise ValueError(f"{name} must hold {', '.join(f'{{{field}}}' for field in missing)}")
    if unknown:
        raise ValueError(
            f"{name} has unknown fields {', '.join(unknown)}; braces that are no field are doubled"
        )


def styles_of(question_styles: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Name → instruction, from names of built-in styles or a mapping of one's own."""
    if question_styles is None:
        return {}
    if isinstance(question_styles, Mapping):
        return dict(question_styles)
    names = [question_styles] if isinstance(question_styles, str) else list(question_styles)
    for name in names:
        if name not in QUESTION_STYLES:
            raise ValueError(
                f"unknown question style {name!r}; choose from: {', '.join(QUESTION_STYLES)}; "
                "or pass a mapping of name → instruction"
            )
    return {name: QUESTION_STYLES[name] for name in names}
