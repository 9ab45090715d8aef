"""``--to onnx``: one file that takes a user's token and gives the best items, with ONNX Runtime."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.errors import DataError
from recbole_sigrec.extras import need
from recbole_sigrec.files import written_whole
from recbole_sigrec.user_paths import user_path
from recbole_sigrec.vector_export.existing import check_export
from recbole_sigrec.vector_export.vector_form import VectorForm

RANKING = (
    "Inputs: user, a token, and k. Outputs: the k best items that the user has not seen (fewer "
    "where there are fewer) and their scores, with all of the formula; that is exact. An unknown "
    "user is an error."
)

GRAPH = """\
<ir_version: 8, opset_import: ["": 18, "ai.onnx.ml": 3]>
recommend (string[1] user, int64[1] k) => (string[m] item, float[m] score)
{
  row = ai.onnx.ml.LabelEncoder (user)
  next = Add (row, one)

  vector = Gather (user_vectors, row)
  products = Gemm <transB = 1> (vector, item_vectors)
  dense = Reshape (products, minus_one)

  # The history, and the row of B of each of its items: where it begins and how long it is.
  history_start = Gather (histories_indptr, row)
  history_end = Gather (histories_indptr, next)
  history_32 = Slice (histories_indices, history_start, history_end)
  history = Cast <to = 7> (history_32)
  history_next = Add (history, one)
  start = Gather (graph_indptr, history)
  end = Gather (graph_indptr, history_next)
  length = Sub (end, start)

  # These rows one after another: of each entry, which row it is of, and where it is in B.
  total = ReduceSum (length)
  begin = CumSum <exclusive = 1> (length, zero)
  length_shape = Shape (length)
  ones = Expand (one, length_shape)
  marks_shape = Add (total, one)
  no_marks = ConstantOfShape <value = int64[1] {0}> (marks_shape)
  marks = ScatterElements <reduction = "add"> (no_marks, begin, ones)
  counts = CumSum (marks, zero)
  counted = Slice (counts, zeros, total)
  owner = Sub (counted, one)
  total_scalar = Squeeze (total)
  zero_scalar = Squeeze (zeros)
  one_scalar = Squeeze (one)
  numbers = Range (zero_scalar, total_scalar, one_scalar)
  shift = Sub (start, begin)
  shifts = Gather (shift, owner)
  place = Add (numbers, shifts)

  factor = Gather (factors, row)
  columns = Gather (graph_indices, place)
  weights = Gather (graph_data, place)
  addends = Mul (weights, factor)
  scores = ScatterElements <reduction = "add"> (dense, columns, addends)

  seen_start = Gather (seen_indptr, row)
  seen_end = Gather (seen_indptr, next)
  seen = Slice (seen_indices, seen_start, seen_end)
  n_seen = Shape (seen)
  never = Expand (minus_infinity, n_seen)
  of_new = ScatterElements (scores, seen, never)
  n_new = Sub (n_items, n_seen)
  at_most = Min (k, n_new)
  score, best = TopK (of_new, at_most)
  item = Gather (items, best)
}"""


def write(form: VectorForm, out: str, force: bool) -> None:
    """Write the file ``out``, whole or not at all.

    Raises:
        DataError: it is there already, does not end in ``.onnx``, its folder is not there, or it
            would have more than ONNX's 2 GB.
    """
    onnx: Any = need("onnx", "--to onnx")
    path = user_path(out)
    if path.suffix != ".onnx":
        raise DataError(f"{path}: name a file that ends in .onnx")
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder [{path.parent}]")
    check_export(str(path), path.exists(), path.is_file(), force)
    arrays = _arrays(form)
    size = sum(array.nbytes for array in arrays.values())
    if size > 2e9:
        raise DataError(
            f"the model's arrays have {size / 1e9:.1f} GB, and an ONNX file holds 2; use --to faiss"
        )
    from onnx import helper, numpy_helper, parser

    model = parser.parse_model(GRAPH)
    arrays["items"] = np.array(form.items, dtype=object)
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model.graph.initializer.extend(tensors)
    rows = list(range(len(form.users)))
    encoding = {"keys_strings": form.users, "values_int64s": rows, "default_int64": len(rows)}
    encoder = model.graph.node[0]  # an unknown user's row is past the last, which Gather refuses
    encoder.attribute.extend(helper.make_attribute(*pair) for pair in encoding.items())
    about = {name: json.dumps(v) for name, v in form.manifest("onnx", RANKING).items()}
    helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    with written_whole(path) as file:
        file.write(model.SerializeToString())


def _arrays(form: VectorForm) -> dict[str, np.ndarray]:
    """The values that the graph names, but for the tokens."""
    arrays = {
        "one": np.array([1]),
        "minus_one": np.array([-1]),
        "zeros": np.array([0]),
        "zero": np.array(0),
        "n_items": np.array([len(form.items)]),
        "minus_infinity": np.array([-np.inf], dtype=np.float32),
        "user_vectors": form.user_vectors,
        "item_vectors": form.item_vectors,
        "factors": form.factors,
        "graph_data": sp.csr_matrix(form.graph).data,
    }
    for name in ("graph", "histories", "seen"):
        csr = sp.csr_matrix(getattr(form, name))
        arrays[f"{name}_indptr"] = csr.indptr.astype(np.int64)
        arrays[f"{name}_indices"] = csr.indices.astype(np.int32)
    return arrays
