"""What a container refuses to run, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensconce.addresses import Address
from ensconce.cluster.pod.enclaves import Kind
from ensconce.cluster.pod.run import Pod, run_pod
from ensconce.errors import InputError

MANIFEST = """
libos.entrypoint = "/enclave/image/system/tensorflow_model_server"
loader.argv = ["tensorflow_model_server", {port}]
sgx.enclave_size = "2G"
sgx.max_threads = 64
sgx.isvprodid = 1
sgx.isvsvn = 1
"""


def bundle(folder: Path, port: str = '"--port=8500"') -> Path:
    (folder / "models").mkdir()
    (folder / "enclave").mkdir()
    (folder / "enclave" / "server.manifest.sgx").write_text(MANIFEST.format(port=port))
    for name in ("server.sig", "ssl.cfg", "ca.pem"):
        (folder / "enclave" / name).touch()
    return folder


def run(bundle: Path, kind: Kind = "gramine") -> None:
    run_pod(Pod(bundle, bundle / "run", kind, None, Address("127.0.0.1", 0)))


@pytest.mark.parametrize("missing", ["enclave/server.manifest.sgx", "enclave/server.sig", "models"])
def test_nothing_to_run(tmp_path: Path, missing: str) -> None:
    path = bundle(tmp_path) / missing
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"lacks {missing}.*replica\.bundle"):
        run(tmp_path)


def test_tensorflow_serving_is_for_gramine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"replica\.platform.*engine openvino"):
        run(bundle(tmp_path), "simulated")


def test_a_manifest_of_another_engine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"enclave\.engine"):
        run(bundle(tmp_path, port='"serve"'))


def test_without_ssl_cfg_it_is_ours(tmp_path: Path) -> None:
    (bundle(tmp_path) / "enclave" / "ssl.cfg").unlink()
    with pytest.raises(InputError, match=r"server\.json"):
        run(tmp_path)
