"""``ensconce policy``: who may receive keys, and whom a client may talk to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensconce.cli.output import print_json, remark, say
from ensconce.cli.owner import Owner, protect
from ensconce.errors import InputError, RefusedError

if TYPE_CHECKING:
    from ensconce.appraisal.policy import Policy
    from ensconce.appraisal.policy_authority import AdmittedPolicy

__all__ = ["app"]

app = typer.Typer(help="Policies: which evidence is accepted, and what it may receive.", no_args_is_help=True)
app.callback()(protect)

_HERE = Path()
_File = Annotated[Path, typer.Argument(metavar="FILE", help="The policy.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")]


@app.command("write")
def write(
    owner: Owner = _HERE,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the policy that is there.")] = False,
    root: Annotated[
        str | None, typer.Option(help="Whose platforms: simulated:SHA256 or intel; this machine's when not given.")
    ] = None,
    json: _Json = False,
) -> None:
    """Write policy.yaml: this deployment's models for exactly the enclave in the bundle, on this machine's platform.

    Signs it with the owner's key and puts it into force. Where the policy in force names owners, more of them may have
    to sign; then it is written, not put into force, and the exit status is 4.

    --replace keeps the owners of the policy in force, and nothing else of it: what it changes is told on standard
    error, in the words of `ensconce policy diff`.

    Examples:

      ensconce policy write

      ensconce policy write --root "$(ensconce simulated root http://127.0.0.1:8081)"
    """
    from ensconce.appraisal.policy_file import load_policy
    from ensconce.appraisal.root import parse_root_name
    from ensconce.cluster.machine import simulated_root
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.policy import policy_store, write_policy

    folder = OwnerFolder.open(owner)
    before = policy_store(folder).follow(None, None)

    def tell(outcome: str) -> None:
        for line in _changes(before.policy, load_policy(folder.policy_file)) if before is not None else ():
            remark(line)
        remark(f"wrote {folder.policy_file}; {outcome}")

    try:
        named = simulated_root() if root is None else parse_root_name(root)
        admitted = write_policy(folder, folder.enclave_identity(), named, replace)
    except RefusedError as error:
        if error.check == "policy.signatures":
            tell("it is not in force yet")
        raise
    if json:
        _print_in_force(admitted, json)
    else:
        say(folder.policy_file.read_text().rstrip())
    tell(f"in force: serial {admitted.policy.serial}")


@app.command("check")
def check(file: _File, json: _Json = False) -> None:
    """Check a policy file, and the signatures beside it; warn of what is about to end or says little.

    Exit status: 0, with or without warnings; 2 when it is no policy.

    Examples:

      ensconce policy check policy.yaml
    """
    from ensconce.appraisal.policy_warnings import warnings_about
    from ensconce.cluster.policy import read_signed
    from ensconce.times import unix_now

    signed = read_signed(file)
    policy, warnings = signed.policy, warnings_about(signed.policy, unix_now())
    if json:
        value = {"serial": policy.serial, "sha256": policy.sha256, "signers": list(signed.signers)}
        print_json(value | {"warnings": list(warnings), "policy": policy.to_json_object()})
        return
    count = len(policy.identities)
    say(f"{file}: serial {policy.serial}, {count} {'identity' if count == 1 else 'identities'}")
    say(f"sha256 {policy.sha256}")
    say(f"signed by {', '.join(signed.signers) or 'nobody'}")
    for warning in warnings:
        remark(f"warning: {warning}")


@app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The policy before.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The policy after.")],
    json: _Json = False,
) -> None:
    """Say what one policy accepts that another does not, and the other way round.

    + accepted by NEW alone, - accepted by OLD alone, ~ neither. Exit status: 0, whatever differs.

    Examples:

      ensconce policy diff policy.yaml next.yaml
    """
    from ensconce.appraisal.policy_diff import compare
    from ensconce.appraisal.policy_file import load_policy

    before, after = load_policy(old), load_policy(new)
    if json:
        changes = compare(before, after)
        print_json([{"effect": change.effect, "field": change.field, "text": change.text} for change in changes])
        return
    for line in _changes(before, after) or ["they say the same"]:
        say(line)


@app.command("sign")
def sign(
    file: _File,
    key: Annotated[
        Path | None, typer.Option(help="An Ed25519 private key, PEM; asks for its passphrase if it has one.")
    ] = None,
    owner: Annotated[Path | None, typer.Option("--owner", help="Sign with the key of this owner's folder.")] = None,
    json: _Json = False,
) -> None:
    """Add a signature to FILE.signatures.

    Signatures are of what the policy says, not of its layout; those of an earlier version are dropped.

    Examples:

      ensconce policy sign policy.yaml --key alice.pem

      ensconce policy sign policy.yaml --owner owner
    """
    from ensconce.appraisal.policy_owners import key_name
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.policy import load_signing_key, sign_policy
    from ensconce.keys import get_private_key

    if (key is None) == (owner is None):
        raise InputError(
            "usage", "give one key to sign with", rule="--key or --owner", remedy="`ensconce policy sign -h`"
        )
    if key is not None:
        private = load_signing_key(key, lambda: _ask_passphrase(key))
    else:
        assert owner is not None
        private = get_private_key(OwnerFolder.open(owner).keystore(), "signing/owner", "ed25519")
    signed = sign_policy(file, private)
    policy, name = signed.policy, key_name(private.public_key())
    owners = policy.owners
    if json:
        missing = None if owners is None else owners.missing(signed.signers)
        value = {"serial": policy.serial, "sha256": policy.sha256, "signer": name, "signers": list(signed.signers)}
        print_json(value | {"owners": owners and owners.to_json_object(), "missing": missing})
        return
    say(f"signed by {', '.join(signed.signers)}")
    if owners is not None:
        say(f"{owners.required} of {len(owners.keys)} owners must sign; missing: {owners.missing(signed.signers)}")
        if name not in owners.keys:
            only_if = "this signature counts only if the policy in force asks for it"
            remark(f"{name} is not among the policy's owners: {only_if}")


@app.command("apply")
def apply(file: _File, owner: Owner = _HERE, json: _Json = False) -> None:
    """Put a signed policy into force: every running server takes it within seconds.

    Checks that its serial is higher and that those have signed who must, records that in the log, and only then lets
    it take effect. Exit status: 0; 4 when it may not take the place of the one in force.

    Examples:

      ensconce policy apply policy.yaml
    """
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.policy import apply_policy, read_signed

    _print_in_force(apply_policy(OwnerFolder.open(owner), read_signed(file)), json)


@app.command("show")
def show(owner: Owner = _HERE, json: _Json = False) -> None:
    """Show the policy in force; beside it, on standard error, its serial, its fingerprint and whose signatures count.

    What it prints is a policy file: the one to start the next from.

    Examples:

      ensconce policy show > next.yaml

      ensconce policy show --json
    """
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.policy import policy_store

    admitted = policy_store(OwnerFolder.open(owner)).in_force()
    if json:
        _print_in_force(admitted, json)
        return
    say(admitted.signed.text.rstrip())
    for line in _in_force(admitted):
        remark(line)


@app.command("explain")
def explain(
    evidence: Annotated[
        Path, typer.Argument(metavar="EVIDENCE", help="A quote, or an RA-TLS certificate in PEM or DER.")
    ],
    policy: Annotated[Path | None, typer.Option(help="The policy; without, the one in force.")] = None,
    collateral: Annotated[
        str | None, typer.Option(help="A bundle file, or the URL of a PCCS; without, what the deployment names.")
    ] = None,
    at: Annotated[int | None, typer.Option(help="The time to judge for, in seconds since 1970; without, now.")] = None,
    owner: Owner = _HERE,
    json: _Json = False,
) -> None:
    """Show every check that a policy makes of evidence, in order, with what was found, and the verdict at the end.

    Exit status: 0 accepted, 4 refused, 3 the evidence is not genuine.

    Examples:

      ensconce policy explain replica.pem

      ensconce policy explain quote.bin --policy policy.yaml --collateral collateral.json
    """
    from ensconce.cli.policy_explain import print_explanation
    from ensconce.cluster.explain import explain_evidence

    print_explanation(explain_evidence(evidence, policy, collateral, at, owner), json)


def _ask_passphrase(key: Path) -> str:
    from ensconce.cluster.unlocking import ask_at_terminal

    try:
        return ask_at_terminal(f"Passphrase of {key}: ")
    except InputError as error:  # it speaks of the keystore's
        raise InputError(
            "policy.key",
            f"the passphrase of {key} was not typed, or there is no terminal to type it at",
            rule="it is read from a terminal alone, and not shown",
            remedy="run it at a terminal whose encoding is UTF-8",
        ) from error


def _changes(before: Policy, after: Policy) -> list[str]:
    from ensconce.appraisal.policy_diff import compare

    signs = {"accepts": "+", "refuses": "-", "other": "~"}
    return [f"{signs[change.effect]} {change.field}: {change.text}" for change in compare(before, after)]


def _print_in_force(admitted: AdmittedPolicy, json: bool) -> None:
    policy = admitted.policy
    value: dict[str, Any] = {"serial": policy.serial, "sha256": policy.sha256, "signers": list(admitted.signers)}
    if json:
        print_json(value | {"policy": policy.to_json_object()})
        return
    for line in _in_force(admitted):
        say(line)


def _in_force(admitted: AdmittedPolicy) -> tuple[str, str]:
    policy = admitted.policy
    return f"in force: serial {policy.serial}, sha256 {policy.sha256}", f"signed by {', '.join(admitted.signers)}"
