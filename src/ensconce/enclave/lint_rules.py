"""What the lint knows: one rule for each way in which a manifest leaves something to the host.

Which invariant a rule defends is in ``docs/security-model.md``; ``docs/reference/enclave.md`` lists every code. A code
never changes its meaning and is never used for another rule.
"""

from __future__ import annotations

from ensconce.enclave.lint_rule import Rule
from ensconce.enclave.lint_rules_evidence import EVIDENCE
from ensconce.enclave.lint_rules_files import FILES
from ensconce.enclave.lint_rules_start import START

__all__ = ["RULES"]

RULES: dict[str, Rule] = {**START, **FILES, **EVIDENCE}
"""Every rule by its code."""
