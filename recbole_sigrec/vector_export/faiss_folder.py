"""``--to faiss``: an index of the item vectors, and what re-scores its candidates exactly."""

from __future__ import annotations

import scipy.sparse as sp

from recbole_sigrec.extras import need
from recbole_sigrec.files import write_json
from recbole_sigrec.tensor_files import csr_arrays
from recbole_sigrec.user_paths import user_path
from recbole_sigrec.vector_export.existing import export_folder
from recbole_sigrec.vector_export.vector_form import VectorForm

RANKING = (
    "FaissIndex.load(folder).search(users, k) of recbole_sigrec.vector_export.faiss_index: it "
    "searches items.faiss (IndexFlatIP, exact), scores all items that the graph reaches, and "
    "filters what is seen out; that is exact."
)


def write(form: VectorForm, out: str, force: bool) -> None:
    """Write the folder ``out``, see :class:`recbole_sigrec.vector_export.faiss_index.FaissIndex`.

    Raises:
        DataError: see :func:`recbole_sigrec.vector_export.existing.export_folder`.
    """
    faiss = need("faiss", "--to faiss")
    from safetensors.numpy import save_file

    index = faiss.IndexFlatIP(form.item_vectors.shape[1])
    index.add(form.item_vectors)
    arrays = {"users.vectors": form.user_vectors}
    for name in ("graph", "graph_queries", "seen"):
        arrays |= csr_arrays(name, sp.csr_matrix(getattr(form, name)))
    with export_folder(user_path(out), form.manifest("faiss", RANKING), force) as folder:
        faiss.write_index(index, str(folder / "items.faiss"))
        save_file(arrays, folder / "arrays.safetensors")
        write_json(form.users, folder / "users.json")
        write_json(form.items, folder / "items.json")
