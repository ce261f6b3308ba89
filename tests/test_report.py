"""The words and the HTML of a report."""

import numpy as np

from autograder import report
from autograder.grade import examine, mine
from autograder.report import Output, Result, Wrong, points


def mean_db(dy, x, w, b):
    return dy @ w, dy.T @ x, dy.mean(0)


def test_a_report_reads_from_top_to_bottom():
    result = examine(mean_db, "linear_backward", seed=0)
    blocks = result.text.split("\n\n")
    assert blocks[0] == "linear_backward: 4 of 6 points"
    assert blocks[1].splitlines()[0].split() == ["output", "shape", "verdict", "largest", "relative", "error"]
    assert [line.split()[0] for line in blocks[1].splitlines()[1:]] == ["dx", "dw", "db"]
    assert blocks[2].startswith("db is averaged over the batch.")
    assert blocks[3].startswith("Where: db[")
    assert "Case 1: n=5, i=4, o=3. (Right only where n is 1.)" in blocks[3]
    assert "examine(linear_backward, seed=0)" in blocks[3]
    assert blocks[4].startswith("Hint: ")


def test_the_columns_of_the_table_are_aligned():
    lines = examine(mean_db, "linear_backward", seed=0).text.split("\n\n")[1].splitlines()
    assert len({line.index(word) for line, word in zip(lines[:4], ["shape", "(", "(", "("], strict=True)}) == 1


def test_a_passed_report_has_no_advice():
    text = examine(lambda x, w, b: x @ w.T + b, "linear_forward", seed=0).text
    assert "Hint" not in text and "Where" not in text


def test_the_html_shows_expected_got_and_difference_side_by_side():
    html = examine(mean_db, "linear_backward", seed=0).html
    assert html.count("<table") == 4
    assert "db expected" in html and "db got" in html and "got − expected" in html


def test_everything_of_the_students_is_escaped():
    def attack(x, w, b):
        raise ValueError("<script>alert(1)</script>")

    html = examine(attack, "linear_forward", seed=0).html
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_large_arrays_get_no_picture():
    assert examine(lambda x, w, b: np.zeros((3, 3)), "linear_forward", seed=0).picture == ""


def test_of_an_image_the_plane_of_the_worst_value_is_shown():
    group_norm = mine("groupnorm_forward")

    def plane_lost(x, gamma, beta, num_groups, eps=1e-5):
        y = group_norm(x, gamma, beta, num_groups, eps)
        y[0, 1] += 1
        return y

    result = examine(plane_lost, "groupnorm_forward", seed=0)
    assert result.wrong.want.ndim == 4 and "y[0, 1] expected" in result.picture


def test_an_answer_that_stops_is_told_what_was_wrong_before():
    def mean_then_stop(dy, x, w, b):
        if len(x) == 1:
            raise ValueError("one row")
        return mean_db(dy, x, w, b)

    told = examine(mean_then_stop, "linear_backward", seed=0)
    mistake = examine(mean_db, "linear_backward", seed=0).mistake
    assert told.points == 0 and told.mistake == mistake
    assert told.text.index("one row") < told.text.index("In a case before that one") < told.text.index(mistake)


def test_of_very_many_outputs_the_wrong_ones_are_listed_first():
    outputs = tuple(Output(f"d{k}", (3,), "wrong" if k == 38 else "right", 0.0, 1.0) for k in range(40))
    text = Result("a", 1.0, 2, outputs).text
    assert text.index("d38") < text.index("d0 ") and "d20" not in text
    assert "and 25 more, none wrong" in text and "and 25 more, none wrong" in Result("a", 1.0, 2, outputs).html


def test_other_sizes_than_1_are_not_what_tells_cases_apart():
    def wrong(right, bad):
        return Wrong("y", 0, bad[0], np.ones(2), np.zeros(2), None, "", right, bad, {}, frozenset("nm"))

    assert report._contrast(wrong(({"m": 3},), ({"m": 4}, {"m": 5}))) == " (Right in 1 other case.)"
    assert report._contrast(wrong(({"n": 1, "stride": 2},), ({"n": 4, "stride": 1},))) == (
        " (Right where stride is 2; wrong where it is 1.)"
    )
    assert report._contrast(wrong(({"n": 1, "m": 2},), ({"n": 4, "m": 2},))) == (
        " (Right where n is 1; wrong where it is 4.)"
    )


def test_points_are_written_as_people_do():
    assert [points(value) for value in (2.0, 0.0, 4 / 3, 2.5)] == ["2", "0", "1.33", "2.5"]


def test_a_result_shows_itself_and_keeps_the_arguments_of_the_case_it_explains():
    result = examine(mean_db, "linear_backward", seed=0)
    assert repr(result) == result.text
    assert result._repr_html_() == result.html
    assert {name: value.shape for name, value in result.wrong.inputs.items()} == {
        "dy": (5, 3), "x": (5, 4), "w": (3, 4), "b": (3,),
    }  # fmt: skip


def test_what_tells_right_cases_from_wrong_ones_is_said():
    def own_slope(x, negative_slope=0.01):
        return np.where(x > 0, x, 0.01 * x)

    text = examine(own_slope, "leaky_relu_forward", seed=0).text
    assert (
        "(Right where negative_slope is 0.01; wrong where it is" in text
        or "(Right only where negative_slope is 0.01.)" in text
    )
