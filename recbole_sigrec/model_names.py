"""The names of models, where their classes are, and what they do."""

from __future__ import annotations

from typing import NamedTuple


class KnownModel(NamedTuple):
    """Where a model of ours is, where it was published, and what it does, in a line."""

    module: str
    published: str
    about: str


KNOWN = {
    "SIGRec": KnownModel(
        "sigrec", "arXiv 2508.06154, 2025", "item graphs infused with collaborative signals"
    ),
    "VBPR": KnownModel("vbpr", "AAAI 2016", "features beside id embeddings"),
    "MMGCN": KnownModel("mmgcn", "ACM MM 2019", "a graph network for each modality"),
    "LATTICE": KnownModel("lattice", "ACM MM 2021", "item graph learned anew in each epoch"),
    "BM3": KnownModel("bm3", "WWW 2023", "no negatives: two views learn from each other"),
    "FREEDOM": KnownModel("freedom", "ACM MM 2023", "frozen item graph, pruned user-item graph"),
    "MGCN": KnownModel("mgcn", "ACM MM 2023", "features purified, and fused, by behavior"),
    "LGMRec": KnownModel("lgmrec", "AAAI 2024", "local graphs and a learned global hypergraph"),
    "SMORE": KnownModel("smore", "WSDM 2025", "modalities filtered and fused in the spectrum"),
    "COHESION": KnownModel("cohesion", "SIGIR 2025", "written from its abstract alone"),
    "ContentKNN": KnownModel(
        "content_knn", "item-based k-NN, WWW 2001", "no training: items of like content, by cosine"
    ),
    "ContentEASE": KnownModel(
        "content_ease", "EASE, WWW 2019", "no training: EASE with a content kernel, in closed form"
    ),
}
"""Our models by their names."""

MODELS = {name: f"recbole_sigrec.model.{known.module}" for name, known in KNOWN.items()}
"""Our models: name → module."""

REPLACED = {
    "LightGCN": "recbole_sigrec.model.lightgcn",  # our kernels compute its products
    **dict.fromkeys(
        ("DGCF", "NCL", "NGCF", "NNCF", "NeuMF", "Pop"), "recbole_sigrec.recbole_repairs.models"
    ),
}
"""RecBole's models that a class of this plugin stands for: name → module."""

REFUSED = {
    **dict.fromkeys(
        ("SpectralCF", "GCMC", "KGIN", "MCCLK"),
        "it builds its graph through scipy.sparse.dok_matrix._update, which SciPy 1.13 removed",
    ),
    "RaCT": "its trainer of RecBole's pretrains for 150 epochs whatever `epochs` says, into a "
    "pickled file whose name all of its runs share",
}
"""RecBole's models that cannot run here: name → why."""
