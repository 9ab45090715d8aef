"""The names of models, and where their classes are."""

MODELS = {
    "SIGRec": "recbole_sigrec.model.sigrec",
    "BM3": "recbole_sigrec.model.bm3",
    "MGCN": "recbole_sigrec.model.mgcn",
    "SMORE": "recbole_sigrec.model.smore",
    "VBPR": "recbole_sigrec.model.vbpr",
    "FREEDOM": "recbole_sigrec.model.freedom",
    "LATTICE": "recbole_sigrec.model.lattice",
    "LGMRec": "recbole_sigrec.model.lgmrec",
    "COHESION": "recbole_sigrec.model.cohesion",
    "MMGCN": "recbole_sigrec.model.mmgcn",
    "ContentKNN": "recbole_sigrec.model.content_knn",
    "ContentEASE": "recbole_sigrec.model.content_ease",
}
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
