"""A trained model at work: bundles and the Recommender, without torch and without RecBole."""

from recbole_sigrec.serving.recommender import Recommender

__all__ = ["Recommender"]
