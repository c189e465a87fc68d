"""Sources of labeled images: decoding, and a selection of them."""

import numpy as np
import pytest

from examples.images import sources
from tests.examples.images.files import encoded
from tests.examples.images.files import photo


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_pixels_of_a_file(form):
    pixels = sources.decode(encoded(photo(9), form), 3, "it")
    assert (pixels.dtype, pixels.shape) == (np.uint8, photo(9).shape)
    np.testing.assert_allclose(pixels, photo(9).astype(float), atol=2)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG")],
)
def test_every_image_of_8_bits_becomes_rgb(mode, form):
    white = encoded(np.full((4, 3, 3), 255, np.uint8), form, mode)
    np.testing.assert_array_equal(
        sources.decode(white, 3, "it"), np.full((4, 3, 3), 255)
    )


def test_gray_images_have_one_channel():
    pixels = np.arange(12, dtype=np.uint8).reshape(4, 3)
    decoded = sources.decode(encoded(pixels, mode="L"), 1, "it")
    np.testing.assert_array_equal(decoded, pixels[..., None])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "of no known format"),
        (b"no image", "of no known format"),
        (encoded(photo(0))[:60], "OSError"),
        (encoded(photo(0), "JPEG")[:-40], "OSError"),
        (encoded(np.zeros((2, 2), np.uint16), mode="I;16"), "over 8 bits"),
    ],
)
def test_what_cannot_be_decoded_is_named(content, message):
    with pytest.raises(OSError, match=rf"^a can't be decoded \(.*{message}") as said:
        sources.decode(content, 3, "a")
    assert "\n" not in str(said.value)


def test_a_selection_gives_other_labels():
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    source = sources.Arrays(images, np.array([0, 1, 0, 1]))
    some = sources.Selection(source, np.array([3, 1]), np.array([0, 1]))
    assert len(some) == 2
    assert [(image.item(), label) for image, label in (some[0], some[1])] == [
        (3, 0),
        (1, 1),
    ]


def test_long_lists_are_cut():
    assert sources.listed([]) == "nothing"
    assert sources.listed("ab") == "a, b"
    assert sources.listed(range(12)).endswith("8, 9 and 2 more")
