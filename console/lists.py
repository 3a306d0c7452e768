"""Lists: search, sort, paging and CSV in one place, from rows in memory or a QuerySet.

A slice declares columns and calls `build`, then `respond`. The frame (search field, table head, paging, empty state) is
`parts/list.html`; the slice brings a template for one row, whose cells match the columns.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.cache import patch_cache_control, patch_vary_headers

PER_PAGE = 50
MAX_SEARCH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `value` gives what is sorted by and written to CSV; `order` is the field for a QuerySet.

    `css` may hold `num` (right aligned), `opt` (hidden on phones), `opt2` (hidden below 1180 px).
    """

    key: str
    label: Any
    value: Callable[[Any], Any] | None = None
    order: str = ""
    css: str = ""
    sortable: bool = True
    quiet: bool = False  # the label is for screen readers only
    csv: bool = True
    shown: bool = True  # else only in CSV

    @property
    def numeric(self) -> bool:
        return "num" in self.css.split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    value: str
    label: Any
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A drop-down beside the search field; its first choice is the default."""

    name: str
    label: Any
    choices: Sequence[Choice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """What an empty list says: why, what to do next, and the same thing as a command.

    `sampled`: the rows come from the monitor's picture, so that before its first sample nothing is known. `known`:
    False where the broker was asked for the rows and didn't tell.
    """

    title: Any
    hint: Any = ""
    command: str = ""
    sampled: bool = True
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A short table inside a page, without search and paging: what parts/table.html draws.

    `note`: what these rows are, beside the title. `more`: address and label of the page that has all of them.
    """

    name: str
    title: Any
    columns: Sequence[Column]
    rows: Sequence[Any]
    row_template: str
    css: str = ""
    note: Any = ""
    more: tuple[str, Any] | None = None
    empty: Empty | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    column: Column
    aria: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    choice: Choice
    selected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPage:
    """What parts/list.html draws."""

    name: str
    path: str
    row_template: str
    columns: Sequence[Column]
    heads: Sequence[Head]
    rows: Sequence[Any]
    page: Page[Any]
    text: str
    sort: str
    filters: Sequence[tuple[Filter, Sequence[Option]]]
    placeholder: Any
    empty: Empty
    narrowed: bool  # a search or filter is in force
    every: Any = field(repr=False)  # all rows of the search, for CSV
    parameters: Mapping[str, str] = field(default_factory=dict)
    refresh_on: str = ""  # a live key: the body is fetched again when its value is another than `drawn_at`
    drawn_at: str = ""

    @property
    def body_id(self) -> str:
        return f"{self.name}-body"

    def query(self, **changes: Any) -> str:
        """The list's address with `changes`; an empty value drops the parameter."""
        merged = {**self.parameters, **{key: str(value) for key, value in changes.items()}}
        kept = {key: value for key, value in merged.items() if value}
        return f"{self.path}?{urlencode(kept)}" if kept else self.path

    @property
    def here(self) -> str:
        """The address of exactly what is shown."""
        return self.query(page=self.page.number if self.page.number > 1 else "")

    @property
    def csv_url(self) -> str:
        return self.query(format="csv", page="")

    @property
    def pages(self) -> list[tuple[Any, str]]:
        paginator = self.page.paginator
        shown = paginator.get_elided_page_range(self.page.number, on_each_side=1, on_ends=1)
        return [(p, "" if not isinstance(p, int) else self.query(page="" if p == 1 else p)) for p in shown]

    @property
    def previous_url(self) -> str:
        return self.query(page=self.page.previous_page_number()) if self.page.has_previous() else ""

    @property
    def next_url(self) -> str:
        return self.query(page=self.page.next_page_number()) if self.page.has_next() else ""


