"""What is measured: ours, RecBole's own parts, and the dense way, on the same data.

A case is a group, a name, and a function that prepares it and returns what is to be timed. The
first case of a group is the one that the others are compared with.
"""

import functools
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from powerlaw import powerlaw
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.data.dataset import Dataset
from recbole.model.general_recommender import LightGCN
from recbole.sampler import Sampler as RecBoleSampler
from recbole.trainer import Trainer
from recbole.utils import ModelType

from recbole_sigrec import Config
from recbole_sigrec.config.registry import resolve_model
from recbole_sigrec.data.parts import create_dataset, data_preparation
from recbole_sigrec.data.sampler import Sampler
from recbole_sigrec.graph import collaborative_topk, interaction_matrix, knn_graph
from recbole_sigrec.graph.knn import tile_size
from recbole_sigrec.kernels.products import matmul_nt
from recbole_sigrec.model.losses import info_nce
from recbole_sigrec.model_names import MODELS
from recbole_sigrec.recbole_repairs.models import NormalizedAdjacency
from recbole_sigrec.recbole_repairs.numpy_names import numpy_aliases
from recbole_sigrec.training.run import build_model
from recbole_sigrec.training.trainer_kinds import trainer_class

DATA_PATH = os.environ.get("BENCHMARK_DATA_PATH", "dataset")
DATASETS = os.environ.get("BENCHMARK_DATASETS", "ml-100k").split(",")
THREADS = int(os.environ.get("BENCHMARK_THREADS", "1"))
K, D, BATCH, TEMPERATURE = 10, 64, 2048, 0.2

RecBoleLightGCN = type("LightGCN", (NormalizedAdjacency, LightGCN), {})
"""RecBole's own LightGCN; without the repair of its adjacency it does not run on current SciPy."""


def set_machine():
    """Threads and denormal numbers as a run sets them; no log."""
    torch.set_num_threads(THREADS)
    torch.set_flush_denormal(True)
    logging.disable(logging.INFO)
    numpy_aliases()


def config(dataset, model="LightGCN", **values):
    values = {"data_path": DATA_PATH, "show_progress": False, "graph_cache_dir": "~", **values}
    values["use_gpu"] = False
    return Config(model, dataset, config_dict=values, command_line=())


@functools.cache
def prepared(dataset, model="LightGCN", **values):
    """Config, data set and loaders of a model."""
    settings = config(dataset, model, **values)
    data = create_dataset(settings)
    return settings, data, *data_preparation(settings, data)


@functools.cache
def training_matrix(dataset):
    _, data, train, *_ = prepared(dataset)
    pairs = (train.dataset.inter_feat[f].numpy() for f in (data.uid_field, data.iid_field))
    return interaction_matrix(*pairs, data.user_num, data.item_num)


# ---- sampling and loading ------------------------------------------------------------------------


def loading(dataset):
    return lambda: create_dataset(config(dataset))


def recbole_loading(dataset):
    """RecBole's own data set, of the same split as files of its own format; no features."""
    source = prepared(dataset)[1]
    folder = Path(tempfile.mkdtemp()) / dataset
    folder.mkdir()
    parts = ["train", "valid", "test"]
    for name, part in zip(parts, prepared(dataset)[2:], strict=True):
        fields = (source.uid_field, source.iid_field)
        frame = {f: source.id2token(f, part.dataset.inter_feat[f].numpy()) for f in fields}
        frame = pd.DataFrame(frame).add_suffix(":token")
        frame.to_csv(folder / f"{dataset}.{name}.inter", sep="\t", index=False)
    settings = {"data_path": str(folder.parent), "benchmark_filename": parts}
    return lambda: Dataset(config(dataset, **settings))


def sampling(dataset, cls, distribution):
    _, data, train, valid, test = prepared(dataset)
    parts = [loader.dataset for loader in (train, valid, test)]
    sampler = cls(["train", "valid", "test"], parts, distribution).set_phase("train")
    users = train.dataset.inter_feat[data.uid_field].numpy()[:BATCH]
    items = train.dataset.inter_feat[data.iid_field].numpy()[:BATCH]
    return lambda: sampler.sample_by_user_ids(users, items, 1)


# ---- training ------------------------------------------------------------------------------------


def epoch(dataset, model):
    """An epoch after the warm-up of the contrastive terms."""
    settings, _, train, *_ = prepared(dataset, model)
    trainer = trainer_class(settings["MODEL_TYPE"], model)(settings, build_model(settings, train))
    return functools.partial(trainer._train_epoch, train, 30)


