"""RecBole 1.2.1 on current libraries: every repair that it needs, and only here.

Nothing is patched when a module is imported. What a subclass can repair is repaired by one: the
collector, the metrics and the models. The rest holds for the time of a ``with`` block, but for
:func:`~recbole_sigrec.recbole_repairs.numpy_names.numpy_aliases`, which RecBole's Config does
itself, in a way that fails on NumPy 2.
"""
