from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vggfeat.errors import RecipeError, VggfeatError
from vggfeat.recipe import Described, Draft, Machine, Paper, Recipe, fingerprint

VOC: dict[str, Any] = {"dataset": "voc2007", "models": ["vgg16"]}
PAPER = {"table": 11, "row": "VGG Net-D (16)", "column": "VOC-2007", "value": 89.3}

# A valid value of every field that is not the one of VOC.
CHANGED: dict[str, Any] = {
    "dataset": "voc:elsewhere",
    "models": ["vgg19"],
    "weights": ["torchvision"],
    "profile": "torchvision",
    "scales": [256, 384],
    "mirror": False,
    "resampler": "torch",
    "precision": "bfloat16",
    "interpolation": "bicubic",
    "tap": "fc6",
    "pooling": "floor",
    "regions": ["box"],
    "aggregate": "stack",
    "normalise": "before",
    "loss": "squared_hinge",
    "grid": [0.5, 1.0],
    "choose_c": "per-class",
    "difficult": "negative",
    "class_weight": "balanced",
    "folds": 5,
    "pool": True,
    "shots": [1, 4],
    "draws": 3,
    "measure": "voc2010",
    "seed": 1,
    "limit": 5,
    "name": "mine",
    "paper": PAPER,
    "ablation": {"base": "voc2007-vgg16", "question": "loss", "answer": "squared_hinge"},
}


NEEDED: dict[str, dict[str, Any]] = {  # what makes sense of a field
    "regions": {"dataset": "voc2012-action"},
    "pool": {"folds": 5},
    "draws": {"shots": [1, 4]},
}


def build(**values: object) -> Recipe:
    return Recipe.build({**VOC, **values}, "the command line")


def complaint(**values: object) -> str:
    with pytest.raises(RecipeError) as caught:
        build(**values)
    assert isinstance(caught.value, VggfeatError)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


# --- defaults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["voc2007", "voc:some/tree"])
def test_voc_averages_five_scales(dataset: str) -> None:
    recipe = build(dataset=dataset)
    assert recipe.scales == (256, 384, 512, 640, 768)
    assert recipe.aggregate == "average"
    assert recipe.measure == "voc2007"


def test_a_folder_stacks_three_scales() -> None:
    recipe = build(dataset="folder:some/voc")
    assert recipe.scales == (256, 384, 512)
    assert recipe.aggregate == "stack"
    assert recipe.measure == "mean_class_recall"


def test_the_other_defaults_are_those_of_the_contract() -> None:
    recipe = build()
    assert recipe.models == ("vgg16",)
    assert recipe.weights == ("oxford",)
    assert recipe.profile is None
    assert recipe.mirror is True
    assert (recipe.interpolation, recipe.tap, recipe.precision) == ("bilinear", ("fc7",), "float32")
    assert (recipe.loss, recipe.choose_c, recipe.difficult) == ("hinge", "shared", "ignore")
    assert recipe.grid is None
    assert recipe.seed == 0
    assert recipe.limit is None


@pytest.mark.parametrize("dataset", ["voc2007", "folder:x"])
def test_what_is_given_wins_over_the_data_set_s_own(dataset: str) -> None:
    given = {"scales": (224, 300), "aggregate": "max", "measure": "sklearn"}
    recipe = build(dataset=dataset, **given)
    assert {key: getattr(recipe, key) for key in given} == given


@pytest.mark.parametrize("written", ["folder:a/photos", "folder:a/photos/", "folder:./a//photos"])
def test_one_folder_is_one_data_set_however_its_path_is_written(written: str) -> None:
    assert build(dataset=written).dataset == "folder:a/photos"


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        build().seed = 3  # type: ignore[misc]  # on purpose


