"""Ablations: which arms, on which data, and what is drawn of them."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
from helpers_data import SMALL, write_mmrec

from recbole_sigrec.cli import run_command
from recbole_sigrec.comparison import ablation
from recbole_sigrec.comparison.ablation import GRIDS, VARIANTS, ablate, variants
from recbole_sigrec.comparison.arms import Arm, Setting
from recbole_sigrec.comparison.compare import compare
from recbole_sigrec.comparison.results import ComparisonResult
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.config.keys import CORRUPTIONS
from recbole_sigrec.errors import ConfigError, DataError


@pytest.fixture
def setting(tmp_path):
    """The toy data set with two modalities."""
    write_mmrec(tmp_path / "data")
    small = {key: value for key, value in SMALL.items() if key != "checkpoint_dir"}
    return Setting("toy", (), {**small, "data_path": str(tmp_path / "data"), "threads": 1})


@pytest.fixture
def calls(monkeypatch):
    """What ``ablate`` has compared, (arms, folder, values); a label's length is its score."""
    made = []

    def compare(arms, dataset, config_file_list, values, seeds, out, jobs, cluster):
        made.append((list(arms), Path(out), values))
        Path(out).mkdir(parents=True)
        return ComparisonResult(
            dataset=dataset,
            cutoff=20,
            protocol={"topk": [20]},
            significance=[],
            **dict.fromkeys(("sizes", "split", "modalities", "fingerprint", "runs")),
            **dict.fromkeys(("by_popularity", "by_activity")),
            arms=[
                {
                    "label": arm.label,
                    "n_seeds": len(seeds),
                    "mean": {
                        "recall@20": len(arm.label) / 100,
                        "ndcg@20": len(arm.label) / 200,
                        "seconds_per_epoch": 1.0,
                    },
                    "std": {"recall@20": 0.01, "ndcg@20": None, "seconds_per_epoch": None},
                }
                for arm in arms
            ],
        )

    monkeypatch.setattr(ablation, "compare", compare)
    return made


def ablated(setting, what, seeds, models=("SIGRec",), **values):
    """An ablation on the toy data, in the folder out."""
    values = {**setting.config_dict, **values}
    return ablate(models, "toy", None, values, what, seeds=seeds, out="out")


def rows(path) -> list[dict]:
    return list(csv.DictReader(open(path, encoding="utf-8")))


# ---- variants ------------------------------------------------------------------------------------


@pytest.fixture
def scored(setting):
    """With every mechanism on."""
    return dataclasses.replace(
        setting, config_dict={**setting.config_dict, "item_score_weight": 0.2}
    )


def test_every_mechanism_is_switched_off_once(scored):
    arms = variants(scored)
    assert arms[0] == Arm("SIGRec", "SIGRec")
    assert {arm.label: arm.config_dict for arm in arms[1:]} == {
        **VARIANTS,
        "image alone": {"modalities": ["image"]},
        "text alone": {"modalities": ["text"]},
    }


def test_what_the_config_gives_already_is_left_out(scored):
    off = {
        ("cl_weight", 0): ["without contrastive loss", "fixed", "without perturbation"],
        ("semantic_graphs", False): ["without semantic graphs", "without infusion"],
        ("perturbation", "none"): ["fixed", "without perturbation"],
        ("collab_weight", 0): ["without infusion"],
        ("item_score_weight", 0): ["without item scores"],
    }
    for (key, value), gone in off.items():
        values = {**scored.config_dict, "modalities": ["text"], key: value}
        labels = {arm.label for arm in variants(Setting("toy", (), values))}
        assert labels == {"SIGRec", *VARIANTS} - {
            label for label in VARIANTS if label.startswith(tuple(gone))
        }


def test_a_modality_without_weight_is_not_alone(setting):
    values = {**setting.config_dict, "modality_weights": {"image": 0.0, "text": 1.0}}
    labels = {arm.label for arm in variants(Setting("toy", (), values))}
    assert "text alone" in labels and "image alone" not in labels


