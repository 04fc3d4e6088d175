"""Puts the client's side together from what a command line names: policy, authority, collateral."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy_file import load_policy
from ensconce.client.codec import Array
from ensconce.client.service import collateral_of
from ensconce.client.signatures import InputSpec
from ensconce.errors import InputError
from ensconce.times import unix_now

__all__ = ["fit_inputs", "open_appraiser", "read_rows"]


def open_appraiser(policy_file: Path, pccs: str) -> Appraiser:
    """An appraiser under the client's policy, with collateral that the client fetches itself.

    Args:
        policy_file: the measurements that the client accepts.
        pccs: URL of a PCCS or of Intel's service, or the path of a bundle file.

    Raises:
        InputError: the policy or the bundle is wrong or missing.
    """
    policy = load_policy(policy_file)
    return Appraiser(policy, collateral_of(policy, pccs, unix_now), unix_now)


def read_rows(path: Path, limit: int | None) -> dict[str, Array]:
    """The arrays in an ``.npz`` file by name, or the one in an ``.npy`` file under the name ``""``.

    Args:
        path: the file; pickled objects are refused.
        limit: only so many of the first rows of each.

    Raises:
        InputError: the file is missing, or is no such file.
    """
    if not path.is_file():
        reason = "it is not a regular file" if path.exists() else "there is no such file"
        raise InputError("predict.input", f"cannot read {path}: {reason}", remedy="check the path")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    except OSError as error:
        raise InputError(
            "predict.input", f"cannot read {path}: {error.strerror or error}", remedy="check the path"
        ) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        # numpy takes every other file for a pickle, and its advice would be to load that.
        raise InputError(
            "predict.input",
            f"{path} is damaged, or no file of arrays",
            rule="an .npz or .npy file, as numpy.savez and numpy.save write them, without Python objects",
        ) from error
    return {name: array[:limit] for name, array in arrays.items() if array.ndim}


def fit_inputs(arrays: dict[str, Array], specs: dict[str, InputSpec]) -> dict[str, Array]:
    """The arrays that a signature takes, with its element types, and its shapes where only axes of size 1 differ.

    Args:
        arrays: as :func:`read_rows` gives them; a lone unnamed array stands for a lone input.
        specs: the signature's inputs.

    Raises:
        InputError: an input is not among the arrays, or its elements cannot be converted.
    """
    if set(arrays) == {""} and len(specs) == 1:
        arrays = {next(iter(specs)): arrays[""]}
    fitted = {}
    for name, spec in specs.items():
        if name not in arrays:
            raise InputError(
                "predict.input",
                f"the file has no array for the input {name}",
                found=", ".join(name or "one array without a name" for name in arrays) or "no array with rows",
                rule=f"an .npz with {', '.join(specs)}",
            )
        array = arrays[name]
        try:
            # Never a conversion that would drop fractions or imaginary parts.
            array = array.astype(spec.dtype, casting="same_kind")
        except (ValueError, TypeError) as error:
            raise InputError(
                "predict.input",
                f"{name} holds no numbers of the right type",
                found=str(array.dtype),
                rule=str(spec.dtype),
            ) from error
        if [size for size in array.shape[1:] if size != 1] == [size for size in spec.shape[1:] if size != 1]:
            array = array.reshape(array.shape[0], *spec.shape[1:])
        fitted[name] = array
    return fitted
