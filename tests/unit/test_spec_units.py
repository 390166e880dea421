from __future__ import annotations

import tracemalloc
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import BranchError, UnitsError
from runner.units import UnitFilterError, filter_units, parse_units, unit_problem


def refused(data: bytes, limit: int = 100) -> UnitsError:
    with pytest.raises(UnitsError) as caught:
        parse_units(data, limit=limit)
    assert caught.value.code == "units_invalid"
    assert isinstance(caught.value, BranchError)
    return caught.value


@pytest.mark.parametrize(
    ("data", "units"),
    [
        (b"a", ("a",)),
        (b"a\nb\n", ("a", "b")),
        (b"\na\n\n\nb\n\n", ("a", "b")),
        (b"tenant_042/pl\ntenant_042\n", ("tenant_042/pl", "tenant_042")),
        (b"b\na\n", ("b", "a")),
        ("店舗 1/損益\n".encode(), ("店舗 1/損益",)),
        (b"-x\n.hidden\na..b\n...\n", ("-x", ".hidden", "a..b", "...")),
        (b"x" * 240, ("x" * 240,)),
        (b"x" * 255 + b"/y", ("x" * 255 + "/y",)),
    ],
)
def test_units_are_read_one_a_line_in_their_order(data: bytes, units: tuple[str, ...]) -> None:
    assert parse_units(data, limit=100) == units


@pytest.mark.parametrize(
    ("data", "line", "value", "remedy"),
    [
        (b"a\n../b\n", 2, "'../b'", "write names such as tenant_042/pl"),
        (b"a/../b\n", 1, "'a/../b'", "write names such as"),
        (b"..\n", 1, "'..'", "`..` segment"),
        (b"./a\n", 1, "'./a'", "`.`"),
        (b"a/.\n", 1, "'a/.'", "`.`"),
        (b"a//b\n", 1, "'a//b'", "empty"),
        (b"a/\n", 1, "'a/'", "empty"),
        (b"/etc/passwd\n", 1, "'/etc/passwd'", "leave out the leading /"),
        (b"a\\b\n", 1, r"'a\\b'", "write / between segments"),
        (b"a\0b\n", 1, r"'a\x00b'", "U+0000"),
        (b"a\r\nb\r\n", 1, r"'a\r'", "U+000D"),
        (b"a\tfailed\n", 1, r"'a\tfailed'", "U+0009"),
        (b"a\x1b[31mb\n", 1, r"'a\x1b[31mb'", "U+001B"),
        ("a\u202eb\n".encode(), 1, r"'a\u202eb'", "right-to-left override"),
        ("a\u2028b\n".encode(), 1, r"'a\u2028b'", "U+2028"),
        (b" a\n", 1, "' a'", "print the name alone"),
        (b"a \n", 1, "'a '", "print the name alone"),
        (b"   \n", 1, "'   '", "print the name alone"),
        (b"a\n\n" + b"/".join([b"x" * 200] * 50) + b"\n", 3, "'xxxxxxx", "1 to 512 are allowed; shorten it"),
        (b"x" * 241, 1, "'xxxxxxx", "240 in the last one"),
        (b"x" * 256 + b"/a", 1, "'xxxxxxx", "255 bytes are allowed"),
        ("損".encode() * 100, 1, "'損損", "240 in the last one"),
        (b"a\nb\nc\nb\n", 4, "'b'", "first on line 2: print each unit once"),
        (b"a\nb\xff\xfe\n", 2, r"'b\\xff\\xfe'", "print unit names as UTF-8"),
        (b"".join(b"%d\n" % number for number in range(101)), 101, "'100'", "100 units (workspace.limits.units)"),
    ],
)
def test_a_bad_unit_is_named_with_line_value_and_remedy(data: bytes, line: int, value: str, remedy: str) -> None:
    error = refused(data)
    (problem,) = error.problems
    assert problem.line == line
    assert problem.value is not None
    assert problem.value.startswith(value)
    assert len(problem.value) <= 80
    assert remedy in problem.message
    assert f"line {line}" in str(error)
    assert remedy in str(error)
    assert len(str(error)) < 400


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n\n"])
def test_no_units_at_all_are_refused(data: bytes) -> None:
    error = refused(data)
    assert "print at least one unit" in str(error)


