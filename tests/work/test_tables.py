"""One Markdown table, one form of JSON lines, one stopwatch."""

from __future__ import annotations

import json

import pytest

from mobileclip2_lite.work.json_lines import append_lines, read_lines, to_lines
from mobileclip2_lite.work.stopwatch import Stopwatch, call_seconds
from mobileclip2_lite.work.tables import columns_of_text, markdown_table


def test_a_table_aligns_numbers_and_keeps_cells_together():
    table = markdown_table(("", "what", "right"), [("a|b", "two\nlines", 0.5), ("c", "", 1)], text_columns=2)
    assert table == "| | what | right |\n|---|---|---:|\n| a\\|b | two lines | 0.5 |\n| c | | 1 |"
    with pytest.raises(ValueError, match=r"a row of 1 cells in a table of 2 columns: \['alone'\]"):
        markdown_table(("one", "two"), [("alone",)])


def test_columns_of_words_are_found_by_their_cells():
    rows = [
        ("web", 12, "+5.2 (+3.6 to +6.8)", "78.5 ± 0.3", (5, 192), 1.5, None, True, "**90 %**", "–"),
        ("short", 3.5, "", "-", (2, 192), 2, 7, False, "12,345", "**agrees**"),
    ]
    words = columns_of_text(rows)
    assert words == [0, 2, 4, 7, 9]
    assert markdown_table("abcdefghij", rows, words).splitlines()[1] == (
        "|---|---:|---|---:|---|---:|---:|---|---:|---|"
    )
    assert columns_of_text([]) == []


def test_lines_come_back_and_are_the_same_bytes_everywhere(tmp_path):
    values = [{"text": "Hund über 犬\n", "n": 1}, {"nothing": None}]
    path = append_lines(tmp_path / "new" / "rows.jsonl", values[:1])
    append_lines(path, values[1:])
    assert path.read_bytes() == to_lines(values) == b"".join(json.dumps(v).encode("ascii") + b"\n" for v in values)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert list(read_lines(path)) == values


def test_a_line_that_a_kill_cut_short_is_left_out_and_no_other(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(to_lines([{"step": 1}]) + b'{"step": 2, "lo')
    assert list(read_lines(path, cut_short=True)) == [{"step": 1}]
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2 is not JSON .*: remove the line"):
        list(read_lines(path))
    path.write_bytes(b'{"step": 1, "lo\n' + to_lines([{"step": 2}]))
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1 is not JSON"):
        list(read_lines(path, cut_short=True))


def test_a_stopwatch_measures_by_the_clock_it_is_given():
    now = [10.0]
    watch = Stopwatch(lambda: now[0])
    now[0] = 12.5
    assert watch.seconds == 2.5
    assert watch.restart() == 2.5
    now[0] = 13.0
    assert watch.seconds == 0.5


def test_calls_are_warmed_up_waited_for_and_bounded():
    done: list[str] = []
    times = call_seconds(lambda: done.append("call"), (2, 5), warmup=1, wait=lambda: done.append("wait"))
    assert all(seconds >= 0 for seconds in times)
    assert done == ["call", "wait"] * 3, "one to warm up, and the fewest, since no time is given for more"
    assert len(list(call_seconds(lambda: None, (2, 5), seconds=1000.0))) == 5
