"""Search for a model's best configuration on the validation part, by Optuna (extra ``[tune]``)."""

from recbole_sigrec.extras import need

need("tune", "tuning")
