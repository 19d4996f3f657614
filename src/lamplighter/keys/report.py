"""An audit as text: for a terminal, as JSON, CSV, Markdown evidence, SARIF 2.1.0 and Prometheus text. Pure.

The same audit gives the same bytes. Keys are named by id and name, stores by their addresses; there is no value here to
show. Where keys were used from is left out unless it is asked for.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from lamplighter.keys.audit import Audit
from lamplighter.keys.findings import Finding
from lamplighter.keys.report_base import Meta, clean, document, gap_text, moment, summary
from lamplighter.keys.report_markdown import as_markdown
from lamplighter.keys.report_prometheus import as_prometheus
from lamplighter.keys.report_sarif import as_sarif

Format = Literal["table", "json", "csv", "markdown", "sarif", "prometheus"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

#: What makes a spreadsheet take a cell for a formula, the full-width forms included.
_FORMULA: Final = frozenset("=+-@|%\uff1d\uff0b\uff0d\uff20")
_COLUMNS: Final = (
    "kind",
    "rule",
    "severity",
    "key_id",
    "name",
    "lineage",
    "sink",
    "sentence",
    "advice",
    "reason",
    "until",
    "line",
)


def render(audit: Audit, form: Format, meta: Meta) -> str:
    """The report, with a line break at its end."""
    return _WRITERS[form](audit, meta)


def as_json(audit: Audit, meta: Meta) -> str:
    """`document`, indented; every character beyond ASCII is escaped."""
    return json.dumps(document(audit, meta), indent=2, ensure_ascii=True) + "\n"


# CSV


def as_csv(audit: Audit, meta: Meta) -> str:
    """One row for each finding, ignored finding, gap and rotation to recover, which the column `kind` tells apart."""
    columns = (*_COLUMNS, "addresses") if meta.addresses else _COLUMNS
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in _rows(audit):
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return file.getvalue()


def _rows(audit: Audit) -> Iterator[dict[str, Any]]:
    for each in audit.findings:
        yield _row(each, "finding")
    for each in audit.ignored:
        yield _row(each, "ignored")
    for gap in audit.gaps:
        yield {"kind": "could not look", "name": gap.what, "sentence": gap.source, "reason": gap.reason}
    for name in audit.unfinished:
        yield {"kind": "unfinished", "lineage": name, "advice": "lamp keys recover"}


def _row(finding: Finding, kind: str) -> dict[str, Any]:
    about, ignored = finding.problem, finding.ignored
    return {
        "kind": kind,
        "rule": finding.rule,
        "severity": finding.severity,
        "key_id": about.key_id,
        "name": about.name,
        "lineage": about.lineage,
        "sink": about.sink,
        "sentence": about.sentence,
        "advice": about.advice,
        "reason": ignored.reason if ignored else None,
        "until": moment(ignored.until) if ignored else None,
        "line": finding.line,
        "addresses": " ".join(about.addresses),
    }


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = clean(str(value))
    # A spreadsheet takes blanks before a formula for nothing.
    return f"'{text}" if text.lstrip()[:1] in _FORMULA and text.strip() else text


# Table


def as_table(audit: Audit, meta: Meta) -> str:
    """For people: what is wrong and what to do, the worst first; then what could not be looked at."""
    lines = list(_table(audit, meta))
    for each in audit.excuses:
        if each.state != "in force":
            ended = "ended" if each.state == "expired" else "matches nothing; it ends"
            lines.append(
                clean(f"ignore of {each.ignore.rule}, line {each.ignore.line}: {ended} {moment(each.ignore.until)}")
            )
    lines += [clean(f"could not look at {gap_text(gap)}") for gap in audit.gaps]
    lines += [clean(f"unfinished: {name}; run `lamp keys recover`") for name in audit.unfinished]
    return "\n".join([*lines, clean(summary(audit))]) + "\n"


def _table(audit: Audit, meta: Meta) -> Iterator[str]:
    cells = [(each.severity, each.rule, clean(each.problem.subject)) for each in audit.findings]
    if not cells:
        return
    widths = [max(map(_width, column)) for column in zip(*cells, ("SEVERITY", "RULE", "SUBJECT"), strict=True)]
    yield _line(("SEVERITY", "RULE", "SUBJECT"), widths, "FINDING")
    for row, each in zip(cells, audit.findings, strict=True):
        said = each.problem.sentence
        if meta.addresses and each.problem.addresses:
            said += f" ({', '.join(each.problem.addresses)})"
        yield _line(row, widths, clean(said))
        yield _line(("", "", ""), widths, clean(f"-> {each.problem.advice}"))


def _line(cells: tuple[str, ...], widths: list[int], last: str) -> str:
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join([*padded, last])


def _width(text: str) -> int:
    """Columns of a terminal."""
    return sum(0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


_WRITERS: Final[Mapping[Format, Callable[[Audit, Meta], str]]] = MappingProxyType(
    {
        "table": as_table,
        "json": as_json,
        "csv": as_csv,
        "markdown": as_markdown,
        "sarif": as_sarif,
        "prometheus": as_prometheus,
    }
)
