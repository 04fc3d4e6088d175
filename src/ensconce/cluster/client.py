"""Puts the client's side together from what a command line names: policy, authority, collateral."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography import x509

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy_file import load_policy
from ensconce.client.leaf import load_authority
from ensconce.cluster.machine import collateral_cache, unix_now
from ensconce.errors import InputError
from ensconce.files import read_bounded

__all__ = ["open_appraiser", "read_authority", "read_rows"]

_MAX_PEM = 1 << 16


def open_appraiser(policy_file: Path, pccs: str) -> Appraiser:
    """An appraiser under the client's policy, with collateral that the client fetches itself.

    Args:
        policy_file: the measurements that the client accepts.
        pccs: URL of a PCCS.

    Raises:
        InputError: the policy is wrong or missing.
    """
    policy = load_policy(policy_file)
    return Appraiser(policy, collateral_cache(policy, pccs), unix_now)


def read_authority(path: Path) -> x509.Certificate:
    """The owner's authority, ``ca.pem``.

    Raises:
        InputError: it is missing, or not one certificate.
    """
    return load_authority(read_bounded(path, _MAX_PEM))


def read_rows(path: Path, name: str, limit: int | None) -> npt.NDArray[np.float32]:
    """The array in an ``.npy`` file, or the one called ``name`` in an ``.npz`` file, as float32.

    Args:
        path: the file; pickled objects are refused.
        name: the array's name in an ``.npz``.
        limit: only so many of the first rows.

    Raises:
        InputError: the file is missing, is no such file, or holds no numbers.
    """
    if not path.is_file():
        raise InputError("predict.input", f"there is no file {path}", remedy="check the path")
    try:
        loaded = np.load(path, allow_pickle=False)
        array = np.asarray(loaded[name] if isinstance(loaded, np.lib.npyio.NpzFile) else loaded)
        rows = array[:limit].astype(np.float32)
    except (ValueError, KeyError, OSError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise InputError(
            "predict.input",
            f"{path} cannot be read",
            found=str(error)[:200],
            rule=f"an array of numbers in .npy, or an array {name} in .npz",
        ) from error
    return rows
