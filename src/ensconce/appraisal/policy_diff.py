"""What changes from one policy to another: what is accepted that was not, and what is not any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ensconce.appraisal.policy import Identity, Policy, StatusUntil
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.policy_tdx import HOST_CHOSEN
from ensconce.appraisal.verdict import TcbStatus

__all__ = ["Change", "compare"]

Effect = Literal["accepts", "refuses", "other"]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        effect: the new policy ``accepts`` what the old did not, or gives more; it ``refuses`` what the old accepted, or
            gives less; or it is another kind of difference.
        field: of the policy; of an identity with its name.
        text: what it is, for people.
    """

    effect: Effect
    field: str
    text: str


def compare(old: Policy, new: Policy) -> tuple[Change, ...]:
    """The differences in meaning between two policies, none when they have the same fingerprint but for the serial."""
    return (*_head(old, new), *_platform(old, new), *_identities(old, new), *_moves(old, new))


def _head(old: Policy, new: Policy) -> Iterator[Change]:
    if old.serial != new.serial:
        yield Change("other", "serial", f"{old.serial} to {new.serial}")
    if old.service != new.service:
        yield Change("other", "service", f"{old.service or 'any'} to {new.service or 'any'}")
    before = old.owners.to_json_object() if old.owners else None
    after = new.owners.to_json_object() if new.owners else None
    if before != after:
        yield Change("other", "owners", f"{_owners(before)} to {_owners(after)}")


def _owners(owners: dict[str, Any] | None) -> str:
    return f"{owners['required']} of {', '.join(owners['keys'])}" if owners else "the deployment's owner"


def _platform(old: Policy, new: Policy) -> Iterator[Change]:
    yield from _sets("roots", old.roots, new.roots)
    before, after = _ends(old), _ends(new)
    for status in TcbStatus:
        yield from _status(status, before.get(status, ""), after.get(status, ""))
    yield from _advisories(old, new)
    numbers = old.min_tcb_evaluation_data_number, new.min_tcb_evaluation_data_number
    yield from _limit("min_tcb_evaluation_data_number", *numbers)
    yield from _allowed("platforms", _machines(old), _machines(new), every="every machine")


def _machines(policy: Policy) -> list[str] | None:
    return None if policy.platforms is None else [ppid.hex() for ppid in policy.platforms]


def _ends(policy: Policy) -> dict[TcbStatus, str]:
    """The last day of each status that is accepted; one without an end sorts behind every day."""
    return {
        each if isinstance(each, TcbStatus) else each.status: each.until.isoformat()
        if isinstance(each, StatusUntil)
        else "without end"
        for each in policy.tcb_statuses
    }


def _status(status: TcbStatus, before: str, after: str) -> Iterator[Change]:
    if before == after:
        return
    effect: Effect = "accepts" if after > before else "refuses"
    if not before or not after:
        end = before or after
        yield Change(effect, "tcb_statuses", f"{status}{'' if end == 'without end' else f' until {end}'}")
    else:
        yield Change(effect, "tcb_statuses", f"{status} until {after}, before until {before}")


def _advisories(old: Policy, new: Policy) -> Iterator[Change]:
    before, after = old.advisories, new.advisories
    yield from _allowed(
        "advisories.accept",
        None if before is None else before.accept,
        None if after is None else after.accept,
        every="every advisory that is not refused",
    )
    # Refusing is the other way round: what is taken from the list is accepted.
    refused = [() if each is None else each.refuse for each in (after, before)]
    yield from _sets("advisories.refuse", *refused)


def _identities(old: Policy, new: Policy) -> Iterator[Change]:
    before = {identity.name: identity for identity in old.identities}
    after = {identity.name: identity for identity in new.identities}
    renamed = _renamed(before, after)
    for name, identity in before.items():
        if name in renamed:
            yield Change("other", f"identity {name!r}", f"is now called {renamed[name]!r}")
        elif name not in after:
            yield Change("refuses", f"identity {name!r}", _described(identity))
        else:
            yield from _identity(identity, after[name])
    for name, identity in after.items():
        if name not in before and name not in renamed.values():
            yield Change("accepts", f"identity {name!r}", _described(identity))
    order = [renamed.get(name, name) for name in before if name in after or name in renamed]
    if order != [name for name in after if name in order]:
        yield Change("other", "identities", f"the first that fits counts, and their order is now: {', '.join(after)}")


