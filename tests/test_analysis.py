import pytest
import yaml

from seg.analysis import analysis_from_dict, load_analysis
from seg.errors import SegError, UsageError
from seg.metrics import METRICS
from seg.resources import config_names

PRESETS = {
    "optical-plan",
    "optical-pits",
    "optical-profile",
    "xct-cell",
    "cryoem-sei",
    "tem-insitu",
    "sem",
    "tomography",
}


def test_all_presets_of_the_design_are_there():
    assert set(config_names("analysis")) == PRESETS


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_loads_and_its_headline_is_something_it_measures(name):
    config = load_analysis(name)
    assert config.name == name
    measured = {metric for group in config.metrics for metric in METRICS[group].metrics}
    assert set(config.headline) <= measured


def minimal(**changes):
    data = {
        "name": "mine", "title": "t", "description": "d", "modality": "optical", "view": "plan",
        "metrics": {"counting": {}},
    }  # fmt: skip
    return {**data, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": {}}, "did you mean 'metrics'"),
        ({"modality": "optcal"}, "did you mean 'optical'"),
        ({"view": "above"}, "plan, profile, section, volume"),
        ({"metrics": {"countng": {}}}, "did you mean 'counting'"),
        ({"metrics": {"cover": {"clases": ["deposit"]}}}, "did you mean 'classes'"),
        ({"metrics": {"counting": "1e-3"}}, "counting is '1e-3'; expected options such as `counting: {}`"),
        ({"modality": None}, "modality is None; expected text"),
        ({"headline": [1]}, r"headline is \[1\]; expected names"),
        ({"headline": ["tip_cuont"]}, "headline: there is no metric 'tip_cuont'; did you mean 'tip_count'"),
        ({"objects": {"split_touching": 2}}, "split_touching is 2; expected true or false"),
        ({"objects": {"min_diameter": 3}}, "did you mean 'min_diameter_px'"),
        ({"objects": {"classes": ["dendrit"]}}, "did you mean 'dendrite'"),
    ],
)
def test_a_misspelt_word_names_the_nearest(changes, message):
    with pytest.raises(UsageError, match=message):
        analysis_from_dict(minimal(**changes))


def test_a_missing_key_is_named():
    data = minimal()
    del data["modality"]
    with pytest.raises(UsageError, match="missing modality"):
        analysis_from_dict(data)


def test_a_copied_file_gives_the_same_analysis(tmp_path):
    config = load_analysis("sem")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    # Tuples become YAML sequences; the round trip must give them back.
    assert load_analysis(path) == config


def test_classes_that_cannot_occur_are_relabelled_by_name_and_mistakes_named():
    data = {"name": "a", "title": "a", "description": "a", "modality": "optical", "view": "plan", "metrics": {}}
    data["objects"] = {"classes": ["pit"]}
    assert analysis_from_dict({**data, "relabel": {"deposit": "pit"}}).relabel_values == ((3, 6),)
    assert analysis_from_dict(data).relabel_values == ()
    for wrong, said in (
        ({"deposit": "pits"}, "pits"),
        ({"pit": "deposit"}, "'pit' is measured as an object"),
        ({"deposit": "dendrite", "dendrite": "pit"}, "'dendrite' is itself relabelled"),
        (["deposit"], "expected classes such as"),
    ):
        with pytest.raises(SegError, match=said):
            analysis_from_dict({**data, "relabel": wrong})
