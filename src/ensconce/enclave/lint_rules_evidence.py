"""The lint's rules about evidence and identity, about TensorFlow Serving, and about the manifest's own form."""

from __future__ import annotations

from ensconce.enclave.lint_rule import Rule

__all__ = ["EVIDENCE"]

EVIDENCE: dict[str, Rule] = {
    # Evidence and identity.
    "attestation.none": Rule(
        "refuse",
        "without evidence nobody can tell this enclave from a program of the host's, so no key may be given to it",
        'set sgx.remote_attestation = "dcap"',
        "I2",
    ),
    "attestation.epid": Rule(
        "warn",
        "this asks for EPID, whose service Intel has ended: no verifier is left that could say no",
        'set sgx.remote_attestation = "dcap"',
        "I2",
    ),
    "ratls.tolerant": Rule(
        "refuse",
        "peers with a debug enclave, an outdated platform or a known weakness are believed, whoever asks",
        "remove the variable; say per platform what is accepted in the policy of `ensconce provision serve`",
        "I4",
    ),
    "ratls.anyone": Rule(
        "refuse",
        "any enclave on any genuine CPU is believed, the host's own among them",
        "give RA_TLS_MRENCLAVE, or RA_TLS_MRSIGNER with RA_TLS_ISV_PROD_ID and RA_TLS_ISV_SVN, a value",
        "I2",
    ),
    "provision.ca": Rule(
        "refuse",
        "nothing measured says whose key server is believed: the host runs one and gives the enclave a key and a "
        "model of its own",
        "set SECRET_PROVISION_CA_CHAIN_PATH to a trusted file with the owner's authority",
        "I2",
    ),
    "provision.server": Rule(
        "note",
        "without SECRET_PROVISION_SERVERS the library asks localhost:4433, which is the host",
        "name the owner's server in SECRET_PROVISION_SERVERS",
    ),
    "provision.fails_open": Rule(
        "warn",
        "only releases before 1.3 read this variable, and their library lets the program run without the key",
        "use Gramine 1.3 or newer with SECRET_PROVISION_SET_KEY",
        "I5",
    ),
    "identity.product": Rule(
        "warn",
        "a policy by MRSIGNER cannot tell this enclave from any other of the same signer",
        "give each product its own number in sgx.isvprodid",
        "I2",
    ),
    "identity.version": Rule(
        "note",
        "a policy by MRSIGNER cannot refuse older builds: all have version 0",
        "count up sgx.isvsvn when an older build must not get keys any more",
        "I2",
    ),
    # TensorFlow Serving's own options.
    "tfserving.no_tls": Rule(
        "refuse",
        "requests and predictions pass the host in the clear: gRPC runs without TLS",
        "add --ssl_config_file, a file on an encrypted mount, to loader.argv",
        "I1",
    ),
    "tfserving.rest": Rule(
        "refuse",
        "TensorFlow Serving has no TLS on its REST port: requests and predictions pass the host in the clear",
        "remove --rest_api_port",
        "I1",
    ),
    "tfserving.files": Rule(
        "refuse",
        "this file or folder decides what is served or who is believed, and is neither encrypted nor trusted",
        'mount it with type = "encrypted", or make it a trusted file',
        "I3",
    ),
    "tfserving.model_plain": Rule(
        "warn",
        "the model is on a trusted file: the host cannot change it, and reads it",
        'mount its folder with type = "encrypted"',
        "I1",
    ),
    "tfserving.profiler": Rule(
        "warn",
        "anybody who can connect starts TensorFlow's profiler and gets timings and names of operations",
        "add --enable_profiler=false to loader.argv",
        "I1",
    ),
    "tfserving.reload": Rule(
        "note",
        "anybody who can connect may call HandleReloadConfigRequest: unload the model, or load another that opens",
        "demand client certificates in ssl.cfg (client_verify), and give them to those who may",
    ),
    # The manifest itself.
    "template.computed": Rule(
        "note",
        "what this option will be is decided when the template is rendered",
        "lint what gramine-manifest makes of it, before you sign",
    ),
    "template.residue": Rule(
        "refuse",
        "Gramine takes this text as it stands, so what looks like a template's was not looked at",
        "remove {{ and $( from the signed form, but for arguments",
        "I9",
    ),
    "template.import": Rule(
        "warn",
        "the template draws in another one, which was not looked at",
        "lint what gramine-manifest makes of it",
        "I9",
    ),
    "key.unknown": Rule(
        "warn",
        "Gramine 1.9 knows no such option: it refuses the manifest, and releases before 1.7 pass over it, so that "
        "what it was meant to protect is not protected",
        "correct the name, or remove it",
        "I9",
    ),
    "key.legacy": Rule(
        "note",
        "Gramine 1.9 does not read this any more; what it said then is not in force",
        "write it as 1.9 wants it",
    ),
    "key.value": Rule(
        "warn",
        "the value has a type that Gramine 1.9 refuses and that other releases may read otherwise",
        "write it as 1.9 wants it",
        "I9",
    ),
}
