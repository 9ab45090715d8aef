"""recbole_sigrec: multimodal recommendation for RecBole.

The public names are loaded when they are first used, so that ``import recbole_sigrec`` is light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbole_sigrec.model_names import KNOWN

__version__ = "0.2.0"

if TYPE_CHECKING:
    from recbole_sigrec.comparison.ablation import ablate as ablate
    from recbole_sigrec.comparison.arms import Arm as Arm
    from recbole_sigrec.comparison.compare import compare as compare
    from recbole_sigrec.config import Config as Config
    from recbole_sigrec.data.dataset import MultimodalDataset as MultimodalDataset
    from recbole_sigrec.encode.images import encode_images as encode_images
    from recbole_sigrec.encode.text import encode_text as encode_text
    from recbole_sigrec.inspection.figures import inspect as inspect
    from recbole_sigrec.model.base import MultimodalRecommender as MultimodalRecommender
    from recbole_sigrec.model.bm3 import BM3 as BM3
    from recbole_sigrec.model.cohesion import COHESION as COHESION
    from recbole_sigrec.model.content_ease import ContentEASE as ContentEASE
    from recbole_sigrec.model.content_knn import ContentKNN as ContentKNN
    from recbole_sigrec.model.damrs import DAMRS as DAMRS
    from recbole_sigrec.model.diffmm import DiffMM as DiffMM
    from recbole_sigrec.model.dragon import DRAGON as DRAGON
    from recbole_sigrec.model.dualgnn import DualGNN as DualGNN
    from recbole_sigrec.model.freedom import FREEDOM as FREEDOM
    from recbole_sigrec.model.grcn import GRCN as GRCN
    from recbole_sigrec.model.gume import GUME as GUME
    from recbole_sigrec.model.lattice import LATTICE as LATTICE
    from recbole_sigrec.model.lgmrec import LGMRec as LGMRec
    from recbole_sigrec.model.mentor import MENTOR as MENTOR
    from recbole_sigrec.model.mgcn import MGCN as MGCN
    from recbole_sigrec.model.mmgcf import MMGCF as MMGCF
    from recbole_sigrec.model.mmgcn import MMGCN as MMGCN
    from recbole_sigrec.model.mmgf import MMGF as MMGF
    from recbole_sigrec.model.mmssl import MMSSL as MMSSL
    from recbole_sigrec.model.pgl import PGL as PGL
    from recbole_sigrec.model.rearm import REARM as REARM
    from recbole_sigrec.model.sigrec import SIGRec as SIGRec
    from recbole_sigrec.model.slmrec import SLMRec as SLMRec
    from recbole_sigrec.model.smore import SMORE as SMORE
    from recbole_sigrec.model.stair import STAIR as STAIR
    from recbole_sigrec.model.vbpr import VBPR as VBPR
    from recbole_sigrec.preparation.importers import import_data as import_data
    from recbole_sigrec.preparation.prepare import prepare as prepare
    from recbole_sigrec.serving.recommender import Recommender as Recommender
    from recbole_sigrec.training.export import export as export
    from recbole_sigrec.training.load import load_data_and_model as load_data_and_model
    from recbole_sigrec.training.recbole_functions import create_dataset as create_dataset
    from recbole_sigrec.training.recbole_functions import data_preparation as data_preparation
    from recbole_sigrec.training.recbole_functions import get_model as get_model
    from recbole_sigrec.training.recbole_functions import get_trainer as get_trainer
    from recbole_sigrec.training.recbole_functions import objective_function as objective_function
    from recbole_sigrec.training.recbole_functions import run_recbole as run_recbole
    from recbole_sigrec.training.run import run as run
    from recbole_sigrec.tuning.search import tune as tune

_MODULES = {
    "ablate": "comparison.ablation",
    "Arm": "comparison.arms",
    "compare": "comparison.compare",
    "Config": "config",
    "MultimodalDataset": "data.dataset",
    "encode_images": "encode.images",
    "encode_text": "encode.text",
    "inspect": "inspection.figures",
    "MultimodalRecommender": "model.base",
    **{name: f"model.{known.module}" for name, known in KNOWN.items()},
    "import_data": "preparation.importers",
    "prepare": "preparation.prepare",
    "Recommender": "serving.recommender",
    "export": "training.export",
    "load_data_and_model": "training.load",
    "create_dataset": "training.recbole_functions",
    "data_preparation": "training.recbole_functions",
    "get_model": "training.recbole_functions",
    "get_trainer": "training.recbole_functions",
    "objective_function": "training.recbole_functions",
    "run_recbole": "training.recbole_functions",
    "run": "training.run",
    "tune": "tuning.search",
}
"""Public name → its module; the imports above say the same to a type checker."""

__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]  (the imports say it)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"recbole_sigrec.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'recbole_sigrec' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
