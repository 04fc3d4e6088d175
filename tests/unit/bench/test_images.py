"""Real images: files and folders, as they are and as pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensconce.bench.images import pixels, read_images
from ensconce.client.signatures import InputSpec
from ensconce.errors import InputError

FLOATS = np.dtype("<f4")


def encoded(color: tuple[int, int, int], kind: str = "png", size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, kind)
    return out.getvalue()


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", ".hidden", "folder/c.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    alone = tmp_path / "z"
    alone.write_bytes(b"z")
    assert read_images([alone, tmp_path / "images"]) == [b"z", b"a.jpg", b"b.jpg"]
    for wrong in (tmp_path, tmp_path / "absent"):
        alone.unlink(missing_ok=True)
        with pytest.raises(InputError):
            read_images([wrong])


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pixels_are_colours_from_0_to_255_in_the_shape_of_the_input(kind: str) -> None:
    images = [encoded((200, 100, 0), kind), encoded((0, 0, 255), kind)]
    made = pixels(images, "x", InputSpec(FLOATS, (-1, 4, 5, 3)), {})
    assert (made.dtype, made.shape) == (FLOATS, (2, 4, 5, 3))
    np.testing.assert_allclose(made[0, 2, 2], (200, 100, 0), atol=6)
    first = pixels(images, "x", InputSpec(np.dtype("u1"), (-1, 3, 4, 5)), {})
    assert (first.dtype, first.shape) == (np.dtype("u1"), (2, 3, 4, 5))
    np.testing.assert_allclose(first[1, :, 2, 2], (0, 0, 255), atol=6)
    grey = pixels(images, "x", InputSpec(FLOATS, (-1, -1, -1, 1)), {"x": (2, 3, 1)})
    assert grey.shape == (2, 2, 3, 1)


@pytest.mark.parametrize(
    ("check", "image", "shape"),
    [
        ("bench.input", b"\xff\xd8\xff", (-1, 4, 5, 3)),
        ("bench.input", encoded((1, 2, 3), "jpeg")[:300], (-1, 4, 5, 3)),
        ("bench.shape", encoded((1, 2, 3)), (-1, -1, -1, 3)),
        ("bench.shape", encoded((1, 2, 3)), (-1, 4, 5, 7)),
        ("bench.shape", encoded((1, 2, 3)), (-1, 2**20, 2**20, 3)),
    ],
)
def test_what_is_no_image_for_an_input(check: str, image: bytes, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as caught:
        pixels([image], "x", InputSpec(FLOATS, shape), {})
    assert caught.value.check == check


def test_an_image_that_would_fill_the_memory_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(InputError, match="cannot be read"):
        pixels([encoded((1, 2, 3))], "x", InputSpec(FLOATS, (-1, 4, 5, 3)), {})
