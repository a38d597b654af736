"""Results that outlive the run that made them."""

import pytest

from ldlm_hf.result_log import ResultLog


SETTINGS = {"steps": 8, "block_lengths": [2, 4]}


def test_what_one_run_wrote_the_next_one_reads(tmp_path):
    log = ResultLog(tmp_path / "deep" / "a.jsonl", SETTINGS)
    log.append([{"text": "é\n", "answer": None}])
    log.append([])
    assert list(ResultLog(log.path, SETTINGS)) == list(log) == [[{"text": "é\n", "answer": None}], []]


@pytest.mark.parametrize("size", range(1, 40, 3))
def test_a_line_that_was_not_written_whole_is_dropped_and_written_anew(tmp_path, size):
    log = ResultLog(tmp_path / "a.jsonl", SETTINGS)
    log.append({"number": 1})
    whole = log.path.read_bytes()
    log.append({"number": 2, "text": "x" * 40})
    log.path.write_bytes(log.path.read_bytes()[: len(whole) + size])
    again = ResultLog(log.path, SETTINGS)
    assert list(again) == [{"number": 1}]
    assert log.path.read_bytes() == whole
    again.append({"number": 2})
    assert [row["number"] for row in ResultLog(log.path, SETTINGS)] == [1, 2]


def test_a_first_line_that_was_not_written_whole_is_no_first_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"settings": {"st')
    assert len(ResultLog(tmp_path / "a.jsonl", SETTINGS)) == 0


def test_results_of_other_settings_are_never_mixed_with_these(tmp_path):
    log = ResultLog(tmp_path / "a.jsonl", SETTINGS)
    log.append({"number": 1})
    before = log.path.read_bytes()
    with pytest.raises(ValueError, match="other settings.*a.jsonl|a.jsonl.*other settings"):
        ResultLog(log.path, {**SETTINGS, "steps": 16})
    assert log.path.read_bytes() == before
    (tmp_path / "b.jsonl").write_text('{"number": 1}\n')
    with pytest.raises(ValueError, match="other settings"):
        ResultLog(tmp_path / "b.jsonl", SETTINGS)


def test_the_order_of_settings_is_no_difference(tmp_path):
    ResultLog(tmp_path / "a.jsonl", {"a": 1, "b": 2}).append([1])
    assert list(ResultLog(tmp_path / "a.jsonl", {"b": 2, "a": 1})) == [[1]]
