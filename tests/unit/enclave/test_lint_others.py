"""Manifests of other people: each rule on the smallest text that it is for."""

from __future__ import annotations

import pytest

from ensconce.enclave.lint import Finding, lint_text
from ensconce.enclave.lint_rules import RULES
from ensconce.errors import InputError

CLEAN = """
libos.entrypoint = "/app/program"
loader.argv = ["program", "--serve"]
sgx.remote_attestation = "dcap"
sgx.isvprodid = 1
sgx.isvsvn = 1
sgx.debug = false
sgx.trusted_files = ["file:app/program"]
fs.mounts = [{ path = "/app", uri = "file:app" }]
"""


def found(text: str) -> dict[str, Finding]:
    return {each.check.removeprefix("lint."): each for each in lint_text(text.encode())}


def codes(text: str) -> set[str]:
    return set(found(text))


def test_a_sound_manifest_has_nothing_to_say() -> None:
    assert codes(CLEAN) == set()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("loader.insecure__use_cmdline_argv = true", "argv.host"),
        ("loader.insecure__use_host_env = 1", "env.host"),
        ("loader.env.PYTHONPATH = { passthrough = true }", "env.passthrough"),
        ('loader.env.DB_PASSWORD = "correct horse"', "env.secret"),
        ('loader.env.ANY = "-----BEGIN EC PRIVATE KEY-----"', "env.secret"),
        ('loader.env.AWS_SECRET_ACCESS_KEY = "wJalrXUtnFEMI"', "env.secret"),
        ('loader.env.SECRET_PROVISION_SECRET_STRING = "already known"', "env.secret"),
        ('loader.env.PF_KEY = "00112233445566778899aabbccddeeff"', "env.key"),
        ('loader.env.RA_TLS_ALLOW_OUTDATED_TCB_INSECURE = "1"', "ratls.tolerant"),
        ('loader.env.RA_TLS_ALLOW_DEBUG_ENCLAVE_INSECURE = "true"', "ratls.tolerant"),
        ('loader.env.RA_TLS_MRSIGNER = "any"', "ratls.anyone"),
        ("loader.uid = 0", "uid.root"),
        ("loader.gid = {{ gid }}", "uid.computed"),
        ("loader.insecure__disable_aslr = true", "insecure.aslr"),
        ("sys.insecure__allow_eventfd = true", "insecure.eventfd"),
        ("sgx.insecure__rpc_thread_num = 8", "insecure.rpc_threads"),
        ("sgx.rpc_thread_num = 8", "insecure.rpc_threads"),
        ("sgx.insecure__allow_memfaults_without_exinfo = true", "insecure.memfaults"),
        ("sgx.insecure__other = true", "insecure.unknown"),
        ("sgx.enable_stats = true", "debug.profile"),
        ('sgx.profile.enable = "main"', "debug.profile"),
        ('loader.log_level = "all"', "log.level"),
        ('loader.log_level = "warning"', "log.warnings"),
        ('loader.log_level = "{{ log_level }}"', "template.computed"),
        ('fs.insecure__keys.default = "00112233445566778899aabbccddeeff"', "key.in_manifest"),
        ('sgx.insecure__protected_files_key = "00112233445566778899aabbccddeeff"', "key.in_manifest"),
        ('sgx.file_check_policy = "allow_all_but_log"', "files.policy"),
        ("sgx.allow_file_creation = 1", "allowed_files.creation"),
        ("sys.enable_extra_runtime_domain_names_conf = true", "names.host"),
        ("sys.allowed_ioctls = [{ request_code = 1 }]", "ioctl.allowed"),
        ('sys.debug__mock_syscalls = [{ name = "fsync" }]', "syscalls.mocked"),
        ("sys.experimental__enable_flock = true", "experimental.on"),
        ("libos.check_invalid_pointers = false", "pointers.unchecked"),
        ("sgx.thread_num = 4", "key.legacy"),
        ("sgx.remote_attestaton = 1", "key.unknown"),
        ('app.owner = "me"', "key.unknown"),
        ('sgx.max_threads = "4"', "key.value"),
        ('loader.env.LD_PRELOAD = "libsecret_prov_attest.so"', "provision.ca"),
        ("{% include 'other' %}", "template.import"),
    ],
)
def test_an_option_is_found_on_its_line(line: str, code: str) -> None:
    finding = found(CLEAN + line + "\n")[code]
    assert finding.line in (len(CLEAN.splitlines()) + 1, None)
    assert (finding.line is None) == (code == "provision.ca")
    assert finding.severity == RULES[code].severity


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('sgx.remote_attestation = "dcap"', "", "attestation.none"),
        ('sgx.remote_attestation = "dcap"', "sgx.remote_attestation = false", "attestation.none"),
        ('sgx.remote_attestation = "dcap"', "sgx.remote_attestation = true", "key.value"),
        ('sgx.remote_attestation = "dcap"', 'sgx.remote_attestation = "epid"', "attestation.epid"),
        ('sgx.remote_attestation = "dcap"', 'sgx.remote_attestation = "{{ ra }}"', "template.computed"),
        ("sgx.isvprodid = 1", "", "identity.product"),
        ("sgx.isvsvn = 1", "", "identity.version"),
        ("sgx.debug = false", "sgx.debug = true", "debug.on"),
        ("sgx.debug = false", "sgx.debug = 1", "debug.on"),
        ('loader.argv = ["program", "--serve"]', "", "argv.missing"),
        ('loader.argv = ["program", "--serve"]', 'loader.argv_src_file = "file:args"', "argv.file"),
        ('libos.entrypoint = "/app/program"', "", "entrypoint.missing"),
        ('"file:app/program"]', '"file:app/other"]', "entrypoint.host"),
        ('"file:app/program"]', '"file:app/"]', "trusted_files.folder"),
        ('"file:app/program"]', '"file:app/program", "file:ssl/server.key"]', "trusted_files.secret"),
        ('uri = "file:app" }', 'uri = "file:app" }, { path = "/ssl.cfg", uri = "file:ssl.cfg" }', "mount.secret"),
        (
            'uri = "file:app" }',
            'uri = "file:app" }, { type = "untrusted_shm", path = "/dev/shm", uri = "dev:/dev/shm" }',
            "mount.shared_memory",
        ),
        (
            'uri = "file:app" }',
            'uri = "file:app" }, { type = "encrypted", path = "/d", uri = "file:d", key_name = "_sgx_mrsigner" }',
            "key.mrsigner",
        ),
        (
            'uri = "file:app" }',
            'uri = "file:app" }, { type = "encrypted", path = "/d", uri = "file:d" },'
            ' { type = "encrypted", path = "/e", uri = "file:e" }',
            "key.shared",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_or_otherwise_is_found(old: str, new: str, code: str) -> None:
    assert old in CLEAN
    assert code in codes(CLEAN.replace(old, new))


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("file:/", "everything"),
        ("file:./", "everything"),
        ("file:/usr/lib/python3.8/", "code"),
        ("file:lib/plugin.so.2", "code"),
        ("file:/etc/ssl/openssl.cnf", "config"),
        ("file:models.config", "config"),
        ("file:dynamic_config.json", "policy"),
        ("file:ssl/ca.crt", "trust"),
        ("file:ssl.cfg", "secret"),
        ("file:server.key", "secret"),
        ("file:secret.json", "secret"),
        ("file:db_password", "secret"),
        ("file:secret_prov_client", "data"),
        ("file:/tmp", "temporary"),
        ("file:/tmp/work/", "temporary"),
        ("file:data/", "folder"),
        ("file:image.bmp", "data"),
        ("file:/etc/hosts", "names"),
        ("file:/etc/passwd", "accounts"),
        ("dev:/dev/gpu", "device"),
    ],
)
def test_an_allowed_file_is_judged_by_what_it_probably_is(uri: str, kind: str) -> None:
    assert f"allowed_files.{kind}" in codes(CLEAN + f'sgx.allowed_files = ["{uri}"]\n')


