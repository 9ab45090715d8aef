"""How results are shown: as tables in a terminal, and as HTML pages."""