def test_some_variants_alone(scored, calls, capsys):
    values = {key: str(value) for key, value in scored.config_dict.items()}
    arguments = ["ablate", "--dataset=toy", "--variants=without infusion, text alone"]
    assert run_command(*arguments, *(f"--{key}={value}" for key, value in values.items())) == 0
    ((arms, _, _),) = calls
    assert [arm.label for arm in arms] == ["SIGRec", "without infusion", "text alone"]
    with pytest.raises(ConfigError, match=r"\[without fusion\]. Did you mean 'without infusion'"):
        ablate(dataset="toy", only=["without fusion"], config_dict=scored.config_dict)
    with pytest.raises(ConfigError, match="not for sensitivity"):
        ablate(
            dataset="toy",
            what="sensitivity",
            only=["without infusion"],
            config_dict=scored.config_dict,
        )


def test_an_arm_of_some_modalities_has_them_alone(setting):
    split = Split.load(setting.config(Arm("SIGRec", "SIGRec")))
    for part, whole in zip(split.parts_with(["text"]), split.parts):
        assert list(part.modality_features) == list(part.modality_mask) == ["text"]
        assert part.modality_features["text"] is whole.modality_features["text"]
        assert part.inter_feat is whole.inter_feat
        assert list(whole.modality_features) == ["image", "text"]
    with pytest.raises(DataError, match=r"\[audio\] is not among those .*: image, text"):
        split.parts_with(["audio"])


def test_a_modality_alone_is_the_run_of_that_modality(setting, tmp_path):
    """In a comparison with the whole model it gives what it gives by itself."""
    arms = [Arm("SIGRec", "SIGRec"), Arm("text alone", "SIGRec", (), {"modalities": ["text"]})]
    both = compare(arms, "toy", seeds=[1], out=tmp_path / "both", config_dict=setting.config_dict)
    values = {**setting.config_dict, "modalities": ["text"]}
    alone = compare(arms[1:], "toy", seeds=[1], out=tmp_path / "alone", config_dict=values)
    assert both["runs"][1]["test_result"] == alone["runs"][0]["test_result"]
    assert both["runs"][1]["test_result"] != both["runs"][0]["test_result"]
    with pytest.raises(DataError, match=r"\[audio\] is not among"):
        arm = Arm("audio alone", "SIGRec", (), {"modalities": ["audio"]})
        compare([arms[0], arm], "toy", None, setting.config_dict, [1], tmp_path / "none")
    with pytest.raises(ConfigError, match=r"\[modalities\] is \[\['text'\]\] for text alone"):
        compare([arms[1], arms[0]], "toy", None, setting.config_dict, [1], tmp_path / "none")


# ---- sensitivity ---------------------------------------------------------------------------------


def test_curves_go_through_the_model_as_it_is(setting, calls):
    table = ablated(setting, "sensitivity", (1, 2)).table
    ((arms, folder, _),) = calls
    assert folder == Path("out")
    by_label = {arm.label: arm.config_dict for arm in arms}
    assert by_label["collab_weight = 0.3"] == {"collab_weight": 0.3}
    assert "collab_weight = 0.4" not in by_label  # the default: the model as it is
    name = "cl_temperature, anchor_temperature, fuse_temperature = 0.5"
    assert set(by_label[name].values()) == {0.5}
    found = [row for row in rows("out/curves.csv") if row["metric"] == "recall@20"]
    curve = [row for row in found if row["curve"] == "α, collaborative share"]
    assert [float(row["x"]) for row in curve] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.8]
    assert float(curve[4]["mean"]) == len("SIGRec") / 100
    assert float(curve[3]["mean"]) == len("collab_weight = 0.3") / 100
    assert {row["curve"] for row in found} == set(GRIDS)
    page = Path("out/curves.html").read_text("utf-8")
    assert page.count('class="plotly-graph-div"') == len(GRIDS)
    assert "collab_weight = 0.3" in table


