from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.enclave.config import ModelConfig, VersionsConfig
from ensconce.enclave.present import choose, folders
from ensconce.errors import InputError

NUMBERS = st.sets(st.integers(1, 12))


def model(**versions: object) -> ModelConfig:
    return ModelConfig(name="m", versions=VersionsConfig.model_validate(versions) if versions else None)


def test_only_folders_with_a_versions_plain_name_count(tmp_path: Path) -> None:
    assert folders(tmp_path / "models" / "m") == {}
    for name in ("1", "20", "2147483647", "2147483648", "007", "0", "-1", "+3", " 4", "latest", ".5.part", "9" * 30):
        (tmp_path / "models" / "m" / name).mkdir(parents=True)
    (tmp_path / "models" / "m" / "8").write_text("a file")
    assert sorted(folders(tmp_path / "models" / "m")) == [1, 20, 2**31 - 1]
    (tmp_path / "models" / "n").write_text("a file")
    assert folders(tmp_path / "models" / "n") == {}


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to("models")
    with pytest.raises(InputError) as caught:
        folders(tmp_path / "models" / "m")
    assert caught.value.check == "replica.models"


@pytest.mark.parametrize(
    ("policy", "failed", "chosen"),
    [
        (model(), (), [5, 3, 2, 1]),
        (model(), (5,), [5, 3, 2, 1]),
        (model(latest=1), (), [5]),
        (model(latest=2), (), [5, 3]),
        (model(latest=1), (5,), [5, 3]),
        (model(latest=1), (5, 3), [5, 3, 2]),
        (model(latest=1), (2,), [5]),
        (model(latest=9), (2,), [5, 3, 2, 1]),
        (model(specific=[1, 3, 4]), (3,), [3, 1]),
    ],
)
def test_what_a_policy_wants(policy: ModelConfig, failed: tuple[int, ...], chosen: list[int]) -> None:
    assert list(choose(policy, (1, 2, 3, 5), failed)) == chosen


@given(NUMBERS, NUMBERS, st.integers(1, 5))
def test_as_many_as_there_may_be_are_served_and_none_is_older_than_one_left_out(
    there: set[int], failed: set[int], latest: int
) -> None:
    chosen = list(choose(model(latest=latest), there, failed))
    good = [number for number in chosen if number not in failed]
    assert len(good) == min(latest, len(there - failed))
    assert all(number < min(chosen) for number in there - set(chosen))
