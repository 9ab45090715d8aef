"""Feature files of kinds, types and sizes that are not read: each is told, nothing is run."""

from __future__ import annotations

import pickle
import re
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers_data import Payload

from recbole_sigrec.data import matrix_files
from recbole_sigrec.data.matrix_files import find_modalities, read_features
from recbole_sigrec.data.parts import create_dataset
from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.importers import import_data

FOREIGN = {
    ".pt": r"is torch's, which unpickles: .* torch\.load\('a_feat\.pt', weights_only=True\)",
    ".pth": r"is torch's",
    ".pkl": r"is a pickle, which can run any code .* if you trust it",
    ".csv": r"is a table; .* numpy\.save\('a_feat\.npy', rows\.astype\('float32'\)\)",
    ".h5": r"is of another library",
    ".NPY": r"write its suffix in small letters, \.npy",
}


@pytest.mark.parametrize("suffix", FOREIGN)
def test_feature_files_of_other_kinds_are_told(tmp_path, suffix, caplog):
    path = tmp_path / f"a_feat{suffix}"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "run")))
    says = f"a_feat{suffix}.*{FOREIGN[suffix]}"
    for read in (lambda: read_features(path), lambda: find_modalities(tmp_path, ["a"])):
        with pytest.raises(DataError, match=says):
            read()
    if suffix in (".csv", ".h5"):  # it may hold something else
        assert find_modalities(tmp_path) == {}
        assert re.search(f"a_feat{suffix} is not read as a modality: .*{says}", caplog.text)
    else:
        with pytest.raises(DataError, match=f"{says}.* Or move it away$"):
            find_modalities(tmp_path)
    caplog.clear()
    assert not (tmp_path / "run").exists()
    assert find_modalities(tmp_path, ["b"]) == {}  # it is not used
    assert not caplog.text
    (tmp_path / "a_feat.safetensors").touch()
    assert list(find_modalities(tmp_path)) == ["a"]  # there is one that is read
    (tmp_path / "b_feat.md5").touch()
    assert list(find_modalities(tmp_path)) == ["a"]


def test_a_modality_in_a_file_that_is_not_read_is_no_missing_one(copied, make_config):
    (copied / "text_feat.npy").rename(copied / "text_feat.pt")
    with pytest.raises(DataError, match=r"text_feat\.pt is torch's.*`modalities`"):
        create_dataset(make_config("SIGRec", copied))
    dataset = create_dataset(make_config("SIGRec", copied, modalities=["image"]))
    assert list(dataset.modality_features) == ["image"]


def test_a_pickle_is_refused_with_a_table_beside_it(tmp_path):
    for suffix in (".csv", ".pkl", ".txt"):
        (tmp_path / f"a_feat{suffix}").touch()
    with pytest.raises(DataError, match=r"a_feat\.pkl is a pickle"):
        find_modalities(tmp_path)


def test_a_table_beside_the_modalities_is_no_modality(copied, make_config):
    (copied / "item_feat.csv").write_text("item,price\n0,1\n", "utf-8")
    dataset = create_dataset(make_config("SIGRec", copied))
    assert list(dataset.modality_features) == ["image", "text"]
    assert import_data(copied, "made", "mmrec", "out")["modalities"].keys() == {"image", "text"}
    with pytest.raises(DataError, match=r"item_feat\.csv is a table.*Or move it away, or name"):
        create_dataset(make_config("SIGRec", copied, modalities=["image", "item"]))


def test_bfloat16_is_read(tmp_path):
    rows = torch.randn(5, 3).bfloat16()
    path = tmp_path / "a_feat.safetensors"
    safetensors.torch.save_file({"features": rows}, path)
    found = read_features(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows.float().numpy())
    safetensors.torch.save_file({"features": rows.to(torch.float8_e4m3fn)}, path)
    with pytest.raises(DataError, match=r"a_feat\.safetensors: .*type F8_E4M3, which is not"):
        read_features(path)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (1e300, "numbers over 1e\\+30, too large"),
        (-2e30, "numbers over 1e\\+30, too large"),
        (1e-300, "numbers that float32 rounds to zero"),
        (np.inf, "NaN or infinite values"),
    ],
)
def test_numbers_that_float32_cannot_use(tmp_path, value, says):
    rows = np.ones((6, 3))
    rows[[2, 4]] = value
    np.save(tmp_path / "a_feat.npy", rows)
    with pytest.raises(DataError, match=rf"a_feat\.npy has {says}.* in row\(s\) 2, 4 \(counted"):
        read_features(tmp_path / "a_feat.npy")
    rows[[2, 4]] = [1e30, 1e-300, 0]  # not all of them are lost
    np.save(tmp_path / "a_feat.npy", rows)
    np.testing.assert_array_equal(read_features(tmp_path / "a_feat.npy"), rows)


def test_what_unpacks_to_more_than_is_held_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a_feat.npz"
    np.savez_compressed(path, np.zeros((1000, 1000), np.float32))
    assert path.stat().st_size < 10_000
    assert read_features(path).shape == (1000, 1000)
    monkeypatch.setattr(matrix_files, "MOST_UNPACKED", 4_000_000)
    with pytest.raises(DataError, match=r"npz unpacks to 4,000,128 bytes.*at most 4,000,000"):
        read_features(path)


def test_a_header_of_more_rows_than_there_are_asks_for_no_memory(tmp_path):
    path = tmp_path / "a_feat.npy"
    np.save(path, np.ones((20, 6), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(20, 6), }".ljust(20), b"(20, 1099511627776)}".ljust(20)))
    assert len(path.read_bytes()) == len(whole)
    with pytest.raises(DataError, match="mmap length is greater than file size"):
        read_features(path)


def test_an_archive_of_something_else_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a_feat.npz", "w") as file:
        file.writestr("readme.txt", "no array")
    with pytest.raises(DataError, match=r"a_feat\.npz holds an array of shape \(\) and type"):
        read_features(tmp_path / "a_feat.npz")
