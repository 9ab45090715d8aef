"""LightGCN against the golden vectors; that it is RecBole's is seen in ``test_recbole.py``."""

from __future__ import annotations

from helpers_golden import TABLES, GoldenVectors


class TestGolden(GoldenVectors):
    model = "LightGCN"
    keys = {key: key for key in ("embedding_size", "n_layers", "reg_weight")}
    parameters = TABLES
    terms = [("bpr", "reg")]
    wrong = {"n_layers": 2, "reg_weight": 0.011}

    def middle(self, golden):
        users, items = golden.model.forward()
        return {"user": users, "item": items}
