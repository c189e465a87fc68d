"""Maps of made-up results."""

import numpy as np

from benchmarks.evidence import answers
from benchmarks.evidence.question import Row
from tests.benchmarks.evidence.asked import results


def test_a_map_of_what_is_within_a_point_of_the_best(ask):
    rows = [Row(f"SAM, {x}", {}, "", "SAM, k = 1", x, "SAM") for x in (0.1, 0.2, 0.4)]
    ours = "Lookbehind-SAM"
    rows += [
        Row(f"{ours}, 0.4", {}, line=f"{ours}, k = 2", x=0.4, method=ours),
        Row(f"{ours}, k = 5", {}, line=f"{ours}, k = 5", x=0.4, method=ours),
    ]
    ask(x="ρ", width=True, rows=tuple(rows))
    accuracies = {"SAM, 0.1": [0.795], "SAM, 0.2": [0.8], "SAM, 0.4": [0.7]}
    others = {f"{ours}, 0.4": [0.8, 0.82], f"{ours}, k = 5": [0.795]}
    found = results(**accuracies, **others)
    shown = answers.table(found)
    assert "| SAM | 80.0 | SAM, 0.2 | 2 | 0 | 3 |" in shown
    at = f"{ours}, 0.4"
    assert f"| {ours} | 81.0 | {at} | 1 | 1 | 2 |" in shown
    drawn = answers.figure(found)
    assert "ρ; final test accuracy (%)" in drawn.get_supxlabel()
    sam, lookbehind = drawn.axes
    for axes, method in ((sam, "SAM"), (lookbehind, ours)):
        assert axes.get_title() == method
    weights = {(it.get_text(), it.get_weight()) for it in sam.texts}
    assert weights == {("79.5", "bold"), ("80.0", "bold"), ("70.0", "normal")}
    weights = {(it.get_text(), it.get_weight()) for it in lookbehind.texts}
    assert weights == {("81.0", "bold"), ("79.5", "normal")}
    assert [it.get_text() for it in lookbehind.get_yticklabels()] == ["k = 2", "k = 5"]
    image = lookbehind.images[0].get_array()
    assert image.shape == (2, 3)
    assert np.ma.getmaskarray(np.ma.masked_invalid(image)).sum() == 4
    shades = [it.images[0].get_clim() for it in drawn.axes]
    assert shades[0] == shades[1] == (71, 81)
