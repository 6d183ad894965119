"""A line of the log names its job, and holds what is said in one line, whatever that is made of."""

import logging
import sys
import threading

import pytest

from engine.logs import Lines, of_job, write_log

log = logging.getLogger("some.module")


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(Lines())
    return lambda: caplog.text.splitlines()


def test_a_line_of_a_job_names_it(lines):
    log.info("before")
    with of_job("a"):
        log.info("inside %d", 1)
        with of_job("b"):
            log.info("deeper")
        log.info("again")
        log.info("of others", extra={"job": "c,d"})
    log.info("after")
    heads = ["", " job=a", " job=b", " job=a", " job=c,d", ""]
    words = ["before", "inside 1", "deeper", "again", "of others", "after"]
    ends = [f" INFO some.module{head}: {text}" for head, text in zip(heads, words, strict=True)]
    assert [line[23:] for line in lines()] == ends


def test_a_block_that_fails_ends_too(lines):
    with pytest.raises(KeyError), of_job("a"):
        raise KeyError
    log.info("after")
    assert "job=" not in lines()[0]


def test_another_thread_says_nothing_of_this_ones_job(lines):
    with of_job("a"):
        thread = threading.Thread(target=lambda: log.info("there"))
        thread.start()
        thread.join()
    assert lines()[0].endswith(" some.module: there")


@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x00", "\x7f", "\x85", "\u2028"])
def test_nobody_can_make_up_a_line(lines, character):
    log.warning("%s", f"a{character}b é")
    (line,) = lines()
    assert line.endswith(f"a{character.encode('unicode_escape').decode()}b é")


def test_a_traceback_keeps_its_lines(lines):
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("a defect")
    assert lines()[0].endswith("some.module: a defect")
    assert lines()[-1] == "ValueError: x"


def test_the_log_goes_to_standard_error(capsys):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        write_log("INFO")
        log.info("said")
        assert logging.getLogger("httpx").level == logging.WARNING
        assert root.handlers[0].stream is sys.stderr
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert "INFO some.module: said" in capsys.readouterr().err