def build(
    request: HttpRequest,
    *,
    name: str,
    columns: Sequence[Column],
    rows: Iterable[Any] | QuerySet[Any],
    row_template: str,
    search: Callable[..., Any] | None = None,
    sort: str = "",
    filters: Sequence[Filter] = (),
    placeholder: Any = "",
    empty: Empty,
    per_page: int = PER_PAGE,
    refresh_on: str = "",
    drawn_at: Any = None,
) -> ListPage:
    """Reads `q`, `sort`, `page` and the filters' names from the address.

    Rows in memory: `search(row)` gives the text that is looked in. A QuerySet: `search(rows, text)` gives the narrowed
    one. The caller applies the filters itself, having read the same parameters (`chosen`).
    `sort` is a column's key, with `-` in front for descending. `drawn_at` is what the live value `refresh_on` was
    before the rows were read, None for unknown.
    """
    text = request.GET.get("q", "").strip()[:MAX_SEARCH]
    keys = {column.key: column for column in columns if column.sortable}
    wanted = request.GET.get("sort", "")
    sort = wanted if wanted.lstrip("-") in keys else sort
    if isinstance(rows, QuerySet):
        found: Any = search(rows, text) if search and text else rows
        if sort and (order := keys[sort.lstrip("-")].order):
            found = found.order_by(f"-{order}" if sort.startswith("-") else order, "pk")
    else:
        found = list(rows)
        if search and text:
            words = text.casefold().split()
            found = [row for row in found if _has_all(search(row).casefold(), words)]
        if sort and (value := keys[sort.lstrip("-")].value):
            found = sorted_unknown_last(found, value, descending=sort.startswith("-"))
    page = Paginator(found, per_page).get_page(request.GET.get("page"))
    parameters = {"q": text, "sort": wanted if sort == wanted else ""}
    drawn = []
    for one in filters:
        picked = chosen(request, one)
        parameters[one.name] = "" if picked == one.choices[0].value else picked
        drawn.append((one, [Option(choice=choice, selected=choice.value == picked) for choice in one.choices]))
    narrowed = bool(text) or any(parameters[one.name] for one in filters)
    listing = ListPage(
        name=name,
        path=request.path,
        row_template=row_template,
        columns=columns,
        heads=(),
        rows=list(page.object_list),
        page=page,
        text=text,
        sort=sort,
        filters=drawn,
        placeholder=placeholder,
        empty=empty,
        narrowed=narrowed,
        every=found,
        parameters=parameters,
        refresh_on=refresh_on,
        drawn_at="" if drawn_at is None else str(drawn_at),
    )
    return replace(listing, heads=[_head(column, listing) for column in columns if column.shown])


def chosen(request: HttpRequest, one: Filter) -> str:
    """The filter's value in force."""
    value = request.GET.get(one.name, "")
    return value if value in {choice.value for choice in one.choices} else one.choices[0].value


def _has_all(haystack: str, words: list[str]) -> bool:
    return all(word in haystack for word in words)


def sorted_unknown_last(rows: list[Any], value: Callable[[Any], Any], *, descending: bool) -> list[Any]:
    """Sorted by value; rows whose value is unknown come last either way."""
    known = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    return sorted(known, key=lambda row: _folded(value(row)), reverse=descending) + unknown


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _head(column: Column, listing: ListPage) -> Head:
    aria, following = "none", f"-{column.key}" if column.numeric else column.key
    if listing.sort == column.key:
        aria, following = "ascending", f"-{column.key}"
    elif listing.sort == f"-{column.key}":
        aria, following = "descending", column.key
    return Head(column=column, aria=aria, query=listing.query(sort=following, page=""))


def respond(
    request: HttpRequest, listing: ListPage, template: str, context: Mapping[str, Any] | None = None
) -> HttpResponse:
    """CSV, the list's body for htmx, or the whole page."""
    if request.GET.get("format") == "csv":
        return _csv(listing)  # type: ignore[return-value]  # one that streams is taken for one that doesn't everywhere
    everything = {"list": listing, **(context or {})}
    if getattr(request, "htmx", None) and request.htmx.target == listing.body_id:  # type: ignore[attr-defined]  # set by the middleware
        fragment = render(request, "parts/list.html#body", everything)
        # Long enough for a page that the pointer asked for in advance to be there when it is clicked.
        patch_cache_control(fragment, private=True, max_age=2)
        patch_vary_headers(fragment, ("HX-Request", "HX-Target", "Cookie"))
        return fragment
    return render(request, template, everything)


class _Echo:
    def write(self, text: str) -> str:
        return text


def neutral(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula (OWASP: CSV injection)."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value


def _csv(listing: ListPage) -> StreamingHttpResponse:
    columns = [column for column in listing.columns if column.csv and (column.value or column.order)]
    writer = csv.writer(_Echo())

    def lines() -> Iterable[str]:
        yield "\ufeff" + str(writer.writerow([str(column.label) for column in columns]))
        rows = listing.every.iterator() if isinstance(listing.every, QuerySet) else listing.every
        for row in rows:
            cells = [column.value(row) if column.value else getattr(row, column.order) for column in columns]
            yield str(writer.writerow([neutral(cell) for cell in cells]))

    response = StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{listing.name}.csv"'
    return response