def recbole_epoch(dataset):
    """RecBole's own LightGCN, trainer, loader and sampler."""
    settings, _, train, valid, test = prepared(dataset)
    model = RecBoleLightGCN(settings, train.dataset)
    parts = [loader.dataset for loader in (train, valid, test)]
    sampler = RecBoleSampler(["train", "valid", "test"], parts, "uniform").set_phase("train")
    loader = TrainDataLoader(settings, train.dataset, sampler, shuffle=True)
    return functools.partial(Trainer(settings, model)._train_epoch, loader, 30)


# ---- evaluation ----------------------------------------------------------------------------------


def evaluation(dataset):
    settings, _, train, valid, _ = prepared(dataset)
    model = build_model(settings, train)
    trainer = trainer_class(settings["MODEL_TYPE"], settings["model"])(settings, model)
    return functools.partial(_evaluate, trainer, valid)


def scored_evaluation(dataset, weight):
    """SIGRec's validation; ``weight``: of the item scores, whose other keys are given."""
    given = {"item_score_reg": 100.0, "item_score_content": 10.0, "modality_weights": None}
    keys = {"item_score_weight": weight, **given}
    settings = config(dataset, "SIGRec", **keys)
    train, valid, _ = data_preparation(settings, create_dataset(settings))
    model = build_model(settings, train)
    trainer = trainer_class(settings["MODEL_TYPE"], settings["model"])(settings, model)

    def validate():
        model.train()  # forgets the representations
        return trainer._valid_epoch(valid)

    return validate


def recbole_evaluation(dataset, batch):
    """RecBole's own trainer, loader and collector; ``batch`` scores, as it counts them."""
    settings, _, train, valid, _ = prepared(dataset, eval_batch_size=batch)
    trainer = Trainer(settings, RecBoleLightGCN(settings, train.dataset))
    loader = FullSortEvalDataLoader(settings, valid._dataset, valid._sampler)
    return functools.partial(_evaluate, trainer, loader)


def _evaluate(trainer, loader):
    trainer.model.restore_user_e = trainer.model.restore_item_e = None
    return trainer.evaluate(loader, load_best_model=False)


# ---- graphs --------------------------------------------------------------------------------------


def collaborative(dataset):
    matrix = training_matrix(dataset)
    return lambda: collaborative_topk(matrix, K)


def dense_collaborative(dataset):
    """RᵀR as a dense n × n matrix, and its top k."""
    matrix = training_matrix(dataset)

    def build():
        counts = torch.from_numpy((matrix.T @ matrix).toarray())
        degree = counts.diagonal().clone().clamp_min(1)
        counts.fill_diagonal_(0)
        return (counts / (degree[:, None] * degree).sqrt()).topk(K)

    return build


def widest(dataset):
    """The features of the modality with the most dimensions."""
    return max(prepared(dataset)[1].modality_features.values(), key=lambda x: x.shape[1])


def semantic(dataset):
    features = widest(dataset)
    return lambda: knn_graph(features, K, symmetric=False)


def dense_semantic(dataset):
    """The field's way: the n × n similarities, and their top k."""
    features = widest(dataset)

    def build():
        unit = torch.nn.functional.normalize(features)
        return (unit @ unit.T).topk(K + 1)

    return build


def faiss_flat(dataset):
    import faiss

    faiss.omp_set_num_threads(THREADS)
    features = widest(dataset)

    def build():
        unit = torch.nn.functional.normalize(features).numpy()
        index = faiss.IndexFlatIP(unit.shape[1])
        index.add(unit)
        return index.search(unit, K + 1)

    return build


# ---- losses and limits ---------------------------------------------------------------------------


def _pair():
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, BATCH, D, generator=generator, requires_grad=True)
    return draw(), draw()


def blockwise_info_nce():
    one, two = _pair()
    return lambda: info_nce(one, two, TEMPERATURE).backward()


def dense_info_nce():
    """torch's cross entropy of the whole matrix of similarities."""
    one, two = _pair()

    def step():
        unit = [torch.nn.functional.normalize(x) for x in (one, two)]
        logits = unit[0] @ unit[1].T / TEMPERATURE
        torch.nn.functional.cross_entropy(logits, torch.arange(BATCH)).backward()

    return step