def test_persons_are_described_by_image_and_box_everything_else_by_the_image() -> None:
    assert build(dataset="voc2012-action-val").regions == ("image", "box")
    assert build(dataset="voc2012-val").regions == build().regions == ("image",)
    recipe = build(dataset="voc2012-action", models=["vgg16", "vgg19"])
    assert recipe.described == (
        Described("vgg16", "image", "fc7"),
        Described("vgg16", "box", "fc7"),
        Described("vgg19", "image", "fc7"),
        Described("vgg19", "box", "fc7"),
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"regions": ["box"]}, "whole images, without boxes"),
        ({"regions": [], "dataset": "voc2012-action"}, "Expected image, box, or both once"),
        ({"regions": ["box", "box"], "dataset": "voc2012-action"}, "or both once"),
        ({"regions": ["boxes"], "dataset": "voc2012-action"}, "Did you mean 'box'"),
        ({"ablation": {"base": "x", "question": "y", "answr": "z"}}, "Did you mean 'answer'"),
    ],
)
def test_regions_and_ablations_are_checked(values: dict[str, object], message: str) -> None:
    assert message in complaint(**values)


@pytest.mark.parametrize("dataset", ["voc2007", "voc2012-action", "voc:x"])
def test_what_has_no_class_recall_is_known_before_anything_is_fetched(dataset: str) -> None:
    message = complaint(dataset=dataset, measure="mean_class_recall")
    assert message.startswith(f"measure = 'mean_class_recall' on '{dataset}'. Its images have any")


def test_a_draft_may_leave_open_what_a_recipe_has() -> None:
    draft = Draft.model_validate({"dataset": "voc2012-action", "models": ("vgg16",)})
    own = {name for name in Recipe.model_fields if Recipe.model_fields[name].is_required()}
    assert own == {"dataset", "models", "scales", "regions", "aggregate", "measure"}
    assert {name for name in own if getattr(draft, name) is None} == own - {"dataset", "models"}
    completed = draft.completed()
    assert {k for k, v in completed.items() if v != getattr(draft, k)} == own - {
        "dataset",
        "models",
    }
    assert Recipe.model_validate(completed) == build(dataset="voc2012-action")
    with pytest.raises(ValidationError, match="valid tuple"):
        Recipe.model_validate({**completed, "scales": None})


# --- identity -----------------------------------------------------------------------------------


def test_every_field_has_a_changed_value_here() -> None:
    assert set(CHANGED) == set(Recipe.model_fields)


@pytest.mark.parametrize("field", sorted(set(CHANGED) - {"name", "paper", "ablation"}))
def test_every_field_enters_the_fingerprint(field: str) -> None:
    base = NEEDED.get(field, {})
    first, second = build(**base).canonical(), build(**base | {field: CHANGED[field]}).canonical()
    assert {key for key in second if first.get(key) != second[key]} == {field}
    assert fingerprint(first) != fingerprint(second)


@pytest.mark.parametrize("field", ["name", "paper", "ablation"])
def test_the_name_and_the_published_figure_do_not(field: str) -> None:
    recipe = build(**{field: CHANGED[field]})
    assert getattr(recipe, field) is not None
    assert recipe.canonical() == build().canonical()


def test_a_default_and_the_same_value_given_are_one_experiment() -> None:
    given = build(scales=[256, 384, 512, 640, 768], measure="voc2007", aggregate="average", seed=0)
    assert given == build()
    assert given.canonical() == build().canonical()


def test_younger_fields_leave_no_trace_at_their_default() -> None:
    """Else a result would have another name and identity than the same one of before."""
    younger = {"class_weight", "folds", "pool", "shots", "draws"}
    given = build(class_weight="none", pool=False, draws=5)
    assert given.canonical() == build().canonical()
    assert not younger & build().model_dump(mode="json").keys()
    assert build(shots=[4, 1, 4]).canonical()["shots"] == [1, 4]
    assert "draws" not in build(shots=[4]).canonical()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"folds": 5, "shots": [1]}, "folds = 5 and shots = [1]"),
        ({"pool": True}, "pool = true without folds"),
        ({"draws": 3}, "draws = 3 without shots"),
        ({"folds": 1}, "folds = 1"),
        ({"shots": [0]}, "Shots (0,)"),
        ({"shots": []}, "Shots ()"),
        ({"class_weight": "balance"}, "Did you mean 'balanced'?"),
    ],
)
def test_protocols_that_make_no_sense_are_refused(values: dict[str, Any], said: str) -> None:
    assert said in complaint(**values)


def test_what_is_repeated_has_a_name() -> None:
    assert [build(**one).repeats for one in ({}, {"folds": 5}, {"shots": [1]})] == [
        *("splits", "folds", "draws")
    ]


