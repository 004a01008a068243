"""The measurement of streamed relative attention: what it runs, and what it publishes."""

import json

import pytest

from analyses.attention_cost import AttentionCost, Run, measure
from analyses.result import published


@pytest.mark.parametrize("form", ["plain", "streamed"])
def test_a_pass_sees_the_first_images(form):
    run = measure(form, 70, "vit_digits", "digits")
    assert (run.form, run.images) == (form, 70)
    assert run.seconds > 0
    assert 0 <= run.peak_growth_mib < 500


def test_more_images_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="images must be at most 360"):
        measure("plain", 361, "vit_digits", "digits")


def test_the_record_has_ratios_by_number_of_images(tmp_path):
    runs = [Run("plain", 10, 2.0, 5.0), Run("streamed", 10, 2.2, 6.0), Run("plain", 20, 4.0, 5.0)]
    lean = [Run("streamed", 10, 3.0, 4.0, True), Run("streamed", 20, 6.0, 4.5, True)]
    result = AttentionCost([*runs, Run("streamed", 20, 5.0, 6.0), *lean], "vit_digits", "digits")
    assert result.ratios == {10: pytest.approx(1.1), 20: pytest.approx(1.25)}
    assert result.peaks == {10: 4.0, 20: 4.5}
    record = json.loads(published(result, tmp_path / "x.json").read_text())
    assert record["time_ratio"] == {"10": 1.1, "20": 1.25}
    assert record["peak_growth_mib"] == {"10": 4.0, "20": 4.5}
    assert record["runs"][3]["peak_growth_mib"] == 6.0
    assert {"hardware", "versions", "command"} <= set(record)
