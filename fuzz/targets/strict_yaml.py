"""The YAML that policies and deployments are written in: whatever is accepted means what it looks like.

Oracle: PyYAML without any notion of types. Structure and quoted text must be what it sees; so must every bare word,
before its meaning.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ensconce.appraisal import strict_yaml
from ensconce.errors import InputError
from fuzz.mutation import by_tree, choose
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["MUTATE", "TARGET", "WORDS", "check", "load"]

_FLOAT = re.compile(r"-?(0|[1-9]\d*)\.\d+([eE][-+]?\d+)?")


def check(data: bytes) -> bool:
    """Read YAML as we do and as PyYAML does, and compare."""
    document = attempt(lambda: strict_yaml.parse(data, "file.yaml"), InputError)
    if isinstance(document, Refused):
        return False
    # What is accepted has no tags, anchors or doubles, so the plainest of readers reads it as well.
    seen = yaml.load(data.decode(), Loader=yaml.BaseLoader)  # noqa: S506  # it makes strings and nothing else
    _compare(document.value, seen)
    holds(all(document.line(place) >= 1 for place in document.lines), "a line before the first")
    return True


def _compare(ours: Any, seen: Any) -> None:
    if isinstance(ours, dict):
        holds(isinstance(seen, dict) and list(ours) == list(seen), "other fields to another reader")
        for name in ours:
            _compare(ours[name], seen[name])
    elif isinstance(ours, list):
        holds(isinstance(seen, list) and len(ours) == len(seen), "another list to another reader")
        for one, other in zip(ours, seen, strict=True):
            _compare(one, other)
    elif isinstance(ours, bool) or ours is None:
        spelt = {True: ("true",), False: ("false",), None: ("null", "~", "", None)}
        holds(seen in spelt[ours], f"{seen!r} means {ours}")
    elif isinstance(ours, int):
        holds(seen in (str(ours), "-0"), f"{seen!r} means {ours}")
    elif isinstance(ours, float):
        holds(
            float(seen) == ours and re.fullmatch(r"-?(0|[1-9]\d*)\.\d+([eE][-+]?\d+)?", seen), f"{seen!r} means {ours}"
        )
    else:
        holds(ours == seen, "another text to another reader")


def load(data: bytes) -> Any:
    """The tree in a YAML file, for bending."""
    try:
        return json.loads(data)  # which is YAML too, and read a hundred times as fast
    except ValueError:
        return strict_yaml.parse(data, "file.yaml").value


def _write(tree: Any) -> bytes:
    """A tree as YAML, for bending."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def seeds() -> dict[str, bytes]:
    """Every style of scalar and collection that is read, and some that are not."""
    return {
        "good-scalars": b"a: no\nb: 0x10\nc: 1:30\nd: -0\ne: 1.5e3\nf: ~\ng:\nh: |\n  text\ni: >-\n  folded\n  text\n",
        "good-flow": b"{\"a\": [1, 2.0, true, null, \"\\u00e9\"], b: 'it''s', c: {}}\n",
        "good-list": b"- a\n- - b\n  - c: d\n    e: f\n- []\n# a comment\n",
        "good-deep": b"[" * 16 + b"]" * 16,
        "good-nothing": b"",
        "too-deep": b"[" * 18 + b"]" * 18,
        "refused": b"a: &x 1\nb: *x\nc: !!str 1\n? k\n: v\n",
        "twice": b"a: 1\na: 2\n",
        "two-documents": b"a: 1\n---\nb: 2\n",
    }


WORDS = (
    b"\n",
    b"\n  - ",
    b": ",
    b"&a ",
    b"*a",
    b"!!str ",
    b"<<: ",
    b"|\n",
    b">-\n",
    b"? ",
    b"---\n",
    b"...\n",
    b"# ",
    b"%YAML 1.1\n",
)
_FLOW = by_tree(load, lambda tree: json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass"))
MUTATE = choose((by_tree(load, _write), _FLOW, _FLOW, _FLOW))


TARGET = Target("strict-yaml", check, seeds, MUTATE, max_size=4096, words=WORDS)
