"""What takes long says how far it is, once, and not where nobody wants to know."""

import threading
import time

import pytest

from stepwell import progress
from stepwell.progress import Progress, counted, quietly


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.02)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)


def wait_for_line(capsys, seconds=5.0):
    """What stderr has as soon as it has anything, or "" after these seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if printed := capsys.readouterr().err:
            return printed
        time.sleep(0.005)
    return ""


def test_lines_where_there_is_no_terminal(capsys):
    """The share that is done and what is being done; an unchanged line is not repeated."""
    with counted("reading table.csv", 200) as advance:
        advance(50)
        assert wait_for_line(capsys) == " 25%  reading table.csv\n"
        assert wait_for_line(capsys, 0.2) == ""
        advance(150)
        assert wait_for_line(capsys) == "100%  reading table.csv\n"
    assert not any(thread.name == "stepwell-progress" for thread in threading.enumerate())


def test_what_ends_soon_is_not_shown(capsys, monkeypatch):
    """Before the first two seconds have passed nothing is printed, and leaving does not wait for them."""
    monkeypatch.setattr(progress, "SILENT_SECONDS", 60.0)
    began = time.monotonic()
    with counted("measuring", 10) as advance:
        advance(10)
    assert capsys.readouterr().err == "" and time.monotonic() - began < 30


def test_quiet_and_within_another(capsys):
    """Nothing is shown quietly, nor below a progress that is being shown; afterwards it is again."""
    with quietly(True), counted("a", 1):
        assert wait_for_line(capsys, 0.2) == ""
    with Progress(lambda: {"fraction": 0.5, "text": "outer"}):
        assert wait_for_line(capsys) == " 50%  outer\n"
        with counted("inner", 1), quietly(False):
            assert wait_for_line(capsys, 0.2) == ""
    with counted("b", 0):
        assert wait_for_line(capsys) == "  0%  b\n"


def test_an_error_ends_it(capsys):
    """What is raised inside comes out, and the thread is gone."""
    with pytest.raises(ValueError, match="seven"), counted("c", 1):
        raise ValueError("seven")
    with counted("d", 1):
        assert wait_for_line(capsys) == "  0%  d\n"