def _renamed(before: dict[str, Identity], after: dict[str, Identity]) -> dict[str, str]:
    gone = {name: identity for name, identity in before.items() if name not in after}
    come = {replace(identity, name="x"): name for name, identity in after.items() if name not in before}
    return {name: come[same] for name, identity in gone.items() if (same := replace(identity, name="x")) in come}


def _described(identity: Identity) -> str:
    value = identity.to_json_object()
    tdx = value.get("tdx", {})
    code = {name: member for name, member in (value | tdx).items() if name.startswith(("mr_", "isv_", "min_", "rtmr"))}
    parts = [f"{name} {member}" for name, member in code.items()]
    for group in (identity.attributes, identity.tdx):
        masks = {field.name: getattr(group, field.name) for field in fields(group)} if group is not None else {}
        parts += [f"{name} {_shown(mask)}" for name, mask in masks.items() if isinstance(mask, Mask)]
    if identity.debug:
        parts.append("also as a debug enclave")
    wire_v1 = f", {_wire_v1(identity)}" if identity.wire_v1 is not None else ""
    return f"{', '.join(parts)}; receives {', '.join(identity.receives) or 'nothing'}{wire_v1}"


def _identity(old: Identity, new: Identity) -> Iterator[Change]:
    if old.tee != new.tee:
        yield Change("refuses", f"identity {old.name!r}", _described(old))
        yield Change("accepts", f"identity {old.name!r}", _described(new))
        return
    who = f"identity {old.name!r}, "
    for name in ("mr_enclave", "mr_signer", "isv_prod_id"):
        yield from _value(who + name, getattr(old, name), getattr(new, name))
    yield from _limit(f"{who}min_isv_svn", old.min_isv_svn, new.min_isv_svn)
    for group in ("attributes", "tdx"):
        before, after = getattr(old, group), getattr(new, group)
        for name in getattr(before or after, "__dataclass_fields__", {}):
            # What the host chooses is zero where a policy does not give it, and not anything.
            absent = bytes(48) if name in HOST_CHOSEN else None
            values = [getattr(each, name, None) or absent for each in (before, after)]
            yield from _value(f"{who}{group}.{name}", *values)
    if old.debug != new.debug:
        yield Change("accepts" if new.debug else "refuses", f"{who}debug", "debug enclaves")
    yield from _sets(f"{who}receives", old.receives, new.receives)
    if old.wire_v1 != new.wire_v1:
        texts = [_wire_v1(each).removeprefix("wire_v1 ") for each in (old, new)]
        effect: Effect = "accepts" if old.wire_v1 is None else "refuses" if new.wire_v1 is None else "other"
        yield Change(effect, f"{who}wire_v1", f"{texts[0]} to {texts[1]}")


def _wire_v1(identity: Identity) -> str:
    opted = identity.wire_v1
    return "wire_v1 off" if opted is None else f"wire_v1 {opted.secret} as {opted.form}"


def _moves(old: Policy, new: Policy) -> Iterator[Change]:
    """What is accepted as one identity by the old policy and may be accepted as another by the new one."""
    changes: dict[Change, None] = {}
    for debug in (False, True):
        before, after = ([each for each in p.identities if each.debug or not debug] for p in (old, new))
        heirs = _heirs(before, after)
        same = {one: other for one, other in heirs.items() if _conditions(one) == _conditions(other)}
        inherited = set(same.values())
        for one, other in _pairs(before, after, same):
            # Of an identity that is new or wider, gone or narrower, the other lines tell.
            gained = _beyond(other, one) if other in inherited else ""
            lost = _beyond(one, other) if one in same else ""
            if (gained or lost) and heirs.get(one) != other and _may_both_fit(one, other):
                field, text = f"identity {other.name!r}", f"may have been {one.name!r} before, which"
                if gained:
                    changes[Change("accepts", field, f"{text} did not receive {gained}")] = None
                if lost:
                    changes[Change("refuses", field, f"{text} received {lost}")] = None
    yield from changes


