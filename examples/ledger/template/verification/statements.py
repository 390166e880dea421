"""The three financial statements of an entity, as rows: one for each line of each month.

The figures come from django-ledger's own digests. Rows are in a fixed order, so that two exports of the
same data are the same bytes: django-ledger orders accounts by a random UUID.
"""

import calendar
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

from django.db.models import Max, Min
from django_ledger.models import EntityModel, TransactionModel

Row = tuple[str, str, str, str, Decimal]
HEADER = ("month", "section", "code", "name", "amount")
CENT = Decimal("0.01")


def money(amount: Decimal | int) -> Decimal:
    """Return an amount in cents; a plain 0 becomes 0.00."""
    return Decimal(amount).quantize(CENT)


def months(entity: EntityModel) -> list[tuple[datetime, datetime]]:
    """Return the first and last moment of each month, from the entity's first posted transaction to its last."""
    span = (
        TransactionModel.objects.filter(journal_entry__ledger__entity=entity)
        .posted()
        .aggregate(first=Min("journal_entry__timestamp"), last=Max("journal_entry__timestamp"))
    )
    if span["first"] is None:
        return []
    first, last = span["first"].astimezone(UTC), span["last"].astimezone(UTC)
    result = []
    for number in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
        year, month = number // 12, number % 12 + 1
        days = calendar.monthrange(year, month)[1]
        result.append(
            (
                datetime(year, month, 1, tzinfo=UTC),
                datetime(year, month, days, 23, 59, 59, tzinfo=UTC),
            )
        )
    return result


def _lines(month: date, section: str, accounts: list[dict]) -> list[Row]:
    return sorted(
        (f"{month:%Y-%m}", section, account["code"], account["name"], money(account["balance"])) for account in accounts
    )


def balance_sheet(entity: EntityModel) -> Iterator[Row]:
    """Yield the accounts and totals of the balance sheet at each month's end."""
    for _, end in months(entity):
        data = entity.digest(to_date=end, balance_sheet_statement=True).get_balance_sheet_data()
        month = f"{end:%Y-%m}"
        for section in ("assets", "liabilities", "equity"):
            content = data.get(section, {"roles": {}, "total_balance": 0})
            for role in sorted(content["roles"]):
                yield from _lines(end, f"{section}/{role}", content["roles"][role]["accounts"])
            yield month, section, "", "total", money(content["total_balance"])
        yield month, "equity", "", "retained earnings", money(data["retained_earnings_balance"])
        yield month, "equity", "", "liabilities and equity", money(data["liabilities_equity_balance"])


def income_statement(entity: EntityModel) -> Iterator[Row]:
    """Yield the accounts and totals of each month's income statement."""
    for start, end in months(entity):
        digest = entity.digest(from_date=start, to_date=end, income_statement=True)
        data = digest.get_income_statement_data()
        month = f"{end:%Y-%m}"
        operating, other = data["operating"], data["other"]
        yield from _lines(end, "operating/revenues", operating["revenues"])
        yield from _lines(end, "operating/cogs", operating["cogs"])
        yield month, "operating", "", "gross profit", money(operating["gross_profit"])
        yield from _lines(end, "operating/expenses", operating["expenses"])
        yield month, "operating", "", "net operating income", money(operating["net_operating_income"])
        yield from _lines(end, "other/revenues", other["revenues"])
        yield from _lines(end, "other/expenses", other["expenses"])
        yield month, "other", "", "net other income", money(other["net_other_income"])
        yield month, "", "", "net income", money(data["net_income"])


def cash_flow(entity: EntityModel) -> Iterator[Row]:
    """Yield the lines and totals of each month's cash flow statement."""
    for start, end in months(entity):
        digest = entity.digest(from_date=start, to_date=end, cash_flow_statement=True)
        data = digest.get_cash_flow_statement_data()
        month = f"{end:%Y-%m}"
        for section in ("operating", "investing", "financing"):
            for code in sorted(data[section]):
                line = data[section][code]
                yield month, section, code, line["description"], money(line["balance"])
            yield month, section, "", "net cash", money(data["net_cash_by_activity"][section.upper()])
        yield month, "", "", "net income", money(data["net_income"])
        yield month, "", "", "net cash", money(data["net_cash"])


STATEMENTS: dict[str, Callable[[EntityModel], Iterator[Row]]] = {
    "balance_sheet": balance_sheet,
    "cash_flow": cash_flow,
    "income_statement": income_statement,
}
