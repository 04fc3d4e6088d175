"""Attestation: whether there is evidence, whom the program believes, and what a policy can tell it by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ensconce.enclave.lint_files import Files
from ensconce.enclave.lint_finding import Hit
from ensconce.enclave.lint_keys import value_is_on
from ensconce.enclave.lint_source import Reading, is_template

__all__ = ["evidence_findings", "variables"]

_LIBRARY = "libsecret_prov_attest.so"


def variables(reading: Reading) -> dict[str, str]:
    """The environment that the manifest itself gives, by name."""
    found = {}
    for name, entry in reading.table("loader.env").items():
        value = entry.get("value") if isinstance(entry, Mapping) else entry
        if isinstance(value, str):
            found[name] = value
    return found


def evidence_findings(reading: Reading, files: Files) -> Iterator[Hit]:
    """What is wrong with attestation and identity."""
    yield from _attestation(reading)
    yield from _believed(variables(reading))
    yield from _provisioning(variables(reading), files)
    for key, code in (("sgx.isvprodid", "identity.product"), ("sgx.isvsvn", "identity.version")):
        if not reading.get(key):
            yield Hit(code, key, f"{key} is 0")


def _attestation(reading: Reading) -> Iterator[Hit]:
    key = "sgx.remote_attestation"
    value = reading.get(key)
    spid = reading.get("sgx.ra_client_spid")
    if is_template(value):
        yield Hit("template.computed", key, f"{key} is computed: {value}")
    elif value == "epid" or (isinstance(spid, str) and spid.strip() and not is_template(spid)):
        yield Hit("attestation.epid", key, "EPID attestation is asked for")
    elif value is None or value == "none" or (value != "dcap" and not value_is_on(value)):
        yield Hit("attestation.none", key, f"{key} is not set" if value is None else f"{key} is {value!r}")
    elif value != "dcap":
        # Releases before 1.3: true meant DCAP, or EPID with an SPID.
        yield Hit("key.value", key, f'{key} is {value!r}; now: "dcap"')


def _believed(environment: Mapping[str, str]) -> Iterator[Hit]:
    measured = ("RA_TLS_MRENCLAVE", "RA_TLS_MRSIGNER")
    given = [name for name in measured if name in environment]
    if given and all(environment[name] == "any" for name in given):
        yield Hit("ratls.anyone", f"loader.env.{given[0]}", f"{' and '.join(given)}: any")


def _provisioning(environment: Mapping[str, str], files: Files) -> Iterator[Hit]:
    asks = value_is_on(environment.get("SECRET_PROVISION_CONSTRUCTOR", "0"))
    if not asks and _LIBRARY not in environment.get("LD_PRELOAD", ""):
        return
    key = "loader.env.SECRET_PROVISION_CA_CHAIN_PATH"
    path = environment.get("SECRET_PROVISION_CA_CHAIN_PATH")
    if path is None:
        yield Hit("provision.ca", key, "SECRET_PROVISION_CA_CHAIN_PATH is not set")
    elif not is_template(path):
        outside, kind = files.outside(path)
        trusted = kind == "encrypted" or files.trusts(f"file:{outside}")
        if not trusted:
            yield Hit("provision.ca", key, f"{path} is not a trusted file")
    if "SECRET_PROVISION_SERVERS" not in environment:
        yield Hit("provision.server", "loader.env.SECRET_PROVISION_SERVERS", "SECRET_PROVISION_SERVERS is not set")
    if "SECRET_PROVISION_SET_PF_KEY" in environment and "SECRET_PROVISION_SET_KEY" not in environment:
        name = "SECRET_PROVISION_SET_PF_KEY"
        yield Hit("provision.fails_open", f"loader.env.{name}", f"{name} is set")