def test_a_search_path_into_an_allowed_folder_is_code_of_the_hosts() -> None:
    text = CLEAN + 'loader.env.LD_LIBRARY_PATH = "/lib:./plugins"\nsgx.allowed_files = ["file:plugins/"]\n'
    assert found(text)["env.search_path"].line == len(CLEAN.splitlines()) + 1
    assert "env.search_path" not in codes(CLEAN + 'loader.env.LD_LIBRARY_PATH = "/lib:./plugins"\n')


def test_an_allowed_folder_that_is_mounted_is_a_mount_that_may_be_written() -> None:
    text = CLEAN.replace("}]", '}, { path = "/data", uri = "file:db" }]') + 'sgx.allowed_files = ["file:db/"]\n'
    assert found(text)["mount.writable"].key == "fs.mounts[1]"


def test_a_program_that_is_allowed_is_the_hosts_to_choose_even_where_names_are_computed() -> None:
    text = CLEAN.replace('"/app/program"', '"{{ app }}/program"') + 'sgx.allowed_files = ["file:{{ app }}/"]\n'
    assert found(text)["entrypoint.host"].severity == "refuse"
    assert found(text.replace("sgx.allowed_files", "#"))["entrypoint.host"].severity == "note"


def test_secrets_are_named_and_never_shown() -> None:
    text = CLEAN + 'loader.env.API_KEY = "hunter2hunter2"\nfs.insecure__keys.k = "deadbeefdeadbeef"\n'
    said = " ".join(str(each.to_json_object()) for each in found(text).values())
    assert "API_KEY" in said
    assert "hunter2" not in said
    assert "deadbeef" not in said