def test_the_order_of_models_and_of_scales_is_part_of_the_experiment() -> None:
    """Stacking follows it."""
    first, second = (build(models=m).canonical() for m in (["vgg16", "vgg19"], ["vgg19", "vgg16"]))
    assert fingerprint(first) != fingerprint(second)
    first, second = (build(scales=s).canonical() for s in ([256, 384], [384, 256]))
    assert fingerprint(first) != fingerprint(second)


def test_the_order_of_the_grid_is_not() -> None:
    recipe = build(grid=[4, 0.5, 1.0, 4])
    assert recipe.grid == (0.5, 1.0, 4.0)
    assert recipe.canonical() == build(grid=[0.5, 1, 4]).canonical()


def test_the_canonical_form_is_json_that_makes_the_same_recipe() -> None:
    recipe = build(grid=[1.0], models=["vgg16", "vgg19"], name="mine")
    record = json.loads(json.dumps(recipe.canonical()))
    assert record == recipe.canonical()
    assert Recipe.build(record, "a result").canonical() == recipe.canonical()


def test_the_fingerprint_is_the_sha256_of_canonical_json() -> None:
    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":"\\u00e9"}').hexdigest()
    assert fingerprint({"b": "é", "a": (1, 2.5, None)}) == expected
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": float("nan")})


# As of version 0.1.0: file names, and fingerprints of results with weights of sha256 0…0.
GOLDEN: tuple[tuple[dict[str, Any], str, str], ...] = (
    (
        {"dataset": "voc2007", "models": ["vgg16"]},
        "voc2007-vgg16-91dec002",
        "9b7cd20a854f44d74e5785f559043a3b6d31b7f1395cf599aba3dbd6fa6e22be",
    ),
    (
        {
            "dataset": "voc2012",
            "models": ["vgg19"],
            "weights": ["torchvision"],
            "scales": [256, 384],
        },
        "voc2012-vgg19-6c21b02c",
        "ecc1df6e06019704fbd9198d1787ca5e4ddf08dd0fb669d6894efb291815a867",
    ),
    (
        {"dataset": "voc2012-val", "models": ["vgg16"]},
        "voc2012-val-vgg16-d397b1de",
        "ce0bd5d9b45a54b832059783c59dbd56ce29af2637303a5d8f6a2024c925bbf9",
    ),
    (
        {"dataset": "voc2012-action", "models": ["vgg16", "vgg19"]},
        "voc2012-action-vgg16-vgg19-da517fbf",
        "2d4e65a12cde3923fc3d33dee891ecac0dcbc252b19e4a20a7dd2e7431ecc6b2",
    ),
    (
        {
            "dataset": "voc2012-action-val",
            "models": ["vgg16"],
            "regions": ["image"],
            "loss": "squared_hinge",
        },
        "voc2012-action-val-vgg16-3a9d8798",
        "d0ee4a254f12d228ea41b04a03f3267a6e45a7da76833c22a30df4dcddba44c5",
    ),
    (
        {
            "dataset": "caltech101",
            "models": ["vgg16-thin"],
            "weights": ["random:0"],
            "grid": [0.5, 1.0],
        },
        "caltech101-vgg16-thin-d07ee160",
        "0132c86d4c9fa0088bf1be008b79209848e0d65043145eeab001b435ced40166",
    ),
    (
        {"dataset": "caltech256", "models": ["vgg16", "vgg19"], "aggregate": "max", "limit": 5},
        "caltech256-vgg16-vgg19-ad3d6479",
        "30d52937cff5ea08698c3d456863fd932b19e54f2191ef24b5b0f1213c0f9d0f",
    ),
    (
        {"dataset": "voc:some/tree", "models": ["vgg16"], "difficult": "negative"},
        "voc-tree-097aaf-vgg16-e83ef6b5",
        "38ac0de5a15006d76d0a74fa9ade32188c1ea004950c4f3e3f6cd04f53fe9790",
    ),
    (
        {"dataset": "folder:photos", "models": ["vgg16"], "mirror": False, "tap": "pool5"},
        "folder-photos-9a9ffc-vgg16-e323cdfd",
        "6008e3c9e8067440dbfa3013f960464d228b243d8057d2edc6edf336ff378e6e",
    ),
    (
        {"dataset": "csv:photos.csv", "models": ["vgg16"], "seed": 3, "precision": "bfloat16"},
        "csv-photos-csv-655386-vgg16-d4951773",
        "254dd57b8b8ace2027ff698d55113b2b6af3c6e5b374f6614761722e2c58273f",
    ),
)


