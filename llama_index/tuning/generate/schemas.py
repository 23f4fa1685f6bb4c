"""What a structured reply looks like, for LLMs that call functions."""

from __future__ import annotations

from pydantic import BaseModel, Field


class QuestionList(BaseModel):
    """The questions that were asked for."""

    questions: list[str] = Field(description="the questions, each without a number")


class AnsweredQuestion(BaseModel):
    """A question and its answer."""

    question: str
    answer: str = Field(description="the answer, from the context alone")


class AnsweredQuestionList(BaseModel):
    """The questions that were asked for, with their answers."""

    questions: list[AnsweredQuestion]


def question_list() -> type[BaseModel]:
    """The model of a list of questions."""
    return QuestionList


def answered_question_list() -> type[BaseModel]:
    """The model of a list of questions with answers."""
    return AnsweredQuestionList
