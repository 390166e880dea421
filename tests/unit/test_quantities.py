from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.quantities import QuantityError, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        (0, 0),
        (536_870_912, 536_870_912),
        ("536870912", 536_870_912),
        ("512m", 512 << 20),
        ("4g", 4 << 30),
        ("1.5g", 3 << 29),
        ("10K", 10_240),
        ("2t", 2 << 40),
        ("7b", 7),
        ("7B", 7),
        ("4 GiB", 4 << 30),
        ("4GB", 4 << 30),
        (" 4g ", 4 << 30),
        ("1.0001k", 1_024),
    ],
)
def test_size_is_read(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "g",
        "-1",
        -1,
        "4gg",
        "4 g b",
        "1e9",
        "1,5g",
        "0x10",
        "٤g",
        "4p",
        "inf",
        "nan",
        ".5g",
        "5.g",
        True,
        "9" * 40,
        "4g\0",
    ],
)
def test_what_is_not_a_size_is_refused_with_a_remedy(text: str | int) -> None:
    with pytest.raises(QuantityError, match="512m"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6h", 21_600),
        ("20m", 1_200),
        ("90s", 90),
        ("100ms", 0.1),
        ("1h30m", 5_400),
        ("1h 30m", 5_400),
        ("1.5h", 5_400),
        ("2d", 172_800),
        ("1d2h3m4s5ms", 93_784.005),
        ("1m500ms", 60.5),
        ("0s", 0),
        ("1h90m", 9_000),
        (" 1h\n", 3_600),
    ],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0", "-1", "90", "1.5", 0, 90, -1, 10**12, 1.5, True, " 7 "])
def test_a_number_without_a_unit_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(QuantityError, match=r"has no unit.*90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "h",
        "-1h",
        "1w",
        "1h1h",
        "30m1h",
        "1s2m",
        "1e3s",
        "1:30",
        "١h",
        "inf",
        "nan",
        "1h\0",
        "9" * 30 + "s",
    ],
)
def test_what_is_not_a_duration_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(QuantityError, match=r"is not a duration.*90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1 KiB"),
        (1_536, "1.5 KiB"),
        (512 << 20, "512 MiB"),
        ((1 << 30) - 1, "1 GiB"),
        (4 << 30, "4 GiB"),
        (5_000 << 40, "5000 TiB"),
    ],
)
def test_size_is_written_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0, "0s"),
        (0.45, "450ms"),
        (0.9996, "1s"),
        (3.24, "3.2s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (725, "12m 5s"),
        (3_599.6, "1h"),
        (5_400, "1h 30m"),
        (21_600, "6h"),
        (86_399, "1d"),
        (183_600, "2d 3h"),
        (30 * 86_400, "30d"),
    ],
)
def test_duration_is_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_no_duration_is_written_for_what_is_no_number(seconds: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        format_duration(seconds)


@given(st.integers(min_value=0, max_value=10**17))
def test_a_written_size_is_read_back_within_its_rounding(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.06, abs=1)


@given(st.floats(min_value=0, max_value=10**10))
def test_a_written_duration_is_read_back_within_its_rounding(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.06, abs=0.001)


@given(st.integers(0, 999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_the_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    text = f"{days}d{hours}h{minutes}m{seconds}s{milliseconds}ms"
    assert parse_duration(text) == pytest.approx(
        days * 86_400 + hours * 3_600 + minutes * 60 + seconds + milliseconds / 1_000
    )


@given(st.one_of(st.text(), st.from_regex(r"[0-9.]{1,20} ?[a-zA-Z]{0,3}", fullmatch=True)))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(text) >= 0
        except QuantityError:
            continue