@pytest.mark.parametrize(("values", "file_name", "result"), GOLDEN)
def test_what_identifies_an_experiment_is_the_same_for_ever(
    values: dict[str, Any], file_name: str, result: str
) -> None:
    recipe = Recipe.build(values, "a test")
    assert recipe.file_name() == file_name
    assert fingerprint({"experiment": [recipe.canonical(), ["0" * 64]]}) == result


FIELDS = (
    *("dataset", "models", "weights", "profile", "scales", "mirror", "interpolation", "resampler"),
    *("tap", "pooling", "regions", "precision", "aggregate", "normalise", "loss", "grid"),
    *("choose_c", "difficult", "measure", "seed", "limit", "name", "paper", "ablation"),
)


def test_the_fields_stand_in_a_result_in_their_order() -> None:
    assert list(build().model_dump()) == list(FIELDS)


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        ({}, r"voc2007-vgg16-[0-9a-f]{8}"),
        ({"models": ["vgg16", "vgg19"]}, r"voc2007-vgg16-vgg19-[0-9a-f]{8}"),
        ({"dataset": "folder:/My Cats"}, r"folder-my-cats-[0-9a-f]{6}-vgg16-[0-9a-f]{8}"),
        ({"name": "Table-11_row.D"}, r"Table-11_row\.D"),
    ],
)
def test_the_file_name_says_what_it_is(values: dict[str, Any], pattern: str) -> None:
    recipe = build(**values)
    assert re.fullmatch(pattern, recipe.file_name())
    if "name" not in values:
        assert recipe.file_name().endswith(fingerprint(recipe.canonical())[:8])


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "a\n", "é", "a\0"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    assert repr(name) in complaint(name=name)


def test_each_model_has_its_weights() -> None:
    pair = ["vgg16", "vgg19"]
    recipe = build(models=pair, weights=["oxford", "random:3"])
    assert [recipe.weights_of(model) for model in pair] == ["oxford", "random:3"]
    recipe = build(models=pair, weights=["torchvision"])
    assert [recipe.weights_of(model) for model in pair] == ["torchvision"] * 2


# --- values that cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "near"), [("model", "models"), ("scale", "scales"), ("agregate", "aggregate")]
)
def test_an_unknown_field_names_the_nearest(field: str, near: str) -> None:
    message = complaint(**{field: 1})
    assert message.startswith(f"Unknown field {field!r} in the command line.")
    assert f"Did you mean {near!r}?" in message


@pytest.mark.parametrize(
    ("field", "value", "near"),
    [
        ("dataset", "voc2070", "voc2007"),
        ("models", ["vgg61"], "vgg16"),
        ("profile", "oxfrod", "oxford"),
        ("interpolation", "bicubik", "bicubic"),
        ("tap", "fc7_linear", "fc7-linear"),
        ("precision", "float23", "float32"),
        ("aggregate", "stak", "stack"),
        ("loss", "squared-hinge", "squared_hinge"),
        ("choose_c", "per_class", "per-class"),
        ("difficult", "negativ", "negative"),
        ("measure", "voc2011", "voc2010"),
    ],
)
def test_an_unknown_value_names_the_nearest(field: str, value: object, near: str) -> None:
    message = complaint(**{field: value})
    shown = value[0] if isinstance(value, list) else value
    assert repr(shown) in message
    assert f"Did you mean {near!r}?" in message
    assert "Valid: " in message


def test_a_value_that_is_like_none_names_all() -> None:
    message = complaint(aggregate="qqqq")
    assert "Did you mean" not in message
    assert message.endswith("Valid: average, max, stack.")


