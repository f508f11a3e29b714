"""The cookbook's questions have the answers that it prints, on both databases."""

from __future__ import annotations

import pytest

from fleetexp.store.views.all_views import VIEWS
from tests.fleetexp.store.cookbook import PAGE, RECIPE, WIDTH, answer, recipes

RECIPES = recipes()


def test_there_are_twenty_questions_and_each_is_answered() -> None:
    assert len(RECIPES) >= 20
    assert [int(title.split(".")[0]) for title in RECIPES] == list(range(1, len(RECIPES) + 1))
    assert len(RECIPES) == PAGE.read_text().count("```sql") == len(RECIPE.findall(PAGE.read_text()))
    for title, (_, output) in RECIPES.items():
        assert title.endswith("?") or "order of time" in title
        assert len(output.splitlines()) >= 3, title  # heads, rule, a row
        assert max(map(len, output.splitlines())) <= WIDTH, title


@pytest.mark.parametrize("title", RECIPES)
def test_a_question_of_the_cookbook_has_the_answer_printed_there(example_url: str, title: str) -> None:
    sql, output = RECIPES[title]
    assert answer(example_url, sql) == output, "if that is right: python -m tests.fleetexp.store.cookbook"


def test_every_view_is_used_by_a_question() -> None:
    asked = " ".join(sql for sql, _ in RECIPES.values())
    assert [view.name for view in VIEWS if view.name not in asked] == []
