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
    "GRCN": KnownModel(
        "grcn", "ACM MM 2020", "edges of the user-item graph pruned softly by content"
    ),
    "DualGNN": KnownModel(
        "dualgnn", "TMM 2021", "a weight of each modality for each user; user graph"
    ),
    "SLMRec": KnownModel(
        "slmrec", "TMM 2022", "batch softmax; an item's modalities aligned in a chain"
    ),
    "DRAGON": KnownModel(
        "dragon", "ECAI 2023", "DualGNN's modalities side by side, user and item graph"
    ),
    "DAMRS": KnownModel(
        "damrs", "KDD 2024", "item graphs, feedback and interests denoised by agreement"
    ),
    "GUME": KnownModel(
        "gume", "CIKM 2024", "MGCN with item edges for the tail and users' modalities"
    ),
    "DiffMM": KnownModel(
        "diffmm", "ACM MM 2024", "a diffusion model generates a user-item graph of each modality"
    ),
    "STAIR": KnownModel("stair", "AAAI 2025", "start, propagation and optimiser step by column"),
    "PGL": KnownModel(
        "pgl", "AAAI 2025", "training on a principal subgraph, InfoNCE of dropout views"
    ),
    "MENTOR": KnownModel(
        "mentor", "AAAI 2025", "DRAGON's items, moments of all representations aligned"
    ),
    "MMGCF": KnownModel(
        "mmgcf", "UMAP 2026", "LightGCN on ids, features fused at the end in nine ways"
    ),
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