def test_an_unknown_field_of_the_paper_names_the_nearest_of_the_paper() -> None:
    message = complaint(paper={**PAPER, "colum": "x"})
    assert "'paper.colum'" in message
    assert "Did you mean" in message
    assert "column" in message


@pytest.mark.parametrize("field", ["dataset", "models"])
def test_what_is_missing_is_named_with_its_option(field: str) -> None:
    values = {key: value for key, value in VOC.items() if key != field}
    with pytest.raises(RecipeError) as caught:
        Recipe.build(values, "'some.toml'")
    option = {"models": "--model", "dataset": "--dataset"}[field]
    assert str(caught.value) == f"'some.toml' says no {field!r}. Add it ({option})."


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset", 7),
        ("models", []),
        ("models", 16),
        ("models", [16]),
        ("scales", ["256"]),
        ("scales", [256.5]),
        ("mirror", "yes"),
        ("grid", ["1"]),
        ("seed", -1),
        ("seed", 2**31),
        ("seed", 1.0),
        ("seed", True),
        ("limit", 0),
        ("limit", "many"),
        ("paper", {**PAPER, "table": "11"}),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_field(field: str, value: object) -> None:
    message = complaint(**{field: value})
    assert message.startswith(field)
    assert " in the command line. " in message


@pytest.mark.parametrize("scales", [[223], [256, 100], [0], [-256]])
def test_a_scale_below_224_is_refused(scales: list[int]) -> None:
    message = complaint(scales=scales)
    assert "at least 224 pixels: fc7 needs 7×7 cells of 32." in message
    assert f"Q = {min(scales)}." in message


def test_a_scale_of_224_is_allowed() -> None:
    assert build(scales=[224]).scales == (224,)


def test_no_scale_at_all_is_refused() -> None:
    assert complaint(scales=[]).startswith("No scale at all. Expected one or more.")


@pytest.mark.parametrize(
    ("tap", "enough"),
    [("fc6", 224), ("pool5", 32), ("conv5_1", 16), ("pool4", 16), ("pool1", 2), ("conv1_2", 1)],
)
def test_each_tap_has_its_own_smallest_scale(tap: str, enough: int) -> None:
    assert build(tap=tap, scales=[enough]).scales == (enough,)
    message = complaint(tap=tap, scales=[256, enough - 1])
    assert message.startswith(f"Scale Q = {enough - 1}. ")
    assert f"at least {enough} pixels: {tap} needs " in message


# What versions before several taps have made of these: results and their file names stay valid.
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "91dec002e2f08f853bcda50e6c2a4434820985048a940633d651274a671a7660"),
        ({"tap": "pool5"}, "d643ad5f0f16a4736f9e6d9a7a5b2bf1bf1a308a491abe9b29f88003ccfaadc4"),
        (
            {"tap": ["fc7-linear"], "models": ["vgg16", "vgg19"]},
            "6781d8f1a49cfc632d2bbc037c6b4892d993af8caabdf6aad9172b0bc1f99c75",
        ),
    ],
)
def test_a_recipe_of_one_tap_is_what_it_always_was(
    values: dict[str, object], expected: str
) -> None:
    recipe = Recipe.build({"dataset": "voc2007", "models": ["vgg16"], **values}, "a test")
    assert fingerprint(recipe.canonical()) == expected
    assert recipe.file_name().endswith(f"-{expected[:8]}")


def test_several_taps_are_a_list_in_their_order(tmp_path: Path) -> None:
    one, two = build(tap="pool5"), build(tap=["pool5", "fc7"])
    assert one == build(tap=["pool5"]) == build(tap=("pool5",))
    assert (one.tap, two.tap) == (("pool5",), ("pool5", "fc7"))
    assert (one.canonical()["tap"], two.canonical()["tap"]) == ("pool5", ["pool5", "fc7"])
    assert two.descriptor_size == 512 + 4096
    assert two != build(tap=["fc7", "pool5"])
    for recipe in (one, two):
        assert Recipe.model_validate_json(recipe.model_dump_json(), strict=False) == recipe
    path = tmp_path / "r.toml"
    path.write_text('dataset = "voc2007"\nmodels = "vgg16"\ntap = ["pool5", "fc7"]\n')
    assert Recipe.from_toml(path).tap == ("pool5", "fc7")
    assert Recipe.from_toml(path, {"tap": ("fc6",)}).tap == ("fc6",)


