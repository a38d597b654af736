"""Results that outlive the run that made them."""

import os
import signal

import pytest

from ldlm_hf.result_log import ResultLog, only_writer, read_results


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


def test_what_is_added_in_one_go_is_there_line_by_line(tmp_path):
    log = ResultLog(tmp_path / "a.jsonl", SETTINGS)
    log.append({"number": 1})
    log.extend({"number": number} for number in (2, 3))
    log.extend([])
    assert [row["number"] for row in log] == [row["number"] for row in ResultLog(log.path, SETTINGS)] == [1, 2, 3]
    assert log.path.read_text().count("\n") == 4


def test_of_results_that_json_cannot_say_none_is_written(tmp_path):
    log = ResultLog(tmp_path / "a.jsonl", SETTINGS)
    before = log.path.read_bytes()
    with pytest.raises(TypeError):
        log.extend([{"number": 1}, {"number": {1, 2}}])
    assert log.path.read_bytes() == before
    assert len(log) == 0


def test_reading_changes_no_file_that_somebody_else_is_writing(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_results(path, SETTINGS) == []
    assert not path.exists()
    ResultLog(path, SETTINGS).append({"number": 1})
    with path.open("a") as file:
        file.write('{"num')
    before = path.read_bytes()
    assert read_results(path, SETTINGS) == [{"number": 1}]
    assert path.read_bytes() == before


def test_the_error_says_which_settings_differ_and_what_to_do(tmp_path):
    log = ResultLog(tmp_path / "a.jsonl", SETTINGS)
    other = {"steps": 16, "block_lengths": [2, 4], "seed": 3}
    with pytest.raises(ValueError, match="seed is null, not 3, steps is 8, not 16; think again"):
        read_results(log.path, other, "think again")
    with pytest.raises(ValueError, match="delete the file or write to another place"):
        ResultLog(log.path, other)
    log.path.write_text("no JSON\n")
    with pytest.raises(ValueError, match="no JSON, holds none"):
        ResultLog(log.path, SETTINGS)


def test_a_broken_line_between_whole_ones_is_refused(tmp_path):
    log = ResultLog(tmp_path / "a.jsonl", SETTINGS)
    log.extend([{"number": 1}, {"number": 2}])
    log.path.write_text(log.path.read_text().replace('{"number": 1}', '{"num'))
    with pytest.raises(ValueError, match="a.jsonl' has a line that is no result"):
        ResultLog(log.path, SETTINGS)


def test_a_file_has_one_writer_at_a_time(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    with only_writer(path):
        with pytest.raises(ValueError, match="a.jsonl' is being written by another process"), only_writer(path):
            pass
        ResultLog(path, SETTINGS).append({"number": 1})
    with only_writer(path):
        assert read_results(path, SETTINGS) == [{"number": 1}]


def test_a_writer_that_is_killed_leaves_the_file_to_the_next_one(tmp_path):
    path, (reader, writer) = tmp_path / "a.jsonl", os.pipe()
    child = os.fork()
    if child == 0:
        with only_writer(path):
            os.write(writer, b"!")
            signal.pause()
    os.read(reader, 1)
    with pytest.raises(ValueError, match="being written"), only_writer(path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with only_writer(path):
        pass