def test_names_that_only_look_secret_are_passed_over() -> None:
    lines = (
        'loader.env.TOKEN_FILE = "/run/token"',
        'loader.env.SECRET_PROVISION_SET_KEY = "default"',
        'loader.env.SECRET_NAME = "whatever it is"',
        'loader.env.PASSWORD_CHECK_TOKEN = "/etc/x"',
    )
    assert "env.secret" not in codes(CLEAN + "\n".join(lines) + "\n")


def test_provisioning_by_a_trusted_authority_is_sound_and_by_an_allowed_one_is_the_hosts() -> None:
    text = CLEAN + (
        'loader.env.SECRET_PROVISION_CONSTRUCTOR = "1"\nloader.env.SECRET_PROVISION_SET_KEY = "default"\n'
        'loader.env.SECRET_PROVISION_SERVERS = "owner.example.test:4433"\n'
        'loader.env.SECRET_PROVISION_CA_CHAIN_PATH = "/app/ca.pem"\n'
    )
    trusted = text.replace('"file:app/program"]', '"file:app/program", "file:app/ca.pem"]')
    assert codes(trusted) == set()
    assert codes(text) == {"provision.ca"}
    old = trusted.replace("SECRET_PROVISION_SET_KEY", "SECRET_PROVISION_SET_PF_KEY")
    assert codes(old) == {"provision.fails_open"}
    assert codes(trusted.replace("SECRET_PROVISION_SERVERS", "OTHER")) == {"provision.server"}


def test_every_branch_of_a_template_is_looked_at() -> None:
    text = CLEAN.replace(
        "sgx.debug = false",
        "{% if env.get('DEBUG') %}\nsgx.debug = true\n{% elif fast %}\nsgx.debug = false\n"
        "sgx.insecure__rpc_thread_num = 2\n{% else %}\nsgx.debug = false\n{% endif %}",
    )
    both = found(text)
    assert set(both) == {"debug.on", "insecure.rpc_threads"}
    assert both["debug.on"].line == 8
    assert both["insecure.rpc_threads"].line == 11