def torch_product():
    one, two = torch.randn(BATCH, BATCH), torch.randn(BATCH, BATCH)
    return lambda: one @ two.T


def our_product():
    one, two = torch.randn(BATCH, BATCH), torch.randn(BATCH, BATCH)
    return lambda: matmul_nt(one, two)


COPIED = 2**28  # bytes, far beyond the caches


def copy():
    source = np.ones(COPIED // 8)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def large_collaborative():
    """The size of Amazon Electronics."""
    users, items, _ = powerlaw(192_403, 63_001, 1_700_000, d=1)
    matrix = interaction_matrix(users, items, 192_403, 63_001)
    return lambda: collaborative_topk(matrix, K)


LARGE = (63_000, 4096)


def large_semantic():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(LARGE, generator=generator)
    return lambda: knn_graph(features, K, symmetric=False)


def semantic_flops(n, d):
    """Multiply-adds twice: of the tiles that the search computes, and of all n × n pairs."""
    size = tile_size(d)
    blocks = [min(size, n - start) for start in range(0, n, size)]
    pairs = sum(one * sum(blocks[i:]) for i, one in enumerate(blocks))
    return 2 * pairs * d, 2 * n * n * d


def scale_cases():
    """Cases of large synthetic data: (group, name, prepare)."""
    return [
        ("collaborative graph, 1,700,000 pairs, 63,001 items", "ours", large_collaborative),
        (f"semantic graph, {LARGE[0]:,} x {LARGE[1]:,}", "ours", large_semantic),
    ]


def machine_cases():
    """Cases that need no data set: (group, name, prepare)."""
    return [
        ("matrix product, 2048 x 2048 x 2048", "torch", torch_product),
        ("matrix product, 2048 x 2048 x 2048", "gemm.matmul_nt", our_product),
        ("copy of 256 MiB", "numpy", copy),
        ("InfoNCE, 2048 x 2048 x 64, loss and gradient", "dense, torch", dense_info_nce),
        ("InfoNCE, 2048 x 2048 x 64, loss and gradient", "ours", blockwise_info_nce),
    ]


def cases_of(dataset):
    """The cases of a data set, or of ``machine`` or ``scale``."""
    special = {"machine": machine_cases, "scale": scale_cases}
    return special[dataset]() if dataset in special else data_cases(dataset)


def data_cases(dataset):
    """Cases of one data set: (group, name, prepare); all models on the first one alone."""
    bind = functools.partial
    cases = [
        ("loading the data set", "RecBole, without features", bind(recbole_loading, dataset)),
        ("loading the data set", "ours", bind(loading, dataset)),
    ]
    for distribution in ("uniform", "popularity"):
        group = f"{BATCH} negatives, {distribution}"
        cases += [
            (group, "RecBole", bind(sampling, dataset, RecBoleSampler, distribution)),
            (group, "ours", bind(sampling, dataset, Sampler, distribution)),
        ]
    group = "one training epoch"
    cases.append((group, "LightGCN, RecBole's own", bind(recbole_epoch, dataset)))
    for model in ("LightGCN", *(MODELS if dataset == DATASETS[0] else ("BM3", "SIGRec"))):
        if resolve_model(model).type != ModelType.TRADITIONAL:  # those take one pass
            cases.append((group, f"{model}, ours", bind(epoch, dataset, model)))
    group = "full-sort validation, LightGCN"
    for batch in (4096, 10**5, 3 * 10**5, 10**6, 3 * 10**6):
        name = "RecBole, " + ("default" if batch == 4096 else f"eval_batch_size {batch:,}")
        cases.append((group, name, bind(recbole_evaluation, dataset, batch)))
    cases.append((group, "ours", bind(evaluation, dataset)))
    group = "full-sort validation, SIGRec"
    cases += [
        (group, "without item scores", bind(scored_evaluation, dataset, 0.0)),
        (group, "with item scores", bind(scored_evaluation, dataset, 0.25)),
        (group, "with item scores, their weight chosen", bind(scored_evaluation, dataset, "auto")),
    ]
    cases += [
        ("collaborative graph", "dense, n x n", bind(dense_collaborative, dataset)),
        ("collaborative graph", "ours", bind(collaborative, dataset)),
        ("semantic graph", "dense, n x n", bind(dense_semantic, dataset)),
        ("semantic graph", "FAISS flat", bind(faiss_flat, dataset)),
        ("semantic graph", "ours", bind(semantic, dataset)),
    ]
    return cases
