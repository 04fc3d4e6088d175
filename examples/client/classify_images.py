"""Ask a model about images, over connections that prove what is at their other end.

    python classify_images.py HOST:PORT --model resnet --policy policy.yaml --ca ca.pem --pccs URL cat.jpg dog.png

Images are files that Pillow reads (pip install pillow), scaled to what the model takes; or arrays, .npy and .npz, as
they are. Nothing of them is sent before the replica was accepted.
"""

import argparse
from pathlib import Path

import numpy as np

from ensconce.client import Client
from ensconce.errors import EnsconceError

parser = argparse.ArgumentParser()
parser.add_argument("address", help="HOST:PORT of the service's gRPC API; several, separated by commas, share the load")
parser.add_argument("images", nargs="+", type=Path)
parser.add_argument("--model", required=True)
parser.add_argument("--policy", required=True, help="the measurements that you accept")
parser.add_argument("--ca", required=True, help="the owner's authority, ca.pem")
parser.add_argument("--pccs", help="where collateral comes from; Intel's service when absent")
parser.add_argument("--server-name", help="the service's TLS name; the host of the address when absent")
parser.add_argument("--fresh", action="store_true", help="have every connection bring a quote of its own")
parser.add_argument("--limit", type=int, default=5, help="so many rows of each array")
options = parser.parse_args()


def pixels(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One image, or the first rows of an array, in the model's shape: rows, height, width, channels."""
    if path.suffix in (".npy", ".npz"):
        found = np.load(path, allow_pickle=False)
        rows = found["images"] if path.suffix == ".npz" else found
        return rows[: options.limit].reshape(-1, *shape[1:])
    from PIL import Image

    height, width, channels = shape[1:]
    image = Image.open(path).convert("RGB" if channels == 3 else "L").resize((width, height))
    return np.asarray(image, np.float32).reshape(1, height, width, channels)


try:
    with Client.connect(
        options.address.split(","),
        options.policy,
        authority=options.ca,
        collateral=options.pccs,
        server_name=options.server_name,
        freshness=options.fresh,
        hedge="p95",
    ) as client:
        (spec,) = client.signatures(options.model)["serving_default"].inputs.values()
        for path in options.images:
            outputs = client.predict(options.model, pixels(path, spec.shape))
            for name, values in outputs.items():
                print(f"{path.name}  {name}: {values.tolist() if values.ndim == 1 else values.argmax(-1).tolist()}")
        for replica, calls in client.calls.items():
            print(f"replica {replica} ({client.accepted[replica].acceptance.identity.name}) answered {calls}")
except EnsconceError as error:
    raise SystemExit(f"{error}") from error
