"""What a training shows of the paper's Figure 1."""

import pytest

from gapbridge.geometry.trajectory import panels

PAPER = {
    "leakage": 0.1,
    "leakage_bound": 0.8,
    "passive_bias_cosine": 0.99,
    "passive_bias_drift": 0.3,
    "passive_condition": 9.0,
    "principal_condition": 4.0,
    "passive_angle": 88.0,
}


@pytest.mark.parametrize(
    ("panel", "changes"),
    [
        ("a", {"leakage": 0.7}),
        ("b", {"passive_bias_cosine": 0.2}),
        ("c", {"passive_condition": 1.2, "principal_condition": 1.1}),
        ("c", {"principal_condition": 12.0}),
        ("d", {"passive_angle": 40.0}),
    ],
)
def test_each_panel_can_agree_and_disagree(panel: str, changes: dict[str, float]) -> None:
    assert all(one["shown"] for one in panels(PAPER))
    assert [one["panel"] for one in panels({**PAPER, **changes}) if not one["shown"]] == [panel]
