"""What the lint knows: one rule for each way in which a manifest leaves something to the host.

Which invariant a rule defends is in ``docs/security-model.md``; ``docs/reference/enclave.md`` lists every code. A code
never changes its meaning and is never used for another rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RULES", "Rule", "Severity"]

Severity = Literal["refuse", "warn", "note"]
"""``refuse``: not to be signed. ``warn``: right only for reasons that the manifest does not show. ``note``: to know."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is looked for, and why.

    Attributes:
        severity: how bad it is.
        attack: what somebody can do because of it, in one or two sentences.
        remedy: what to do about it.
        invariant: the one that it breaks, ``I1`` to ``I9``; empty for what only makes an attack easier.
    """

    severity: Severity
    attack: str
    remedy: str
    invariant: str = ""


RULES: dict[str, Rule] = {
    # What the host says when it starts the enclave.
    "argv.host": Rule(
        "refuse",
        "the host drops or adds arguments (the option that turns TLS on, the path of the model) under the same "
        "measurement, and still gets the key",
        "write every argument into loader.argv",
        "I3",
    ),
    "argv.file": Rule(
        "refuse",
        "the arguments are in a file that is not a trusted one: the host writes it",
        "list that file in sgx.trusted_files, or write the arguments into loader.argv",
        "I3",
    ),
    "argv.missing": Rule(
        "note",
        "the program gets its own name and no argument, so what it does is what its defaults and files say",
        "if that is meant, write it down: loader.argv with the program's name alone",
    ),
    "env.host": Rule(
        "refuse",
        "the host sets LD_PRELOAD, PYTHONPATH or an option of the program, under the same measurement",
        "remove loader.insecure__use_host_env and set what is needed in loader.env",
        "I3",
    ),
    "env.passthrough": Rule(
        "refuse",
        "the host chooses this variable under the same measurement",
        "give the variable a value in loader.env",
        "I3",
    ),
    "env.file": Rule(
        "refuse",
        "the environment is in a file that is not a trusted one: the host writes it",
        "list that file in sgx.trusted_files, or write the variables into loader.env",
        "I3",
    ),
    "env.search_path": Rule(
        "refuse",
        "code is looked for in a place that the host may write to: it puts a library of its own there",
        "take the folder out of the search path, or out of sgx.allowed_files",
        "I3",
    ),
    "env.secret": Rule(
        "refuse",
        "the manifest is no secret: it lies beside the enclave, in every image and in every backup",
        "give the secret to the attested enclave only, with secret provisioning",
        "I1",
    ),
    "env.key": Rule(
        "refuse",
        "whoever has the manifest has the key of the encrypted files, and can write files of his own under it",
        "give the key to the attested enclave only: SECRET_PROVISION_SET_KEY",
        "I1",
    ),
    "uid.computed": Rule(
        "note",
        "who builds the enclave becomes part of its measurement, so nobody else can rebuild it and compare",
        "write a number",
    ),
    "uid.root": Rule(
        "note",
        "the program believes that it is root: its own checks of owners and modes pass whatever they see",
        "give loader.uid and loader.gid a number above 0, if the program checks",
    ),
    # Options with which Gramine itself gives protection up.
    "insecure.rpc_threads": Rule(
        "refuse",
        "enclave threads read memory that the host changes under them (INTEL-SA-00657, INTEL-SA-00615)",
        "remove the option",
        "I1",
    ),
    "insecure.memfaults": Rule(
        "refuse",
        "the host injects memory faults that the program takes for its own, and steers it by its signal handlers",
        "remove the option; set sgx.use_exinfo on CPUs that have it",
        "I3",
    ),
    "insecure.aslr": Rule(
        "refuse",
        "the host knows every address, so that one overflow is enough to run code",
        "remove the option",
    ),
    "insecure.eventfd": Rule(
        "refuse",
        "the host makes and swallows the events by which threads wake each other: it decides what runs when",
        "remove the option; Gramine's own eventfd works within one process",
        "I3",
    ),
    "insecure.unknown": Rule(
        "refuse",
        "the option gives something up that Gramine protects, or it would have another name",
        "remove the option",
        "I3",
    ),
    "debug.on": Rule(
        "refuse",
        "the host reads keys, model and requests out of the enclave with a debugger, and writes into it",
        "set sgx.debug = false",
        "I1",
    ),
    "debug.default": Rule(
        "warn",
        "Graphene makes a debug enclave where nothing is said, whose memory the host can read",
        "write sgx.debug = false",
        "I1",
    ),
    "debug.profile": Rule(
        "warn",
        "profiling lets the host count and see what the enclave does; Gramine refuses it in a production enclave",
        "remove the option",
        "I1",
    ),
    "log.level": Rule(
        "refuse",
        "system calls and their arguments appear in a log that the host reads: paths, sizes, addresses, times",
        'set loader.log_level = "error"',
        "I1",
    ),
    "log.warnings": Rule(
        "warn",
        "warnings name files and calls in a log that the host reads; Gramine's documentation wants none in production",
        'set loader.log_level = "error"',
        "I1",
    ),
    # Keys and secrets in the manifest's files.
    "key.in_manifest": Rule(
        "refuse",
        "whoever has the manifest opens the encrypted files and writes others in their place",
        "remove it; provision the key to the attested enclave (SECRET_PROVISION_SET_KEY)",
        "I1",
    ),
    "key.mrsigner": Rule(
        "note",
        "every enclave of this signer opens these files, also one that was signed for a test",
        'use a provisioned key, or key_name = "_sgx_mrenclave"',
        "I7",
    ),
    "key.shared": Rule(
        "note",
        "one key for several mounts: who gets one file's key has all, and none can be retired alone",
        "give each mount a key_name of its own where the program can ask for several keys",
        "I7",
    ),
    "mount.secret": Rule(
        "refuse",
        "a private key, or a file that holds one, is read from the host's disk in the clear: the host is the service",
        'mount it with type = "encrypted", or make the key inside the enclave',
        "I8",
    ),
    "mount.writable": Rule(
        "refuse",
        "what the program writes there is plaintext on the host's disk, and what it reads there is the host's",
        'mount it with type = "encrypted", or as tmpfs',
        "I1",
    ),
    "mount.shared_memory": Rule(
        "refuse",
        "the host reads and changes all of it while the program works on it",
        "remove the mount",
        "I1",
    ),
    "trusted_files.secret": Rule(
        "refuse",
        "a trusted file cannot be changed, but the host reads it: this one is named like a private key",
        'mount it with type = "encrypted", or make the key inside the enclave',
        "I8",
    ),
    "trusted_files.folder": Rule(
        "note",
        "every file that lay there on the day of signing is trusted: more code than runs, a longer start, and a "
        "measurement that nobody gets a second time",
        "list the files that are opened",
    ),
    "trusted_files.contents": Rule(
        "refuse",
        "it runs beside the model, and reports usage over the network",
        "build the image with `ensconce enclave build`, which leaves it out",
        "I1",
    ),
    # Files that the host may change at any time.
    "allowed_files.everything": Rule(
        "refuse",
        "the host replaces any file that is not trusted, and whatever the program writes is plaintext on its disk",
        "list trusted files one by one, and mount what is written as encrypted or tmpfs",
        "I3",
    ),
    "allowed_files.code": Rule(
        "refuse",
        "the host puts its own program or library there, and it runs inside under this measurement",
        "make it a trusted file",
        "I3",
    ),
    "allowed_files.config": Rule(
        "refuse",
        "the host rewrites the configuration and the measurement stays the same",
        "make it a trusted file",
        "I3",
    ),
    "allowed_files.policy": Rule(
        "refuse",
        "the host writes which peers are believed: it adds an enclave of its own, or removes the check",
        "make it a trusted file",
        "I2",
    ),
    "allowed_files.trust": Rule(
        "refuse",
        "the host puts its own certificate authority there and becomes whatever server the program talks to",
        "make it a trusted file",
        "I2",
    ),
    "allowed_files.secret": Rule(
        "refuse",
        "the host reads the private key or secret in it, or puts one there that it knows",
        'mount it with type = "encrypted", or make the key inside the enclave',
        "I8",
    ),
    "allowed_files.temporary": Rule(
        "refuse",
        "temporary files are plaintext on the host's disk, and the host changes them before they are read again",
        "mount the folder as tmpfs",
        "I1",
    ),
    "allowed_files.folder": Rule(
        "refuse",
        "the host adds, replaces and reads whatever the program keeps in this folder",
        'mount it with type = "encrypted", or list trusted files',
        "I1",
    ),
    "allowed_files.data": Rule(
        "warn",
        "the host reads and replaces this file at any time; only who wrote the program knows whether that is harmless",
        'make it a trusted file, or mount it with type = "encrypted"',
        "I1",
    ),
    "allowed_files.names": Rule(
        "warn",
        "the host decides where names lead; every connection has to prove its other end by itself",
        "make it a trusted file with fixed contents",
        "I3",
    ),
    "allowed_files.accounts": Rule(
        "warn",
        "the host decides which user has which number and home: programs read configuration from homes",
        "make it a trusted file with fixed contents",
        "I3",
    ),
    "allowed_files.device": Rule(
        "warn",
        "whatever goes to the device or comes from it passes the host, who reads and changes it",
        "remove it, or encrypt and authenticate what passes",
        "I1",
    ),
    "allowed_files.creation": Rule(
        "refuse",
        "the program creates files outside of every list: plaintext on the host's disk",
        "remove the option; mount what is written as encrypted or tmpfs",
        "I1",
    ),
    "files.policy": Rule(
        "refuse",
        "the host puts files of its own wherever the program looks for one, and only a line in a log tells",
        "remove sgx.file_check_policy; strict is the default",
        "I3",
    ),
    # The program.
    "entrypoint.host": Rule(
        "refuse",
        "nothing measured says which program starts: the host chooses it",
        "list the program in sgx.trusted_files",
        "I3",
    ),
    "entrypoint.missing": Rule(
        "warn",
        "the manifest does not say which program starts; where the command line does, the host chooses it",
        "set libos.entrypoint",
        "I3",
    ),
    "names.host": Rule(
        "warn",
        "the host chooses name servers and host name; every connection has to prove its other end by itself",
        "remove sys.enable_extra_runtime_domain_names_conf, and trust static /etc/hosts and /etc/resolv.conf",
        "I3",
    ),
    "ioctl.allowed": Rule(
        "warn",
        "arguments of these calls leave the enclave in the clear, and what comes back is the host's",
        "remove sys.allowed_ioctls",
        "I1",
    ),
    "syscalls.mocked": Rule(
        "warn",
        "these calls return what is written here and do nothing: a check or a lock that needs them is void",
        "remove sys.debug__mock_syscalls",
    ),
    "experimental.on": Rule(
        "note",
        "Gramine says of this option that it may have vulnerabilities",
        "remove the option unless the program fails without it",
    ),
    "pointers.unchecked": Rule(
        "note",
        "a bad pointer in a system call crashes the program instead of failing the call",
        "remove libos.check_invalid_pointers",
    ),
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
