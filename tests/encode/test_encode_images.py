"""``recbole-sigrec encode image``: what is read, what is missing, and timm's models."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_sigrec import extras
from recbole_sigrec.cli import run_command
from recbole_sigrec.data.encoder_files import read_encoder
from recbole_sigrec.data.encoders import Tfidf
from recbole_sigrec.encode import ImageFolder, images
from recbole_sigrec.encode.images import encode_files, encode_images, load_vision_model, read_image
from recbole_sigrec.errors import DataError, SIGRecError

Image = pytest.importorskip("PIL.Image")


def picture(path: Path, colour=(200, 10, 10), size=(40, 30), **options) -> Path:
    Image.new("RGB", size, colour).save(path, **options)
    return path


def bomb(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes that says it has width × height pixels."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def cut(path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    return path


@pytest.fixture
def spoilt(tmp_path) -> dict[str, tuple[Path | None, str]]:
    """Images that cannot be used, and why."""
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    return {
        "no path": (None, "no file"),
        "no file": (tmp_path / "none.jpg", "no file"),
        "a folder": (tmp_path / "folder.jpg", "no file"),
        "text": (tmp_path / "text.jpg", "cannot be decoded"),
        "empty": (tmp_path / "empty.png", "cannot be decoded"),
        "cut jpeg": (cut(tmp_path / "cut.jpg"), "cannot be decoded"),
        "cut png": (cut(tmp_path / "cut.png"), "cannot be decoded"),
        "large": (bomb(tmp_path / "large.png", 10_000, 10_000), "over 50,000,000 pixels"),
        "huge": (bomb(tmp_path / "huge.png", 60_000, 60_000), "over 50,000,000 pixels"),
    }


def test_spoilt_images_are_told(spoilt, recwarn):
    for path, why in spoilt.values():
        assert read_image(path) == (None, why)
    assert not recwarn


def test_images_become_upright_rgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    image, _ = read_image(picture(tmp_path / "turned.jpg", exif=exif))
    assert image.size == (30, 40)
    for mode in ("L", "P", "RGBA", "CMYK", "1", "I;16"):
        path = tmp_path / f"{mode.replace(';', '')}.tif"
        Image.new(mode, (4, 4)).save(path)
        assert read_image(path)[0].mode == "RGB"


class Colours(torch.nn.Module):
    """A vision model: the mean of each colour."""

    num_features = 7  # which need not be the width of the output: some networks have a neck

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.given = []

    def forward(self, x):
        self.given.append(len(x))
        return self.scale * x.mean(dim=(2, 3))


def colours_of(image) -> torch.Tensor:
    values = np.asarray(image.resize((8, 8)), dtype=np.float32) / 255
    return torch.from_numpy(values).permute(2, 0, 1)


@pytest.fixture
def colours(monkeypatch) -> Colours:
    """In place of a model of timm's."""
    network = Colours()
    monkeypatch.setattr(images, "load_vision_model", lambda *_: (network, colours_of))
    return network


def test_missing_images_have_zero_rows(spoilt, tmp_path):
    red = picture(tmp_path / "red.png", (255, 0, 0))
    blue = picture(tmp_path / "blue.png", (0, 0, 255))
    paths = [red, *(path for path, _ in spoilt.values()), blue]
    rows, missing = encode_files(Colours(), colours_of, paths)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows[[0, -1]], [[1, 0, 0], [0, 0, 1]])
    assert not rows[1:-1].any()
    assert missing == Counter(why for _, why in spoilt.values())
    rows, _ = encode_files(Colours(), colours_of, paths[1:4])
    assert rows.shape == (3, 3) and not rows.any()


