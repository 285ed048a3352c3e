"""Instructions as numbers: one id per character, and what cannot be said so."""

from collections.abc import Iterable

import numpy as np

SYMBOLS = " abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
TOKEN_IDS = {symbol: i + 1 for i, symbol in enumerate(SYMBOLS)}
PAD = 0
LENGTH = 64  # characters of an observed instruction


def tokenize(texts: list[str], max_len: int) -> np.ndarray:
    """Lower-cased characters as ids 1..43, unknown ones and padding 0: (B, max_len) int32."""
    tokens = np.full((len(texts), max_len), PAD, np.int32)
    for row, text in zip(tokens, texts, strict=True):
        ids = [TOKEN_IDS.get(symbol, PAD) for symbol in text.lower()[:max_len]]
        row[: len(ids)] = ids
    return tokens


def check_instructions(texts: Iterable[str], max_len: int) -> None:
    """What `tokenize` would cut or leave out is an error.

    Raises:
      ValueError: an instruction that is longer than `max_len` characters, or has characters without an id.
    """
    for text in texts:
        if len(text) > max_len:
            raise ValueError(f"The instruction {text!r} has {len(text)} characters; the model reads {max_len}.")
        unknown = sorted({symbol for symbol in text.lower() if symbol not in TOKEN_IDS})
        if unknown:
            found = " ".join(unknown)
            raise ValueError(f"The instruction {text!r} has characters that models do not read: {found}")