@pytest.mark.parametrize(
    ("taps", "said"),
    [
        (["fc7", "pool5", "fc7"], "Taps fc7, pool5, fc7: one occurs twice."),
        ([], "No tap at all."),
        (["pool5", "fc9"], "tap = 'fc9' in the command line. Did you mean 'fc"),
        (["pool5", 7], "tap.1 = 7 in the command line. Expected text."),
        (7, "tap = 7 in the command line."),
    ],
)
def test_taps_that_cannot_be(taps: object, said: str) -> None:
    assert complaint(tap=taps).startswith(said)


def test_the_deepest_tap_decides_the_smallest_scale() -> None:
    assert build(tap=["pool4", "pool5"], scales=[32]).scales == (32,)
    assert "at least 32 pixels: pool5 needs" in complaint(tap=["pool5", "pool4"], scales=[16])
    assert "at least 224 pixels: fc6 needs" in complaint(tap=["conv1_1", "fc6"], scales=[223])


def test_each_net_must_have_the_tap() -> None:
    assert build(models=["vgg16", "vgg19"], tap="conv5_3").descriptor_size == 2 * 512
    message = complaint(models=["vgg16", "vgg11"], tap="conv5_3")
    assert message.startswith("vgg11 has no tap 'conv5_3'. Did you mean 'conv5_")
    assert "conv5_2" in message.partition("Valid: ")[2]
    assert "conv5_3" not in message.partition("Valid: ")[2]


def test_a_scale_that_occurs_twice_is_refused() -> None:
    assert "(256, 384, 256)" in complaint(scales=[256, 384, 256])


def test_a_net_that_occurs_twice_is_refused() -> None:
    """`weights_of` finds weights by the net's name, so the second would get the first's."""
    message = complaint(models=["vgg16", "vgg16"], weights=["random:0", "random:1"])
    assert "vgg16" in message


@pytest.mark.parametrize(
    "grid", [[], [0], [-1.0], [1.0, float("nan")], [float("inf")], [1e-3, -1e-3]]
)
def test_a_grid_without_positive_numbers_is_refused(grid: list[float]) -> None:
    assert "Every C must be a positive number." in complaint(grid=grid)


@pytest.mark.parametrize(("models", "weights"), [(1, 2), (2, 3), (1, 0)])
def test_weights_must_be_one_for_all_or_one_each(models: int, weights: int) -> None:
    message = complaint(
        models=["vgg16", "vgg19"][:models], weights=["oxford", "torchvision", "random:0"][:weights]
    )
    assert f"{weights} weights for {models} models" in message


@pytest.mark.parametrize(
    "values",
    [
        {"measure": "mean_class_recall"},
        {"dataset": "folder:x"},  # whose own measure it is
        {"dataset": "folder:x", "measure": "mean_class_recall"},
    ],
)
def test_one_c_per_class_cannot_be_chosen_by_mean_class_recall(values: dict[str, Any]) -> None:
    message = complaint(choose_c="per-class", **values)
    assert "choose_c = 'per-class' with measure = 'mean_class_recall'" in message
    assert "--choose-c shared" in message


def test_one_c_per_class_can_be_chosen_by_an_average_precision() -> None:
    assert build(dataset="folder:x", choose_c="per-class", measure="voc2010").measure == "voc2010"


# --- recipe files -------------------------------------------------------------------------------


def toml(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_recipe_file_is_read(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        """
        dataset = "voc2007"
        models = ["vgg16", "vgg19"]
        scales = [256, 384]
        grid = [0.5, 1, 2]
        mirror = false
        paper = { table = 11, row = "D & E", column = "VOC-2007", value = 89.7 }
        """,
    )
    recipe = Recipe.from_toml(path)
    assert recipe == build(
        models=("vgg16", "vgg19"),
        scales=(256, 384),
        grid=(0.5, 1.0, 2.0),
        mirror=False,
        paper=Paper(table=11, row="D & E", column="VOC-2007", value=89.7),
    )


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, 'dataset = "voc2007"\nmodels = ["vgg16"]\nseed = 4\nscales = [256]\n')
    recipe = Recipe.from_toml(path, {"seed": 5, "models": ("vgg19",)})
    assert (recipe.seed, recipe.models, recipe.scales) == (5, ("vgg19",), (256,))
    assert Recipe.from_toml(path).seed == 4


