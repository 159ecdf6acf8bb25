"""The preprocessing of EfficientNet-Lite's pictures, and the names of its classes."""

import numpy as np
import pytest

from experiments.data.imagenet import center_crop, class_names, find_class, preprocess

NAMES = class_names()

# What `tf.compat.v1.image.resize_bicubic` of TensorFlow 2.21 makes of the central 35 x 35 pixels
# of `pattern()`, at a few (row, column) places of the result.
TENSORFLOW_PIXELS = {
    (0, 0): [110.0, 193.0, 20.0],
    (1, 3): [139.627, 225.269, 46.633],
    (100, 57): [195.929, 125.895, 94.531],
    (223, 223): [43.528, 130.483, 213.483],
}


def pattern() -> np.ndarray:
    """Return a (40, 60, 3) uint8 picture without any smoothness."""
    row, column, channel = np.ogrid[:40, :60, :3]
    return ((row * 37 + column * 59 + channel * 83) % 256).astype(np.uint8)


def test_pixels_agree_with_tensorflow():
    crop = center_crop(pattern())
    assert crop.shape == (224, 224, 3) and crop.dtype == np.float32
    for place, pixel in TENSORFLOW_PIXELS.items():
        np.testing.assert_allclose(crop[place], pixel, atol=1e-2)


def test_values_are_centred_on_127_and_scaled_by_128():
    for value in (0, 127, 255):
        picture = np.full((300, 400, 3), value, np.uint8)
        image = preprocess(picture)
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, (value - 127) / 128, atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 4), (1, 60, 3), (0, 0, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="picture"):
        center_crop(np.zeros(shape, np.uint8))


def test_there_are_1000_names_in_the_usual_order():
    assert len(NAMES) == 1000
    assert NAMES[0].startswith("tench") and NAMES[999].startswith("toilet tissue")


@pytest.mark.parametrize(
    ("query", "index"),
    [("281", 281), ("tabby", 281), ("Tabby Cat", 281), ("espresso", 967), ("egyptian", 285)],
)
def test_a_class_is_found_by_index_synonym_or_part(query, index):
    assert find_class(query, NAMES) == index


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("1000", "no class 1000: the classes are 0 to 999"),
        ("-1", "no class name contains '-1'"),
        ("flying saucer", "no class name contains 'flying saucer'"),
        ("crane", r"2 classes fit 'crane': 134 \(crane\), 517 \(crane\)$"),
        ("terrier", r"classes fit 'terrier': .*, \.\.\.$"),
    ],
)
def test_an_unknown_or_ambiguous_class_is_explained(query, message):
    with pytest.raises(ValueError, match=message):
        find_class(query, NAMES)
