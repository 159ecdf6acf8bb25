"""Words out of pieces, by the marks of every family of tokenizers."""

import pytest

from jaxrel.plot.pieces import apart, joined

BYTES = {b: chr(b) for b in [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]}
BYTES |= {b: chr(256 + k) for k, b in enumerate(b for b in range(256) if b not in BYTES)}


def byte_level(*pieces: bytes) -> list[str]:
    return ["".join(BYTES[byte] for byte in piece) for piece in pieces]


SPELLINGS = {
    "wordpiece": ["the", "un", "##expect", "##ed", "cat", ",", "2", "."],
    "sentencepiece": ["▁the", "▁un", "expect", "ed", "▁cat", ",", "▁2", "."],
    "bytes": ["the", "Ġun", "expect", "ed", "Ġcat", ",", "Ġ2", "."],
    "decoded": ["the", " un", "expect", "ed", " cat", ",", " 2", "."],
    "ends": ["the</w>", "un", "expect", "ed</w>", "cat</w>", ",</w>", "2</w>", ".</w>"],
    "fairseq": ["the", "un@@", "expect@@", "ed", "cat", ",", "2", "."],
}


@pytest.mark.parametrize("family", SPELLINGS)
def test_every_tokenizer_gives_the_same_words(family):
    words = joined(SPELLINGS[family])
    assert [word.text for word in words] == ["the", "unexpected", "cat", ",", "2", "."]
    assert [(word.start, word.stop) for word in words][:3] == [(0, 1), (1, 4), (4, 5)]
    assert [word.text for word in apart(SPELLINGS[family])] == SPELLINGS[family]


CASES = {
    "words": (["the", "cat's", "##"], ["the", "cat's", "##"]),
    "letters": (list("a cat"), list("a cat")),
    "bert": (["[CLS]", "hi", "##s", "[SEP]", "[PAD]"], ["[CLS]", "his", "[SEP]", "[PAD]"]),
    "t5": (["▁hi", "s", "</s>", "<pad>"], ["his", "</s>", "<pad>"]),
    "llama": (["<s>", "▁hi", "<0x0A>", "a"], ["<s>", "hi", "\n", "a"]),
    "gpt": (["a", "Ġb", "c", "<|endoftext|>"], ["a", "bc", "<|endoftext|>"]),
    "clip": (["<|start|>", "a</w>", "b", "<|end|>"], ["<|start|>", "a", "b", "<|end|>"]),
    "punctuation": (["▁(", "a", "b", ")", "▁don", "'", "t"], ["(", "ab", ")", "don", "'", "t"]),
    "a space alone": (["▁", "Ж", "у", "▁x"], ["Жу", "x"]),
    "spaces in code": (["Ġ", "ĠĠ", "Ġdef"], ["Ġ", "ĠĠ", "def"]),
    "no spaces": (["▁", "今天", "天气", "▁ok", "ay"], ["今天", "天气", "okay"]),
    "kana and thai": (["▁さ", "くら", "▁สวัส", "ดี"], ["さ", "くら", "สวัส", "ดี"]),
    "hangul has spaces": (["▁안녕", "하세요"], ["안녕하세요"]),
    "accents": (byte_level(b" na", b"\xc3", b"\xaf", b"ve"), ["naïve"]),
    "an emoji in bytes": (byte_level(b" ok", b"\xf0\x9f\x98", b"\x80", b"!"), ["ok", "😀", "!"]),
    "bytes fall back": (["▁a", "<0xE2>", "<0x82>", "<0xAC>", "▁b"], ["a", "€", "b"]),
    "half a character": (byte_level(b" a", b"\xe2\x82", b" b"), ["a", "\ufffd", "b"]),
    "half at the end": (byte_level(b" a", b"\xe2\x82"), ["a", "\ufffd"]),
    "combining": (["▁e", "\u0301", "t"], ["e\u0301t"]),
    "cut at the start": (["##ing", "it"], ["ing", "it"]),
    "cut at the end": (["it", "go@@"], ["it", "go"]),
    "one": (["Ġ"], ["Ġ"]),
    "none": ([], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_goes_on_and_what_does_not(name):
    pieces, expected = CASES[name]
    words = joined(pieces)
    assert [word.text for word in words] == expected
    assert [k for word in words for k in range(word.start, word.stop)] == [*range(len(pieces))]
