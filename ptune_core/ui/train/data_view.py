"""What the data card says of the rows, as HTML in which everything that came from people is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from ptune_core.app import texts
from ptune_core.app.data_report import DataReport
from ptune_core.app.token_preview import Lengths
from ptune_core.data.table import Table
from ptune_core.errors import DataError, PTuneError
from ptune_core.ui.show import inline_error, inline_problems

MOST_LABELS = 30
MOST_REMARKS = 30


def report_html(report: DataReport, table: Table) -> str:
    """Which rows are used, and, folded under Show, why others are not and how the labels are spread."""
    head, _, rest = report.text.partition("; ")
    lines = [f"<p><b>{html.escape(head)}.</b> {html.escape(_sentence(rest))}</p>"]
    if report.labels:
        lines.append(f'<p class="quiet">{html.escape(_labels_line(report.labels))}</p>')
    remarks = [*report.problems, *table.notes]
    details = _remarks(remarks) + _balance(report.labels)
    if details:
        told = f"Show {len(remarks)} remark{'s' * (len(remarks) != 1)}" if remarks else "Show"
        lines.append(_folded("report", told, details))
    return "".join(lines)


def failed_html(error: PTuneError, table: Table) -> str:
    """Why the rows cannot be used, and what could not be read of them."""
    if isinstance(error, DataError) and error.problems:
        return inline_error(error)
    return inline_error(error) + inline_problems("Rows that could not be read", table.problems)


def lengths_html(found: Lengths) -> str:
    """How long the rows are and how many are cut, and a histogram folded under Show."""
    low, high = min(found.lengths), max(found.lengths)
    middle = sorted(found.lengths)[len(found.lengths) // 2]
    span = f"{low} to {high}" if low != high else str(low)
    line = f"Length: {span} {found.unit}, half of the rows up to {middle}."
    if found.cut is None:
        line += f" {texts.NO_TOKENIZER_YET}"
    elif found.cut:
        line += f" {_share(found.cut, len(found.lengths))} of them are cut at {found.max_length} tokens."
    else:
        line += f" None is cut: there is room for {found.max_length} tokens."
    if len(found.lengths) < found.num_rows:
        line += f" Measured on {len(found.lengths):,} of {found.num_rows:,} rows."
    return quiet_line(line) + _folded("lengths", "Show lengths", _histogram(found))


def quiet_line(text: str) -> str:
    """A line of small text; nothing for none."""
    return f'<p class="quiet">{html.escape(text)}</p>' if text else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _labels_line(labels: Mapping[str, int]) -> str:
    shown = " · ".join(f"{label[:40]} {count}" for label, count in list(labels.items())[:8])
    more = " · …" if len(labels) > 8 else ""
    return f"{len(labels)} labels: {shown}{more}"


def _remarks(remarks: Sequence[str]) -> str:
    if not remarks:
        return ""
    items = "".join(f"<li>{html.escape(remark)}</li>" for remark in remarks[:MOST_REMARKS])
    more = f"<p>… and {len(remarks) - MOST_REMARKS} more.</p>" if len(remarks) > MOST_REMARKS else ""
    return f"<ol>{items}</ol>{more}"


def _balance(labels: Mapping[str, int]) -> str:
    """A bar for each label, with its rows."""
    if not labels:
        return ""
    most = max(1, *labels.values())
    bars = "".join(
        f'<div class="bar-row"><span class="bar-name">{html.escape(label[:60])}</span>'
        f'<span class="bar"><span style="width:{100 * count / most:.1f}%"></span></span>'
        f'<span class="bar-count">{count}</span></div>'
        for label, count in list(labels.items())[:MOST_LABELS]
    )
    more = f"<p>… and {len(labels) - MOST_LABELS} more labels.</p>" if len(labels) > MOST_LABELS else ""
    return f'<div class="bars">{bars}</div>{more}'


def _histogram(found: Lengths) -> str:
    bars = found.bars()
    most = max(count for _, _, count in bars)
    drawn = "".join(
        f'<span class="column" title="{low} to {high} {found.unit}: {count} rows">'
        f'<span style="height:{100 * count / most:.1f}%"></span></span>'
        for low, high, count in bars
    )
    told = ", ".join(f"{low} to {high}: {count}" for low, high, count in bars if count)
    label = html.escape(f"Rows by length in {found.unit}: {told}")
    ends = f"<span>{bars[0][0]}</span><span>{bars[-1][1]} {found.unit}</span>"
    return f'<div class="histogram" role="img" aria-label="{label}">{drawn}</div><div class="ends">{ends}</div>'


def _folded(key: str, summary: str, content: str) -> str:
    return f'<details data-key="{key}"><summary>{html.escape(summary)}</summary>{content}</details>'


def _share(count: int, total: int) -> str:
    share = 100 * count / total
    return "less than 1%" if share < 1 else f"{share:.0f}%"
