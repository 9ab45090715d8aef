"""Encoders: texts and images of items to feature files; images in :mod:`.images`, by timm."""

from recbole_sigrec.encode.sources import ImageFolder, ItemTable
from recbole_sigrec.encode.text import encode_text, encode_text_columns

__all__ = ["ImageFolder", "ItemTable", "encode_text", "encode_text_columns"]
