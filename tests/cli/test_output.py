"""What is printed: hostile text escaped, progress on terminals only."""

from __future__ import annotations

import io
import json

import pytest

from layout.cli.output import Output, columns, plural
from layout.core.errors import LayoutError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä", "plain ä"),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\udcff", "\\udcff"),
        (b"caf\xc3\xa9\xff", "café\\udcff"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
    ids=["plain", "newline", "escape", "surrogate", "bytes", "bidi"],
)
def test_no_name_can_move_a_cursor_or_forge_a_line(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


def test_an_error_is_one_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error(LayoutError("/t/\n/x", "a\x1bb", "c", "d\ne"))
    assert capsys.readouterr().err == "layout: /t/\\n/x: found a\\x1bb, expected c\nhint: d\\ne\n"


def test_columns_are_as_wide_as_what_is_shown() -> None:
    assert columns([("a", "b\n", "c"), ("long", "d", "")]) == ["a     b\\n  c", "long  d"]
    assert columns([]) == []


def test_counts_have_their_plural() -> None:
    assert [plural(0, "change"), plural(1, "change"), plural(2, "change")] == [
        "0 changes",
        "1 change",
        "2 changes",
    ]


def test_quiet_leaves_results_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.note("remark")
    output.result("result")
    output.error(LayoutError("p", "f", "e"))
    out, err = capsys.readouterr()
    assert out == "result\n"
    assert err == "layout: p: found f, expected e\n"


def test_details_are_for_verbose_runs_only(capsys: pytest.CaptureFixture[str]) -> None:
    Output().detail("a")
    Output(verbose=True).detail("b")
    assert capsys.readouterr().err == "b\n"


def test_a_document_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=True).document({"a": [1]})
    assert json.loads(capsys.readouterr().out) == {"a": [1]}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_after_a_second_on_a_terminal_and_taken_away_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stream, shown in ((_Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        output = Output()
        output.tell("early", 1, 2)
        assert stream.getvalue() == ""
        output.started -= 2
        output.tell("unpacking \x1b", 1, 2)
        assert ("unpacking \\x1b  50%" in stream.getvalue()) is shown
        output.note("done")
        assert stream.getvalue().endswith("done\n")


def test_of_escape_sequences_colours_alone_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result("\033[31mred\033[0m, then \033[2J and \033]0;title\a")
    assert capsys.readouterr().out == "\033[31mred\033[0m, then \\x1b[2J and \\x1b]0;title\\x07\n"
