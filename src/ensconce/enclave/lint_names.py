"""What a file probably is, by its name: all that a manifest tells of it."""

from __future__ import annotations

import posixpath
import re

__all__ = ["kind_of", "looks_secret"]

_EVERYTHING = frozenset({"/", ".", "..", "/dev", "/home", "/root", "/var", "/mnt", "/srv"})
_CODE_FOLDERS = frozenset(
    {"bin", "sbin", "lib", "lib32", "lib64", "libexec", "usr", "opt", "jvm", "site-packages", "dist-packages"}
    | {"node_modules", "scripts", "src"}
)
_CODE = re.compile(
    r"\.(so(\.[\d.]+)?|py[cdo]?|pth|egg|whl|jar|class|m?js|node|wasm|sh|bash|pl|pm|rb|lua|r|php|exe)$", re.I
)
_HEADER = re.compile(r"\.(a|h|hpp|la|o|so\.[\w.]+)$|^lib.*\.so")
_TEMPORARY = frozenset({"/tmp", "/var/tmp", "/dev/shm", "/run"})  # noqa: S108 (nothing is written there)
_NAMES = frozenset(
    f"/etc/{name}"
    for name in ("ethers", "gai.conf", "host.conf", "hosts", "hostname", "networks", "nsswitch.conf", "protocols")
) | {"/etc/resolv.conf", "/etc/services"}
_ACCOUNTS = frozenset({"/etc/group", "/etc/gshadow", "/etc/passwd", "/etc/shadow"})
# Who is believed by what talks to peers over RA-TLS.
_POLICY = re.compile(r"^(dynamic_config|ra_config|policy)\.(json|ya?ml|toml)$")
_TRUST = re.compile(r"\.(crt|cer|der|pem|ca-bundle)$|^(ca|ca-certificates|cacert|trust)", re.I)
_SECRET = re.compile(
    r"(\.(key|p12|pfx|jks|keystore|kdbx|asc)|^ssl\.cfg|[-_.]key\.pem|^key\.pem|privkey\d*\.pem)$"
    r"|^id_(rsa|dsa|ecdsa|ed25519)$|^(wrap|private)[-_]?key"
    r"|(^|[-_.])(secrets?|passw(or)?ds?|credentials?)(\.\w{1,5})?$",
    re.I,
)
_CONFIG = re.compile(r"\.(cfg|conf|config|cnf|ini|json|ya?ml|toml|xml|properties|env|rc|pbtxt|prototxt)$", re.I)


def looks_secret(path: str) -> bool:
    """The name is one that private keys and passwords have."""
    name = posixpath.basename(path)
    return bool(_SECRET.search(name)) and path not in _ACCOUNTS and not (_CODE.search(name) or _HEADER.search(name))


def kind_of(path: str, *, is_folder: bool) -> str:
    """What an allowed file is, as the rules ``allowed_files.*`` tell them apart; the most dangerous it may be."""
    name = posixpath.basename(path)
    if path in _EVERYTHING:
        return "everything"
    if path in _NAMES:
        return "names"
    if path in _ACCOUNTS:
        return "accounts"
    if path in _TEMPORARY or path.startswith(tuple(f"{folder}/" for folder in _TEMPORARY)):
        return "temporary"
    if looks_secret(path):
        return "secret"
    if _CODE.search(name):
        return "code"
    if _POLICY.search(name):
        return "policy"
    if _TRUST.search(name):
        return "trust"
    if _CONFIG.search(name) or path == "/etc" or path.startswith("/etc/"):
        return "config"
    parts = path.strip("/").split("/")
    if parts[-1] in _CODE_FOLDERS or (is_folder and _CODE_FOLDERS & set(parts[:-1])):
        return "code"
    return "folder" if is_folder else "data"
