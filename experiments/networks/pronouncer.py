"""The GRU encoder-decoder of `g2p-en` in `flax.linen`: from an English word's letters to phonemes.

One GRU reads the letters and an end mark, another speaks ARPAbet phonemes from what the first
remembers: at each step it hears the phoneme that it said before. The weights come inside the wheel
of the PyPI package `g2p-en` (Apache-2.0, Kyubyong Park and Jongseok Kim), which learned them from
the CMU pronouncing dictionary. That package's code is not imported.

Words are arrays of indices into `LETTERS`, pronunciations into `PHONEMES`. The network reads one
word; `jax.vmap` makes it read many, padded with 0, which the encoder skips.
"""

from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

LETTERS = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
"""What the encoder reads; `</s>` ends a word."""

PHONEMES = tuple(
    """
    <pad> <unk> <s> </s> AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B
    CH D DH EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1
    OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH
    """.split()
)
"""What the decoder says, ARPAbet with stress; `<s>` starts a pronunciation and `</s>` ends it."""

PAD, UNKNOWN, END = range(3)
"""Indices of the marks among the letters."""

START, STOP = PHONEMES.index("<s>"), PHONEMES.index("</s>")
"""Indices of the marks among the phonemes."""

STEPS = 20
"""How many phonemes the package lets the network say at most."""

_PACKAGE = "g2p-en"
_FILE = "g2p_en/checkpoint20.npz"
_FEATURES = 256
_WEIGHTS = (
    "fc_w fc_b enc_emb enc_w_ih enc_w_hh enc_b_ih enc_b_hh dec_emb dec_w_ih dec_w_hh dec_b_ih "
    "dec_b_hh"
).split()


class Pronouncer(nn.Module):
    """The whole network."""

    def setup(self) -> None:
        """Name the layers; places of `jaxrel.relevance` are `letters` and `phonemes`."""
        self.letters = nn.Embed(len(LETTERS), _FEATURES)
        self.encoder = nn.GRUCell(_FEATURES)
        self.phonemes = nn.Embed(len(PHONEMES), _FEATURES)
        self.decoder = nn.GRUCell(_FEATURES)
        self.classifier = nn.Dense(len(PHONEMES))

    def __call__(self, word: jax.Array, spoken: jax.Array) -> jax.Array:
        """Say what comes after each of the phonemes that are given.

        Args:
            word: (L,) integers, as `spell` makes them.
            spoken: (T,) integers: `<s>`, and what was said so far.

        Returns:
            (T, phonemes) float32 logits of the next one.
        """

        def say(net: "Pronouncer", memory: jax.Array, heard: jax.Array) -> Any:
            return net._say(memory, heard)

        _, logits = _scan(say)(self, self._read(word), self.phonemes(spoken))
        return logits

    def pronounce(self, word: jax.Array, steps: int = STEPS) -> jax.Array:
        """Say a word, each time the most probable phoneme.

        Args:
            word: (L,) integers, as `spell` makes them.
            steps: How many phonemes to say; there is no stopping at `</s>`.

        Returns:
            (steps,) integers.
        """

        def say(net: "Pronouncer", carry: tuple[jax.Array, jax.Array], _: None) -> Any:
            memory, logits = net._say(carry[0], net.phonemes(carry[1]))
            said = logits.argmax()
            return (memory, said), said

        start = self._read(word), jnp.array(START)
        _, said = _scan(say, length=steps)(self, start, None)
        return said

    def _read(self, word: jax.Array) -> jax.Array:
        """What the encoder remembers of a word, (features,)."""

        def read(net: "Pronouncer", memory: jax.Array, letter: Any) -> Any:
            embedded, index = letter
            after, _ = net.encoder(memory, embedded)
            return jnp.where(index == PAD, memory, after), None

        nothing = jnp.zeros(_FEATURES)
        memory, _ = _scan(read)(self, nothing, (self.letters(word), word))
        return memory

    def _say(self, memory: jax.Array, heard: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One step of the decoder: its memory, and the logits of what it says."""
        memory, _ = self.decoder(memory, heard)
        return memory, self.classifier(memory)


def _scan(step: Any, **options: Any) -> Any:
    return nn.scan(step, variable_broadcast="params", split_rngs={"params": False}, **options)


def spell(word: str, length: int | None = None) -> np.ndarray:
    """The letters of a word and the end mark, (length,) int32, padded; unpadded without `length`.

    Raises:
        ValueError: The word has other characters than a to z, or none, or is too long.
    """
    if not word or set(word) - set(LETTERS[3:]):
        raise ValueError(f"{word!r}: expected the letters a to z")
    length = len(word) + 1 if length is None else length
    if len(word) >= length:
        raise ValueError(f"{word!r}: longer than {length - 1} letters")
    indices = [LETTERS.index(letter) for letter in word] + [END]
    return np.array(indices + [PAD] * (length - len(indices)), np.int32)


def load_variables(path: str | Path | None = None) -> dict[str, Any]:
    """Load the trained weights as the variables of `Pronouncer()`.

    Args:
        path: The npz; by default the one in the installed package.

    Returns:
        `{"params": ...}` with float32 leaves.

    Raises:
        FileNotFoundError: `g2p-en` is not installed, or there is no file at `path`.
        ValueError: The file is none of that network.
    """
    path = checkpoint_path() if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    with np.load(path, allow_pickle=False) as file:
        weights = dict(file)
    if missing := set(_WEIGHTS) - set(weights):
        raise ValueError(f"{path}: not the network of g2p-en: it has no {sorted(missing)}")
    return {
        "params": {
            "letters": {"embedding": jnp.asarray(weights["enc_emb"])},
            "encoder": _gru(weights, "enc"),
            "phonemes": {"embedding": jnp.asarray(weights["dec_emb"])},
            "decoder": _gru(weights, "dec"),
            "classifier": _dense(weights["fc_w"], weights["fc_b"]),
        }
    }


def checkpoint_path() -> Path:
    """Locate the weights in the installed package, without importing that package.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    try:
        package = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        message = f"the weights are missing: pip install {_PACKAGE}"
        raise FileNotFoundError(message) from None
    return Path(str(package.locate_file(_FILE)))


def _gru(weights: dict[str, np.ndarray], part: str) -> dict[str, Any]:
    """A GRU cell of torch as one of flax: gates apart, and one bias where two are added."""
    kernels = {side: np.split(weights[f"{part}_w_{side}h"], 3) for side in "ih"}
    biases = {side: np.split(weights[f"{part}_b_{side}h"], 3) for side in "ih"}
    cell = {}
    for k, gate in enumerate("rzn"):
        own, other = biases["i"][k], biases["h"][k]
        inner = gate == "n"  # there the reset gate multiplies the memory's bias too
        cell[f"i{gate}"] = _dense(kernels["i"][k], own if inner else own + other)
        cell[f"h{gate}"] = _dense(kernels["h"][k], other if inner else None)
    return cell


def _dense(kernel: np.ndarray, bias: np.ndarray | None) -> dict[str, jax.Array]:
    """A linear layer of torch, (out, in), as one of flax."""
    made = {"kernel": jnp.asarray(kernel.T)}
    return made if bias is None else made | {"bias": jnp.asarray(bias)}