def test_two_hundred_thousand_units_are_read() -> None:
    names = [f"tenant_{number // 12:05}/report_{number % 12:02}" for number in range(200_000)]
    assert parse_units("\n".join(names).encode(), limit=200_000) == tuple(names)
    assert "199,999 units" in str(refused("\n".join(names).encode(), limit=199_999))


def test_blank_lines_take_no_memory() -> None:
    """A list of them all would take 8 MB; threads that other tests left may allocate meanwhile."""
    data = b"\n" * 1_000_000 + b"a"
    tracemalloc.start()
    try:
        assert parse_units(data, limit=1) == ("a",)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_list_that_is_too_large_is_refused() -> None:
    error = refused(b"\n" * (1 << 20) + b"a", limit=4_096)
    assert "more than 1,048,576 bytes; 4,096 units (workspace.limits.units) take less" in str(error)


def test_the_list_is_read_no_further_than_its_limit_and_one() -> None:
    error = refused(b"a\nb\nc\n\xff\n", limit=2)
    assert "line 3: 'c' is one more than the 2 units" in str(error)


_SEGMENT = st.text("ab. -_損", min_size=1, max_size=6).filter(
    lambda text: text == text.strip() and text not in (".", "..")
)


@given(st.lists(st.lists(_SEGMENT, min_size=1, max_size=4).map("/".join), min_size=1, max_size=20, unique=True))
def test_good_units_are_read_as_they_were_printed(units: list[str]) -> None:
    assert parse_units("".join(f"{unit}\n" for unit in units).encode(), limit=20) == tuple(units)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        units = parse_units(data, limit=5)
    except UnitsError:
        return
    assert 1 <= len(units) <= 5
    assert len(set(units)) == len(units)
    for unit in units:
        assert unit_problem(unit) is None
        assert not unit.startswith("/")
        assert not {"", ".", ".."} & set(unit.split("/"))
        assert all(character >= " " and character != "\x7f" for character in unit)


# ---- the filter --------------------------------------------------------------------------------------------

UNITS = ("tenant_001/pl", "tenant_001/bs", "tenant_002/pl", "tenant_010/pl", "all")


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        (None, UNITS),
        ("", UNITS),
        (" , ", UNITS),
        ("*", UNITS),
        ("all", ("all",)),
        ("*/pl", ("tenant_001/pl", "tenant_002/pl", "tenant_010/pl")),
        ("tenant_00?/*", UNITS[:3]),
        ("tenant_00[12]/pl", ("tenant_001/pl", "tenant_002/pl")),
        ("tenant_010/*, tenant_001/bs", ("tenant_001/bs", "tenant_010/pl")),
        ("!*/pl", ("tenant_001/bs", "all")),
        ("*/pl,!tenant_001/*", ("tenant_002/pl", "tenant_010/pl")),
        ("! */pl , tenant_001/*", ("tenant_001/bs",)),
        ("*1*", ("tenant_001/pl", "tenant_001/bs", "tenant_010/pl")),
    ],
)
def test_the_filter_chooses_in_the_order_of_the_units(pattern: str | None, chosen: tuple[str, ...]) -> None:
    assert filter_units(UNITS, pattern) == chosen


@pytest.mark.parametrize("pattern", ["nothing", "ALL", "!*", "*/pl,!tenant_*", "[", "../*", "tenant_001"])
def test_a_filter_that_leaves_nothing_says_so(pattern: str) -> None:
    with pytest.raises(UnitFilterError) as caught:
        filter_units(UNITS, pattern)
    assert caught.value.code == "units_filter_empty"
    assert repr(pattern) in str(caught.value)
    assert "matches none of the 5 units, the first is 'tenant_001/pl': change it or leave it empty" in str(caught.value)


def test_a_filter_that_is_too_long_is_refused() -> None:
    with pytest.raises(UnitFilterError, match="at most 4,096 characters"):
        filter_units(UNITS, "*a" * 3_000)


def test_a_filter_of_many_stars_is_quick() -> None:
    with pytest.raises(UnitFilterError):
        filter_units(["a" * 500], "*a" * 1_000 + "b")


@given(
    st.lists(st.text("ab/", min_size=1, max_size=5), min_size=1, unique=True), st.text("ab/*?", min_size=1, max_size=6)
)
def test_the_filter_agrees_with_fnmatch(units: list[str], pattern: str) -> None:
    expected = tuple(unit for unit in units if fnmatchcase(unit, pattern))
    if expected:
        assert filter_units(units, pattern) == expected
    else:
        with pytest.raises(UnitFilterError):
            filter_units(units, pattern)
