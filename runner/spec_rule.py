"""One rule of a comparison, apart from the rest of seatrial.yml: two files are compared without knowing that."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from runner.spec_fields import Table, Text, Texts


class ColumnTolerance(Table):
    """How far the numbers of one column may be apart; it holds in place of the general one."""

    absolute: float = Field(0.0, ge=0, description="largest difference, 0 or more")
    relative: float = Field(0.0, ge=0, description="largest difference as a part of the larger number, 0 or more")


class Tolerance(Table):
    """How far two numbers may be apart and still be called equal: it is enough when one of both limits is kept."""

    absolute: float = Field(0.0, ge=0, description="largest difference, 0 or more")
    relative: float = Field(0.0, ge=0, description="largest difference as a part of the larger number, 0 or more")
    columns: dict[Text, ColumnTolerance] = Field({}, description="columns with limits of their own")


def _delimiter(text: str) -> str:
    if len(text) != 1 or not text.isascii() or text in '"\r\n\0':
        raise ValueError("must be one ASCII character, and neither a quote nor a line end")
    return text


class Rule(Table):
    """How the outputs of some units are compared."""

    match: Text = Field(description='a glob over unit names: "*/pl"')
    key: Texts = Field((), description="columns that tell which rows belong together")
    tolerance: Tolerance = Field(Tolerance(), description="how far numbers may be apart")
    ignore: Texts = Field((), description="columns that are left out")
    order: bool = Field(False, description="whether the order of rows matters")
    lenient: tuple[Literal["numbers", "dates", "nulls", "text"], ...] = Field(
        (), description="what may be written otherwise (1.0 and 1.00): numbers, dates, nulls, text"
    )
    header: bool = Field(True, description="whether the first record names the columns (default true)")
    delimiter: Annotated[str, AfterValidator(_delimiter)] | None = Field(
        None, description="one character between cells (default: a tab in .tsv, else found)"
    )
    encoding: Literal["utf-8", "cp932"] | None = Field(
        None, description="utf-8 or cp932 (default: UTF-8, and CP932 where that cannot be)"
    )
