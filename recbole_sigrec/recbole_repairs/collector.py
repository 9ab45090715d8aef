"""What RecBole's evaluator collects from the scores of a batch."""

from __future__ import annotations

import torch
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector as RecBoleCollector
from recbole.evaluator.collector import DataStruct

from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.kernels.ranking import top_items
from recbole_sigrec.parallel import distributed


class Collector(RecBoleCollector):
    """RecBole's collector, repaired and without its dense masks; it joins processes' users.

    The original calls ``.cpu()`` on counters and ints too, so that ItemCoverage, AveragePopularity,
    GiniIndex and TailPercentage crash; for each batch it builds an integer matrix of the scores'
    size to see which of the top items are positives; and where fewer than k items can be
    recommended to a user it fills the list up with others, which are 0 here.
    """

    def eval_batch_collect(
        self,
        scores_tensor: torch.Tensor,
        interaction: Interaction,
        positive_u: torch.Tensor,
        positive_i: torch.Tensor,
    ) -> None:
        if torch.isnan(scores_tensor.max()):
            raise SIGRecError(
                "the model's scores are NaN: its training has diverged, or a key of it is NaN. "
                "Where it is trained by steps, give a smaller learning_rate, or clip_grad_norm: "
                "{max_norm: 5}"
            )
        needs_topk = self.register.need("rec.topk")
        if not needs_topk or any(
            self.register.need(f"rec.{other}") for other in ("items", "meanrank", "score")
        ):
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
            if self.register.need("rec.items"):
                items = self.data_struct["rec.items"][-len(scores_tensor) :]
                items[scores_tensor.gather(1, items) == -torch.inf] = 0
            return
        n_users, n_items = scores_tensor.shape
        top = top_items(scores_tensor, max(self.topk))  # [n_users, k]
        positive_u = positive_u.to(top.device)
        row = torch.arange(n_users, device=top.device)[:, None]
        positive = torch.unique(positive_u * n_items + positive_i.to(top.device))
        hit = torch.isin(row * n_items + top, positive)
        size = torch.bincount(positive // n_items, minlength=n_users)[:, None]  # positives per user
        self.data_struct.update_tensor("rec.topk", torch.cat([hit.int(), size.int()], dim=1))

    def get_data_struct(self) -> DataStruct:
        plain = {
            key: value
            for key, value in self.data_struct._data_dict.items()
            if not isinstance(value, torch.Tensor)
        }
        for key in plain:
            del self.data_struct[key]
        struct = super().get_data_struct()
        for key, value in plain.items():
            self.data_struct.set(key, value)
            struct.set(key, value)
        per_user = set(struct._data_dict) - set(self.data_struct._data_dict)
        parts = distributed.gather({key: struct[key] for key in per_user})
        for key in set().union(*parts) if len(parts) > 1 else ():
            struct.set(key, torch.cat([part[key] for part in parts if key in part]))
        return struct