def _heirs(before: list[Identity], after: list[Identity]) -> dict[Identity, Identity]:
    """For identities of the old policy those of the new one that they became."""
    was, now = ({identity.name: identity for identity in each} for each in (before, after))
    names = {name: name for name in was if name in now} | _renamed(was, now)
    return {was[name]: now[heir] for name, heir in names.items()}


def _pairs(
    before: list[Identity], after: list[Identity], same: dict[Identity, Identity]
) -> Iterator[tuple[Identity, Identity]]:
    """Two identities of which what fits both may have gone by the first, and may go by the second now."""
    is_at = {identity: at for at, identity in enumerate(after)}
    was_at = {same[identity]: at for at, identity in enumerate(before) if identity in same}
    for at, one in enumerate(before):
        # The first that fits counts: what fits both goes by the heir of the first where that comes first, ...
        for other in after[: is_at[same[one]] if one in same else len(after)]:
            # ... and went by the second already where that came first.
            if was_at.get(other, at) >= at:
                yield one, other


def _beyond(one: Identity, other: Identity) -> str:
    """What one receives and the other does not."""
    return ", ".join(each for each in _given(one) if each not in _given(other))


def _given(identity: Identity) -> tuple[str, ...]:
    return (*sorted(identity.receives), *([] if identity.wire_v1 is None else [_wire_v1(identity)]))


def _conditions(identity: Identity) -> Identity:
    return replace(identity, name="x", debug=False, receives=(), wire_v1=None)


def _may_both_fit(one: Identity, other: Identity) -> bool:
    """Whether some report may fit both: unless they want different values of the same field."""
    if one.tee != other.tee:
        return False
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("mr_enclave", "mr_signer", "isv_prod_id")]
    for a, b in ((one.attributes, other.attributes), (one.tdx, other.tdx)):
        if a is not None and b is not None:
            for field in fields(a):
                absent = bytes(48) if field.name in HOST_CHOSEN else None
                pairs.append((getattr(a, field.name) or absent, getattr(b, field.name) or absent))
    return all(a is None or b is None or _meet(a, b) for a, b in pairs)


def _meet(a: Any, b: Any) -> bool:
    if isinstance(a, Mask) and isinstance(b, Mask):
        return not (a.value ^ b.value) & a.mask & b.mask
    return bool(a == b)


def _value(field: str, old: Any, new: Any) -> Iterator[Change]:
    """A field that must be equal; without it, any value is accepted."""
    if old == new:
        return
    if new is not None:
        yield Change(
            "refuses" if old is None else "accepts", field, f"only {_shown(new)}" if old is None else _shown(new)
        )
    if old is not None:
        yield Change("accepts" if new is None else "refuses", field, "any" if new is None else _shown(old))


def _limit(field: str, old: int | None, new: int | None) -> Iterator[Change]:
    """A lowest value; without it, any is accepted."""
    if old != new:
        effect: Effect = "accepts" if new is None or (old is not None and new < old) else "refuses"
        yield Change(effect, field, f"{'any' if old is None else old} to {'any' if new is None else new}")


def _allowed(field: str, old: Iterable[str] | None, new: Iterable[str] | None, every: str) -> Iterator[Change]:
    """A list of what is accepted; without it, everything is."""
    if old is None and new is not None:
        yield Change("refuses", field, f"{every}, but {', '.join(new) or 'none'}")
    elif old is not None and new is None:
        yield Change("accepts", field, every)
    elif old is not None and new is not None:
        yield from _sets(field, old, new)


def _sets(field: str, old: Iterable[str], new: Iterable[str]) -> Iterator[Change]:
    before, after = list(old), list(new)
    for each in after:
        if each not in before:
            yield Change("accepts", field, each)
    for each in before:
        if each not in after:
            yield Change("refuses", field, each)


def _shown(value: Any) -> str:
    if isinstance(value, Mask):
        return f"{value.value:#x} under {value.mask:#x}"
    return value.hex() if isinstance(value, bytes) else str(value)
