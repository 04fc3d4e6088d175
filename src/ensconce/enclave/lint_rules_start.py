"""The lint's rules about the start: what the host says, what Gramine is told to give up, which program runs."""

from __future__ import annotations

from ensconce.enclave.lint_rule import Rule

__all__ = ["START"]

START: dict[str, Rule] = {
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
        "the host writes the arguments: from release 1.8 on Gramine reads this file without a check, a trusted one too",
        "write the arguments into loader.argv",
        "I3",
    ),
    "argv.script": Rule(
        "refuse",
        "the program is an interpreter, and the host writes what it runs",
        "make the script a trusted file, and nothing above it an allowed one",
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
        "the host writes the variables: from release 1.8 on Gramine reads this file without a check, a trusted one too",
        "write the variables into loader.env",
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
}