def test_a_recipe_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"No recipe '.*absent\.toml'.*pipelines"):
        Recipe.from_toml(tmp_path / "absent.toml")


@pytest.mark.parametrize("data", [b"dataset = \n", b"\xff\xfe", b"a = 1\na = 2\n", b"just words"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=r"recipe\.toml' is no TOML file: ."):
        Recipe.from_toml(path)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="directory"):
        Recipe.from_toml(tmp_path)


def test_a_complaint_about_a_file_names_it(tmp_path: Path) -> None:
    path = toml(tmp_path, 'dataset = "voc2007"\nmodels = ["vgg16"]\nscale = [256]\n')
    with pytest.raises(RecipeError) as caught:
        Recipe.from_toml(path)
    assert f"Unknown field 'scale' in '{path}'. Did you mean 'scales'?" in str(caught.value)


# --- the machine --------------------------------------------------------------------------------


def test_a_machine_has_the_documented_defaults() -> None:
    machine = Machine.build({})
    assert [str(p) for p in (machine.data_root, machine.cache, machine.results)] == [
        "datasets",
        "features",
        "results",
    ]
    assert (machine.device, machine.on_error) == ("auto", "record")
    assert machine.workers is None
    assert machine.verify_images is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_error": "rise"}, "on_error = 'rise' in the command line. Did you mean 'raise'?"),
        ({"onerror": "raise"}, "Unknown field 'onerror' in the command line. Did you mean 'on_er"),
        ({"workers": 0}, "workers = 0 in the command line. "),
        ({"workers": 1.5}, "workers = 1.5 in the command line. "),
        ({"verify_images": "no"}, "verify_images = 'no' in the command line. "),
        ({"cache": 3}, "cache = 3 in the command line. "),
    ],
)
def test_a_machine_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Machine.build(values)
    assert str(caught.value).startswith(message)


def test_the_machine_is_no_part_of_a_recipe() -> None:
    assert not set(Machine.model_fields) & set(Recipe.model_fields)


def test_one_name_stands_for_a_list_of_one() -> None:
    assert build(models="vgg16", weights="random:0") == build(
        models=["vgg16"], weights=["random:0"]
    )


@pytest.mark.parametrize(("given", "count"), [("6GB", 6 * 10**9), ("512MB", 512 * 10**6)])
def test_memory_is_a_number_and_a_unit(given: str, count: int) -> None:
    assert Machine.build({"memory": given}).memory_bytes == count
    assert Machine.build({}).memory_bytes is None


@pytest.mark.parametrize("given", ["6", "0GB", "6 GB", "-1GB", "6TB", "GB"])
def test_other_memory_is_refused(given: str) -> None:
    with pytest.raises(RecipeError, match="for example 6GB"):
        Machine.build({"memory": given})


def test_each_net_can_have_taps_of_its_own() -> None:
    both = {"dataset": "csv:photos.csv", "models": ["vgg16", "vgg19"], "scales": [256]}
    recipe = Recipe.build({**both, "tap": ["vgg16:pool5", "pool4", "vgg19:fc7"]}, "a test")
    described = [(one.model, one.tap) for one in recipe.described]
    assert described == [
        ("vgg16", "pool5"),
        ("vgg16", "pool4"),
        ("vgg19", "pool4"),
        ("vgg19", "fc7"),
    ]
    assert recipe.descriptor_size == 512 + 512 + 512 + 4096
    assert [recipe.last_layer(model) for model in recipe.models] == ["pool5", "fc7"]
    for taps, said in {
        ("vgg16:pool5",): "vgg19 has none",
        ("fc7", "vgg16:fc7"): "vgg16 has one twice",
        ("fc7", "vgg13:fc7"): "vgg13 is none of the models",
        ("vgg16:fc9", "fc7"): "Valid: conv1_1, ",
    }.items():
        with pytest.raises(RecipeError, match=said):
            Recipe.build({**both, "tap": list(taps)}, "a test")
