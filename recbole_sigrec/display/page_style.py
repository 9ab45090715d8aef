"""The look of all pages: one stylesheet, and the colours of the charts."""

from pathlib import Path

STYLE = Path(__file__).with_name("style.css")
"""The stylesheet."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette for all kinds of colour vision, without black and yellow."""