@pytest.mark.parametrize(
    ("given", "gone"),
    [
        ({"cl_weight": 0.0}, {"ε, strength of the noise"}),
        ({"perturbation": "none"}, {"ε, strength of the noise"}),
        ({"semantic_graphs": False}, {"α, collaborative share", "k, semantic neighbours"}),
        ({"n_semantic_layers": 0}, {"α, collaborative share", "k, semantic neighbours"}),
    ],
)
def test_what_is_off_has_no_curve(given, gone, setting, calls):
    ablated(setting, "sensitivity", (1, 2), **given)
    assert {row["curve"] for row in rows("out/curves.csv")} == set(GRIDS) - gone


# ---- robustness ----------------------------------------------------------------------------------


def test_curves_of_something_else_are_kept(setting, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/curves.csv").write_text("mine", "utf-8")
    with pytest.raises(DataError, match=r"curves\.csv.*name another folder"):
        ablated(setting, "robustness", (1,))
    assert (tmp_path / "out/curves.csv").read_text("utf-8") == "mine"


def test_each_corruption_and_share_is_a_comparison(setting, calls):
    table = ablated(setting, "robustness", (1,), ["SIGRec", "BM3"]).table
    corrupted = [
        {key: values[key] for key in CORRUPTIONS if key in values} for _, _, values in calls
    ]
    assert corrupted == [
        {},
        *({key: share} for key in CORRUPTIONS for share in ablation.SHARES),
    ]
    assert len({folder for _, folder, _ in calls}) == len(calls)
    assert {tuple(arm.label for arm in arms) for arms, _, _ in calls} == {("SIGRec", "BM3")}
    found = [row for row in rows("out/curves.csv") if row["metric"] == "ndcg@20"]
    assert len(found) == 2 * 3 * (1 + len(ablation.SHARES))
    lines = table.splitlines()
    assert sum(line.split()[:1] == ["BM3"] for line in lines) == 3
    assert "0.0150" in table  # BM3's NDCG, one seed, no deviation


def test_corrupted_content_changes_the_result(setting, tmp_path):
    arms, results = [Arm("SIGRec", "SIGRec")], {}
    for name, values in {
        "clean": {},
        "noise": {"noisy_features": 1.0},
        "edges": {"rewired_edges": 1.0},
        "missing": {"dropped_modalities": 0.6},
    }.items():
        out = tmp_path / name
        results[name] = compare(
            arms, "toy", seeds=[1], out=out, config_dict={**setting.config_dict, **values}
        )
    tested = [str(result["runs"][0]["test_result"]) for result in results.values()]
    assert len(set(tested)) == len(tested)
    told = "Corrupted content: share of the semantic edges rewired: 1."
    pages = {name: (tmp_path / name / "report.html").read_text("utf-8") for name in results}
    assert [name for name, page in pages.items() if told in page] == ["edges"]
    assert "Corrupted content" not in pages["clean"]


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_prints_the_table(setting, capsys, monkeypatch):
    monkeypatch.setattr(ablation, "VARIANTS", {"without infusion": {"collab_weight": 0.0}})
    arguments = [f"--{key}={value}" for key, value in setting.config_dict.items()]
    arguments += ["--modalities=[text]", "--dataset=toy"]
    assert run_command("ablate", "--seeds=1", *arguments) == 0
    table = capsys.readouterr().out
    assert "without infusion" in table and "SIGRec" in table
    assert Path("ablation/toy/variants/report.html").is_file()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--what=variant"], "Did you mean 'variants'?"),
        (["--models=BM3"], "for robustness alone, not for variants"),
        (["--what=robustness", "--models=BM33"], "Did you mean 'BM3'?"),
        (["--what=robustness", "--noisy_features=0.2"], "robustness sets it itself"),
        (["--seeds=0"], "seeds []"),
        (["--result_file=r.json"], "[result_file]"),
    ],
)
def test_wrong_arguments_are_told(arguments, says, setting, capsys):
    small = [f"--{key}={value}" for key, value in setting.config_dict.items()]
    assert run_command("ablate", "--dataset=toy", *small, *arguments) == 2
    assert says in capsys.readouterr().err
