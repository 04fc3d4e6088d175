from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ensconce.serving.loading import LoadOptions
from ensconce.serving.manager import LoadedServable, State
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import Signature

INTERVAL = 60.0


VERSIONS = st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.just("want"), st.frozensets(VERSIONS, min_size=1)),
    st.tuples(st.sampled_from(["break", "mend"]), VERSIONS),
    st.tuples(st.sampled_from(["hold", "let go", "wait"]), st.none()),
)


class Servable:
    signatures: Mapping[str, Signature] = {}

    def predict(self, signature_name: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Any:
        return {}


@given(st.lists(STEPS, max_size=25))
def test_a_model_that_was_served_is_served_as_long_as_it_is_wanted(
    make_world: Any, steps: list[tuple[str, Any]]
) -> None:
    broken: set[int] = set()
    held: list[LoadedServable] = []

    def load(name: str, version: int, _path: Path) -> Any:
        if served:
            # Also in the middle of loading something else.
            world.manager.resolve("m")
        if version in broken:
            raise RequestError(Code.INTERNAL, f"{name} {version}")
        return Servable()

    served = False
    world = make_world(load, LoadOptions(max_num_load_retries=1))
    for step, value in [*steps, ("let go", None), ("wait", None), ("wait", None)]:
        if step == "want":
            world.lifecycle.want("m", {version: Path(str(version)) for version in value})
        elif step == "hold" and served:
            held.append(world.manager.resolve("m"))
        elif step == "let go":
            held.clear()
        elif step == "wait":
            world.now += INTERVAL
        elif step == "break":
            broken.add(value)
        elif step == "mend":
            broken.discard(value)
        world.lifecycle.settle()
        served = served or bool(world.manager.models())
        assert served == bool(world.manager.models())
    wanted = next((value for step, value in reversed(steps) if step == "want"), frozenset())
    available = {version for _, version in world.manager.models()}
    # All that is wanted serves or has failed; of the rest at most one serves, and only while nothing else does.
    assert all(version in available or world.states()[version] is State.END for version in wanted)
    assert available <= wanted or (not available & wanted and len(available) == 1)
    assert world.failures("m") is not None or not wanted
    world.want("m")
    assert world.manager.models() == ()
    assert set(world.states().values()) <= {State.END} if wanted else True
