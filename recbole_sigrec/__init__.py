"""recbole_sigrec: multimodal recommendation for RecBole.

The public names are loaded when they are first used, so that ``import recbole_sigrec`` is light.
"""

from importlib import import_module

__version__ = "0.1.0"

_WHERE = {
    "Arm": "recbole_sigrec.evaluator.arms",
    "Config": "recbole_sigrec.config",
    "MultimodalDataset": "recbole_sigrec.data.dataset",
    "MultimodalRecommender": "recbole_sigrec.model.base",
    "SIGRec": "recbole_sigrec.model.sigrec",
    "BM3": "recbole_sigrec.model.bm3",
    "compare": "recbole_sigrec.evaluator.comparison",
    "encode_text": "recbole_sigrec.encode",
    "import_dataset": "recbole_sigrec.data.importers",
    "run": "recbole_sigrec.quick_start",
    "load_data_and_model": "recbole_sigrec.quick_start",
    "tune": "recbole_sigrec.tuning.search",
}
__all__ = [
    "BM3",
    "Arm",
    "Config",
    "MultimodalDataset",
    "MultimodalRecommender",
    "SIGRec",
    "compare",
    "encode_text",
    "import_dataset",
    "load_data_and_model",
    "run",
    "tune",
]


def __getattr__(name):
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'recbole_sigrec' has no attribute '{name}'")


def __dir__():
    return sorted([*globals(), *__all__])
