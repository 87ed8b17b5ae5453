"""Fields that give a label away under another name; found in the items, since a template cannot show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from growlm.data.signals.items import Item
from growlm.data.signals.templates import Template
from growlm.errors import RecipeError

_FEWEST = 16
"""Items from which on it is no accident that a field goes with the label."""
_PER_VALUE = 4
"""Items per value of a field that is a category, not a text."""


def check_fields(template: Template, items: Sequence[Item]) -> None:
    """Raise RecipeError for a field that is a copy of the label, or always the right choice."""
    if len(items) < _FEWEST or len({item.answer for item in items}) < 2:
        return
    for field, paths in template.paths.items():
        answers: defaultdict[str, set[str]] = defaultdict(set)
        for item in items:
            answers[item.values[field]].add(item.answer)
        is_category = len(answers) * _PER_VALUE <= len(items)
        is_answer = all(found == {value} for value, found in answers.items())
        if is_answer or (is_category and all(len(found) == 1 for found in answers.values())):
            raise RecipeError(
                "A template leaks its label",
                where=f"task {template.name}: {{{field}}}, which is `{' or '.join(paths)}`",
                why=f"in all {len(items)} items this field alone tells what is to be judged",
                fix=f"take {{{field}}} out of the text and the statements",
            )
