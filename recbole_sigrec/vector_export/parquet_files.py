"""``--to parquet``: the vectors as two tables, for any system that reads Parquet."""

from __future__ import annotations

import json

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.extras import need
from recbole_sigrec.user_paths import user_path
from recbole_sigrec.vector_export.existing import export_folder
from recbole_sigrec.vector_export.vector_form import VectorForm

RANKING = (
    "items.parquet: graph_indices and graph_values are the item's graph weights and the rows of "
    "items (from 0) that they stand at. users.parquet: history and seen are rows of items. Score "
    "all items by the formula, leave out those of seen, and take the best; that is exact."
)


def write(form: VectorForm, out: str, force: bool) -> None:
    """Write the folder ``out``: ``items.parquet``, ``users.parquet`` and ``manifest.json``.

    Raises:
        DataError: see :func:`recbole_sigrec.vector_export.existing.export_folder`.
    """
    arrow = need("parquet", "--to parquet")
    from pyarrow import parquet

    def vectors(rows: np.ndarray) -> object:
        return arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), rows.shape[1])

    def lists(matrix: sp.csr_matrix | sp.csc_matrix, values: np.ndarray) -> object:
        return arrow.ListArray.from_arrays(arrow.array(matrix.indptr, arrow.int32()), values)

    columns = [json.dumps(row, ensure_ascii=False) for row in form.columns]
    items = {
        "item": arrow.array(form.items, arrow.string()),
        "vector": vectors(form.item_vectors),
        "graph_indices": lists(form.graph, form.graph.indices.astype(np.int32)),
        "graph_values": lists(form.graph, form.graph.data),
        "columns": arrow.array(columns, arrow.string()),
    }
    users = {
        "user": arrow.array(form.users, arrow.string()),
        "vector": vectors(form.user_vectors),
        "factor": arrow.array(form.factors),
        "history": lists(form.histories, form.histories.indices.astype(np.int32)),
        "seen": lists(form.seen, form.seen.indices.astype(np.int32)),
    }
    with export_folder(user_path(out), form.manifest("parquet", RANKING), force) as folder:
        for name, table in (("items", items), ("users", users)):
            parquet.write_table(arrow.table(table), folder / f"{name}.parquet")
