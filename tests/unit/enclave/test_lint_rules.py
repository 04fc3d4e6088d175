"""Every rule is documented as it is, and every check knows its rule."""

from __future__ import annotations

import re
from pathlib import Path

from ensconce.enclave.lint_rules import RULES

ROOT = Path(__file__).parents[3]


def test_the_reference_lists_every_rule_as_it_is() -> None:
    text = (ROOT / "docs/reference/enclave.md").read_text()
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines() if " | " in line]
    listed = {row[0].strip("`"): row[1:] for row in rows if len(row) == 5 and row[0].startswith("`")}
    assert listed == {
        code: (rule.severity, rule.invariant or "-", rule.attack, rule.remedy) for code, rule in RULES.items()
    }


def test_every_code_that_a_check_names_is_a_rule_and_every_rule_is_looked_for() -> None:
    source = "".join(
        path.read_text()
        for path in (ROOT / "src/ensconce/enclave").glob("lint_*.py")
        if not path.name.startswith("lint_rules")
    )
    named = set(re.findall(r"\"([a-z_]+\.[a-z_]+)\"", source)) & set(RULES)
    files = {code for code in RULES if code.startswith("allowed_files.")}
    assert set(RULES) - named - files == set()
    assert set(re.findall(r"Hit\(\s*\"([^\"]+)\"", source)) <= set(RULES)


def test_texts_are_short_and_in_one_style() -> None:
    for code, rule in RULES.items():
        for text in (rule.attack, rule.remedy):
            assert text, code
            assert not text.endswith("."), code
            assert "|" not in text, code
            assert len(text) < 200, code
        assert re.fullmatch(r"I[1-9]|", rule.invariant), code
        assert rule.severity != "refuse" or rule.invariant or code == "insecure.aslr", code
