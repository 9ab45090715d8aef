"""Search for a model's best configuration on the validation part, by Optuna (extra ``[tune]``)."""

from importlib.util import find_spec

from recbole_sigrec.errors import SIGRecError

if find_spec("optuna") is None:
    raise SIGRecError(
        'tuning needs Optuna, which is not installed: pip install "recbole_sigrec[tune]"'
    )
