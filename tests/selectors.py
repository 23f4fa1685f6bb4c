"""Selectors without an LLM."""

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection


class ScriptedSelector(BaseSelector):
    """Selects the number that `number(choices, query)` gives, from 0."""

    reason = ""

    def number(self, choices, query):
        raise NotImplementedError

    def _select(self, choices, query):
        chosen = SingleSelection(index=self.number(choices, query), reason=self.reason)
        return SelectorResult(selections=[chosen])

    async def _aselect(self, choices, query):
        return self._select(choices, query)

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass
