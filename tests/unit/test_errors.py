"""What an error is made of, and how it is made again."""

from __future__ import annotations

import pytest

from ensconce.errors import EnsconceError, IntegrityError

ERROR = IntegrityError("file.tag", "a tag is wrong", found="block 3", rule="AES-GCM", remedy="fetch it again")


@pytest.mark.parametrize("field", ["problem", "found", "rule", "remedy"])
def test_one_field_altered(field: str) -> None:
    altered = ERROR.altered(**{field: "another"})
    assert type(altered) is IntegrityError
    assert altered.fields() == ERROR.fields() | {field: "another"}


def test_nothing_altered_is_a_new_error_that_says_the_same() -> None:
    absent = EnsconceError("a.b", "it is wrong")
    for error in (ERROR, absent):
        again = error.altered()
        assert again is not error
        assert type(again) is type(error)
        assert again.fields() == error.fields()
        assert str(again) == str(error)