def test_a_switch_that_a_template_computes_is_a_warning_if_it_may_be_on() -> None:
    text = CLEAN.replace("sgx.debug = false", "sgx.debug = {{ 'true' if env.get('DEBUG') == '1' else 'false' }}")
    assert found(text)["debug.on"].severity == "warn"
    assert found(CLEAN.replace("sgx.debug = false", "sgx.debug = {{ debug }}"))["debug.on"].severity == "warn"


def test_graphene_before_toml_is_read_and_its_default_of_debug_is_known() -> None:
    text = """
loader.preload = file:../libsysdb.so
loader.exec = file:server
loader.argv0_override = server   # a comment
loader.env.LD_LIBRARY_PATH = /lib
fs.mount.lib.type = chroot
fs.mount.lib.path = /lib
fs.mount.lib.uri = file:../lib
sgx.trusted_files.server = file:server
sgx.allowed_files.tmp = file:/tmp
sgx.thread_num = 4
loader.env.PWD =
$(TRUSTED_LIBS)
"""
    findings = found(text)
    assert findings["template.import"].line == 13
    assert {"debug.default", "attestation.none", "allowed_files.temporary", "key.legacy"} <= set(findings)
    assert findings["allowed_files.temporary"].line == 10
    assert "entrypoint.host" not in findings


def test_the_worst_comes_first() -> None:
    findings = lint_text(
        (CLEAN + "sgx.thread_num = 4\nsgx.isvsvns = 2\nloader.insecure__use_host_env = true\n").encode()
    )
    assert [each.severity for each in findings] == ["refuse", "warn", "note"]


@pytest.mark.parametrize(
    ("data", "check"),
    [
        (b"\xff", "manifest.text"),
        (b"a = [", "manifest.toml"),
        (b"{% if x %}a = [{% endif %}", "manifest.toml"),
        (b"x" * (8 << 20) + b"y", "manifest.size"),
        (b"{{ a }}" + b" " * (1 << 18), "manifest.size"),
    ],
)
def test_what_is_no_manifest_is_said_to_be_none(data: bytes, check: str) -> None:
    with pytest.raises(InputError) as caught:
        lint_text(data)
    assert caught.value.check == check


def test_depth_is_bounded() -> None:
    with pytest.raises(InputError) as caught:
        lint_text(("a = " + "[" * 60 + "]" * 60).encode())
    assert caught.value.check == "manifest.depth"


TFSERVING = """
libos.entrypoint = "/usr/bin/tensorflow_model_server"
loader.argv = ["tensorflow_model_server", "--port=8500", "--ssl_config_file=/ssl/ssl.cfg",
  "--model_base_path=/models/d", "--enable_profiler=false"]
sgx.remote_attestation = "dcap"
sgx.isvprodid = 1
sgx.isvsvn = 1
sgx.debug = false
sgx.trusted_files = ["file:usr/bin/tensorflow_model_server"]
fs.mounts = [
  { path = "/models/d", uri = "file:models/d", type = "encrypted" },
  { path = "/ssl", uri = "file:ssl", type = "encrypted", key_name = "tls" },
]
"""


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"--ssl_config_file=/ssl/ssl.cfg",', "", "tfserving.no_tls"),
        ("--port=8500", "--rest_api_port=8501", "tfserving.rest"),
        ('"--enable_profiler=false"', "", "tfserving.profiler"),
        ('/models/d", uri', '/models/e", uri', "tfserving.files"),
        (', type = "encrypted", key_name = "tls" }', "}", "tfserving.files"),
    ],
)
def test_tensorflow_servings_own_options_are_judged(old: str, new: str, code: str) -> None:
    assert codes(TFSERVING) == {"tfserving.reload"}
    assert old in TFSERVING
    assert code in codes(TFSERVING.replace(old, new))


def test_a_model_that_is_only_trusted_is_a_warning_and_a_tls_key_that_is_only_trusted_is_refused() -> None:
    text = TFSERVING.replace(', type = "encrypted"', "").replace('"file:usr', '"file:models/", "file:ssl/", "file:usr')
    findings = found(text)
    assert findings["tfserving.model_plain"].severity == "warn"
    assert findings["trusted_files.secret"].severity == "refuse"
