"""export(): a checkpoint as a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_sigrec.bundling.make import make_bundle
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.extras import need
from recbole_sigrec.serving.bundle import check_target, write_bundle
from recbole_sigrec.tables.item_columns import item_columns
from recbole_sigrec.training import checkpoint
from recbole_sigrec.training.load import load_data_and_model
from recbole_sigrec.user_paths import user_path


def export(
    model_file: str,
    out: str | Path,
    items: str | Path | None = None,
    id_column: str | None = None,
    columns: Sequence[str] | None = None,
    histories: bool = True,
    force: bool = False,
    model: type | None = None,
    **overrides: Any,
) -> Path:
    """Write the bundle of a trained model, see :mod:`recbole_sigrec.serving.bundle`.

    Args:
        model_file: a ``.pth`` checkpoint; its data must be as it was.
        out: the folder of the bundle.
        items, id_column, columns: a table of items, its column of tokens, and the columns that are
            kept in the bundle, as titles and pictures.
        histories: whether what the users took is in it.
        force: whether an earlier bundle there is replaced.
        model: the model's class, where it is the user's own.
        overrides: config values that differ now, e.g. ``data_path``.

    Returns:
        ``out``.

    Raises:
        DataError: the data has changed, ``out`` is there already, or the table cannot be read.
        SIGRecError: the model cannot be exported.
    """
    given = [name for name in (items, id_column, columns) if name is not None]
    if given and len(given) < 3:
        raise ConfigError("items, id_column and columns are given together, or none of them")
    out = user_path(out)
    check_target(out, force=force)
    if items is not None and str(items).endswith(".parquet"):
        need("parquet", f"{items}")
    config, net, dataset, train, valid, _ = load_data_and_model(model_file, model, **overrides)
    state = checkpoint.load_model(model_file)
    metrics = {"valid": state["valid_result"], "epoch": state["epoch"]}
    about = {"metrics": metrics, "versions": state["versions"]}
    kept = {}
    if items is not None and id_column is not None and columns is not None:
        tokens = dataset.field2id_token[dataset.iid_field][1:]
        kept = item_columns(user_path(items), id_column, columns, tokens)
    bundle = make_bundle(config, net, train, valid, about, kept, histories)
    write_bundle(bundle, out, force)
    return out
