"""The commands of ``recbole-sigrec``, one module each, with ``parser()`` and ``main(arguments)``.

``main`` returns the exit status; a :class:`SIGRecError` or ``argparse.ArgumentError`` is printed by
:mod:`recbole_sigrec.cli` and becomes 2. Help is answered there too.
"""