def test_a_folder(tmp_path, colours, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(5):
        picture(folder / f"{n}.png", (51 * n, 0, 0))
    (folder / "3.png").write_bytes(b"damaged")
    given = [f"--folder={folder}", f"--out={tmp_path}/image_feat.npy", "--batch_size=2"]
    assert run_command("encode", "image", *given) == 0
    assert capsys.readouterr().out.endswith(": 5 items, 1 missing (1 cannot be decoded)\n")
    rows = np.load(tmp_path / "image_feat.npy", allow_pickle=False)
    assert rows.dtype == np.float16
    np.testing.assert_allclose(rows[:, 0], [0, 0.2, 0.4, 0, 0.8], atol=1e-3)
    assert (tmp_path / "image_ids.txt").read_text("utf-8").split() == ["0", "1", "2", "3", "4"]
    assert colours.given == [2, 1, 1]


def test_a_column_of_paths(tmp_path, colours):
    (tmp_path / "p").mkdir()
    picture(tmp_path / "p" / "a b.png", (0, 255, 0))
    absolute = picture(tmp_path / "far.png", (0, 0, 255))
    items = tmp_path / "items.csv"
    inline = "data:image/png;base64;" + "A" * 300  # too long for a file's name
    rows = f"x,p/a b.png\ny,\nz,{absolute}\ninline,{inline}\n"
    items.write_text("item,picture\n" + rows, encoding="utf-8")
    given = [f"--items={items}", "--id_column=item", "--path_column=picture"]
    assert run_command("encode", "image", *given, f"--out={tmp_path}/image_feat.npy") == 0
    rows = np.load(tmp_path / "image_feat.npy", allow_pickle=False)
    np.testing.assert_array_equal(rows, [[0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
    assert (tmp_path / "image_ids.txt").read_text("utf-8").split() == ["x", "y", "z", "inline"]


def test_a_changed_image_is_encoded_again(tmp_path, colours):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "abc":
        picture(folder / f"{name}.png", (255, 0, 0))
    forward = colours.forward

    def killed(x):
        if len(colours.given) == 2:
            raise KeyboardInterrupt
        return forward(x)

    colours.forward = killed
    out = tmp_path / "image_feat.npy"
    with pytest.raises(KeyboardInterrupt):
        encode_images(ImageFolder(folder), out, batch_size=1)
    picture(folder / "a.png", (0, 0, 255), size=(50, 50))
    colours.given, colours.forward = [], forward
    encode_images(ImageFolder(folder), out, batch_size=1)
    assert len(colours.given) == 3
    np.testing.assert_array_equal(np.load(out, allow_pickle=False)[0], [0, 0, 1])


def test_an_encoder_is_used_again(tmp_path, colours, monkeypatch, capsys):
    for folder, colour in (("old", (255, 0, 0)), ("new", (0, 0, 255))):
        (tmp_path / folder).mkdir()
        picture(tmp_path / folder / f"{folder}.png", colour)
    given = ["--folder=old", "--out=image_feat.npy", "--model=one", "--weights=w.pth"]
    assert run_command("encode", "image", *given) == 0
    saved = read_encoder(tmp_path / "image_encoder.safetensors", "timm").settings
    assert (saved["model"], saved["weights_file"]) == ("one", str(tmp_path / "w.pth"))
    loaded = []

    def load(name, weights):
        loaded.append((name, weights and str(weights)))
        return colours, colours_of

    monkeypatch.setattr(images, "load_vision_model", load)
    for n, more in enumerate(([], ["--model=one"], ["--weights=moved.pth"], ["--model=new"])):
        out = f"--out={n}_feat.npy"
        given = "--folder=new", out, "--like=image_feat.npy", *more
        assert run_command("encode", "image", *given) == 0
        assert np.load(f"{n}_feat.npy", allow_pickle=False).tolist() == [[0, 0, 1]]
    saved = str(tmp_path / "w.pth")
    assert loaded == [("one", saved), ("one", None), ("one", "moved.pth"), ("new", None)]
    again = encode_images(ImageFolder(tmp_path / "old"), Path("a_feat.npy"), like="image_feat.npy")
    assert not again and np.load("a_feat.npy", allow_pickle=False).tolist() == [[1, 0, 0]]
    capsys.readouterr()
    given = ["--folder=new", "--out=b_feat.npy", "--like=image_encoder.safetensors"]
    assert run_command("encode", "image", *given, "--model=two") == 2
    assert "from model [one], not [two]; leave out --model" in capsys.readouterr().err
    colours.scale.data += 1e-3
    assert run_command("encode", "image", *given) == 2
    assert "is not the one of image_encoder.safetensors" in capsys.readouterr().err
    assert not Path("b_feat.npy").exists()


def test_the_encoder_of_texts_is_none_of_images(tmp_path, colours):
    picture(tmp_path / "a.png")
    Tfidf.learn([["word"]], 4).save(tmp_path / "text_encoder.safetensors")
    with pytest.raises(DataError, match=r"kind \[tfidf\]; name one of kind timm"):
        encode_images(ImageFolder(tmp_path), Path("a_feat.npy"), like=tmp_path / "text_feat.npy")


def test_without_timm(tmp_path, monkeypatch, capsys):
    picture(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "timm", None)
    given = [f"--folder={tmp_path}", f"--out={tmp_path}/image_feat.npy"]
    assert run_command("encode", "image", *given) == 2
    assert 'pip install "recbole_sigrec[image]"' in capsys.readouterr().err
    load = extras.import_module

    def mismatched(name, *args):
        if name == "timm":
            raise RuntimeError("operator torchvision::nms does not exist")
        return load(name, *args)

    monkeypatch.setattr(extras, "import_module", mismatched)
    with pytest.raises(SIGRecError, match="install the torchvision that belongs to torch"):
        load_vision_model("resnet18")


@pytest.fixture(scope="module")
def timm():
    try:
        return pytest.importorskip("timm")
    except RuntimeError as error:
        pytest.skip(str(error))


NAME = "test_resnet.r160_in1k"
"""timm's smallest model, which it has for tests."""


@pytest.fixture(scope="module")
def vision_model(timm, tmp_path_factory):
    """(a local folder, a file of weights) with one model of random weights and a classifier."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    network = timm.create_model(NAME)
    timm.models.save_for_hf(network, folder / "whole")
    torch.save(network.state_dict(), folder / "weights.pth")
    return folder / "whole", folder / "weights.pth"


def test_timm_from_a_folder_and_from_a_file(vision_model, timm, tmp_path):
    folder, weights = vision_model
    red = picture(tmp_path / "red.png")
    network, transform = load_vision_model(str(folder))
    rows, _ = encode_files(network, transform, [red, None])
    assert rows.shape == (2, network.num_features) and rows[0].any() and not rows[1].any()
    reference = timm.create_model(NAME, num_classes=0, checkpoint_path=None)
    state = {k: v for k, v in torch.load(weights).items() if not k.startswith("fc.")}
    reference.load_state_dict(state)
    with torch.inference_mode():
        expected = reference.eval()(transform(Image.open(red))[None]).numpy()
    np.testing.assert_allclose(rows[:1], expected, rtol=1e-4, atol=1e-5)
    network, transform = load_vision_model(NAME, weights)
    np.testing.assert_array_equal(encode_files(network, transform, [red, None])[0], rows)


def test_timm_through_the_command(vision_model, tmp_path):
    for n in range(3):
        picture(tmp_path / f"{n}.jpg", (80 * n, 0, 99))
    folder, weights = vision_model
    out = tmp_path / "image_feat.npy"
    given = [f"--folder={tmp_path}", f"--out={out}", f"--model={NAME}", f"--weights={weights}"]
    assert run_command("encode", "image", *given) == 0
    rows = np.load(out, allow_pickle=False)
    again = tmp_path / "again_feat.npy"
    given = [f"--folder={tmp_path}", f"--out={again}", f"--model={folder}", "--batch_size=1"]
    assert run_command("encode", "image", *given) == 0
    np.testing.assert_allclose(np.load(again, allow_pickle=False), rows, atol=1e-2)


def test_timm_is_used_again(vision_model, timm, tmp_path):
    folder, weights = vision_model
    picture(tmp_path / "red.png")
    source = ImageFolder(tmp_path)
    encode_images(source, Path("image_feat.npy"), NAME, weights)
    rows = np.load("image_feat.npy", allow_pickle=False)
    saved = read_encoder(Path("image_encoder.safetensors"), "timm").settings
    assert saved["preprocessing"]["input_size"] == [3, 160, 160]
    assert saved["version"] == timm.__version__
    for n, model in enumerate((None, str(folder))):
        encode_images(source, Path(f"{n}_feat.npy"), model, like="image_feat.npy")
        np.testing.assert_array_equal(np.load(f"{n}_feat.npy", allow_pickle=False), rows)
    other = json.loads((folder / "config.json").read_text("utf-8"))
    other["pretrained_cfg"]["mean"] = [0.1, 0.1, 0.1]
    shutil.copytree(folder, "other")
    Path("other", "config.json").write_text(json.dumps(other), "utf-8")
    with pytest.raises(DataError, match=r"model \[.*/other\], .*: preprocessing differ"):
        encode_images(source, Path("b_feat.npy"), "other", like="image_feat.npy")


@pytest.mark.parametrize(
    "name, weights, message",
    [
        ("no_such_model", None, "cannot be loaded: Unknown model"),
        ("empty", None, "cannot be loaded"),
        (NAME, "none.pth", "there is no file"),
        (NAME, "hostile.pth", "cannot be loaded"),
    ],
)
def test_models_that_cannot_be_loaded(timm, tmp_path, monkeypatch, name, weights, message):
    from helpers_data import Payload

    (tmp_path / "empty").mkdir()
    torch.save({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "hostile.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SIGRecError, match=message):
        load_vision_model(name, weights and Path(weights))
    assert not (tmp_path / "ran").exists()
