"""Torch twins of what finds told places in a picture (vla with grounding="keypoints"); see `torch_mirror`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

SYMBOLS = " abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
FEATURES, QUERIES = 32, 8


def tokenize(texts: list[str], max_len: int, device: Any = None) -> torch.Tensor:
    """(B, max_len) ids of lower-cased characters; unknown ones and padding are 0."""
    rows = [[SYMBOLS.find(symbol) + 1 for symbol in text.lower()[:max_len]] for text in texts]
    return torch.tensor([row + [0] * (max_len - len(row)) for row in rows], device=device)


def grid(maps: torch.Tensor) -> torch.Tensor:
    """(H * W, 2) places (u, v) in [-1, 1] of the cells of maps (..., H, W), row by row."""
    lines = [torch.linspace(-1.0, 1.0, size, device=maps.device) for size in maps.shape[-2:]]
    v, u = torch.meshgrid(*lines, indexing="ij")
    return torch.stack([u.flatten(), v.flatten()], dim=-1)


class WordEncoder(nn.Module):
    """A convolution over characters, the maximum over the text, ReLU and a linear layer: a text as one token."""

    def __init__(self, vocab_size: int, max_len: int, embed_dim: int) -> None:
        super().__init__()
        self.max_len = max_len
        self.token_embed = nn.Embedding(vocab_size, 16)
        self.windows = nn.Conv1d(16, embed_dim, 5, padding=2)
        self.out = nn.Linear(embed_dim, embed_dim)

    def tokenize(self, texts: list[str], device: Any = None) -> torch.Tensor:
        """(B, max_len) ids; see `tokenize`."""
        return tokenize(texts, self.max_len, device)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """(B, L) to (B, 1, embed_dim)."""
        is_text = (token_ids != 0)[:, None]
        found = F.relu(self.windows(self.token_embed(token_ids).mT * is_text)) * is_text
        return self.out(found.amax(dim=2)[:, None])

    def padding(self, token_ids: torch.Tensor) -> None:
        """None: its one token is always read."""


class InstructedKeypoints(nn.Module):
    """The places in a picture that an instruction asks for, and the features there, as one token."""

    def __init__(self, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, FEATURES, 8, stride=4, padding=2)
        self.keys = nn.Linear(FEATURES, FEATURES, bias=False)
        self.queries = nn.Linear(embed_dim, QUERIES * FEATURES)
        self.out1 = nn.Linear(QUERIES * (FEATURES + 2), embed_dim)
        self.out2 = nn.Linear(embed_dim, embed_dim)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in [0, 1] and texts (B, embed_dim) to (B, 1, embed_dim)."""
        maps = F.relu(self.first(image - 0.5))
        hidden = maps.flatten(2).mT
        queries = self.queries(text).unflatten(1, (QUERIES, FEATURES))
        weights = torch.softmax(queries @ self.keys(hidden).mT, dim=-1)
        seen = weights @ torch.cat([grid(maps).expand(len(image), -1, -1), hidden], dim=-1)
        return self.out2(F.gelu(self.out1(seen.flatten(1))))[:, None]
