"""The rows of the tables in .github/RECIPES.md, to be evaluated."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).parents[1] / ".github" / "RECIPES.md"


class Row(NamedTuple):
    recipe: str
    arguments: str
    difference: str

    def call(self, function, **names):
        """Calls a function with the row's arguments; `names` are its variables."""
        for definition in re.findall(r"`(\w+ = [^`]*)`", self.recipe):
            exec(definition, {}, names)
        return eval(f"function({self.arguments})", {"function": function, **names})


def recipe_rows():
    """Returns the rows of all tables, by what stands before the colon."""
    if not PAGE.exists():
        pytest.skip("not a checkout")
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and "`" in line:
            name = cells[0].partition(":")[0]
            (arguments,) = re.fullmatch(r"`([^`]*)`", cells[-2]).groups()
            assert name not in rows
            rows[name] = Row(cells[0], arguments, cells[-1])
    return rows
