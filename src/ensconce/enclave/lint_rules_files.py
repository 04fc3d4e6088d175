"""The lint's rules about files: who may read them, who may write them, and where keys lie."""

from __future__ import annotations

from ensconce.enclave.lint_rule import Rule

__all__ = ["FILES"]

FILES: dict[str, Rule] = {
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
    "key.seal_mask": Rule(
        "refuse",
        "a debug enclave gets the same sealing keys: the host starts this one for debugging, under a signature of its "
        "own, and reads them",
        "remove sgx.seal_key.flags_mask, or leave bit 1 (DEBUG) in it",
        "I4",
    ),
    "mount.gramines": Rule(
        "refuse",
        "random numbers, evidence or facts about the system come from the host instead of from Gramine",
        "remove the mount",
        "I1",
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
    "allowed_files.trusted": Rule(
        "refuse",
        "Gramine looks into sgx.allowed_files first, and hashes nothing that is there: the host changes this file",
        "take it, and the folders that it lies in, out of sgx.allowed_files",
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
}
