"""What models answered and what they saw, as HTML. Every text in it is escaped: it comes from people and models."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from ptune_core.app.texts import trying
from ptune_core.inference.batch import BatchReport
from ptune_core.inference.protocol import Seen
from ptune_core.ui.show import table

BASE, TUNED = "Base model alone", "Tuned model"
MOST_LABELS = 10
MOST_CELL = 200
_PIECES = {"text": "", "special": "special", "virtual": "virtual", "target": "target", "cut": "cut"}


def bars(title: str, labels: Sequence[str], probabilities: Sequence[float], beside: Sequence[float] = ()) -> str:
    """The likeliest labels with their probabilities, the likeliest first.

    Args:
        beside: What another model says of the labels: both then stand in that one's order.
    """
    by = beside or probabilities
    order = sorted(range(len(labels)), key=lambda i: -by[i])
    best = max(probabilities)
    rows = "".join(_bar(labels[i], probabilities[i], is_best=probabilities[i] == best) for i in order[:MOST_LABELS])
    left = len(labels) - MOST_LABELS
    more = f'<p class="quiet">and {left} less likely labels</p>' if left > 0 else ""
    return _pane(title, f'<div class="bars" role="list">{rows}</div>{more}')


def _bar(label: str, probability: float, *, is_best: bool) -> str:
    percent = 100 * probability
    digits = 0 if 1 <= percent <= 99 or percent in (0, 100) else 1
    return (
        f'<div class="bar{" best" if is_best else ""}" role="listitem">'
        f'<span class="name">{html.escape(label)}</span><span class="percent">{percent:.{digits}f}%</span>'
        f'<span class="track"><span style="width:{percent:.1f}%"></span></span></div>'
    )


def written(title: str, text: str) -> str:
    """A text as the model goes on with it."""
    return _pane(title, f'<div class="written">{html.escape(text)}</div>')


def chat(title: str, turns: Sequence[tuple[str, str]]) -> str:
    """A conversation: (what was said, what the model answered), oldest first."""
    said = "".join(
        f'<div class="said">{html.escape(text)}</div><div class="answered">{html.escape(answer) or "…"}</div>'
        for text, answer in turns
    )
    return _pane(title, f'<div class="chat">{said}</div>')


def _pane(title: str, content: str) -> str:
    return f'<section class="answer" aria-label="{title}"><h3>{title}</h3>{content}</section>'


def seen(found: Seen) -> str:
    """The exact tokens: virtual tokens as pills, the target outlined, what was cut struck through."""
    pieces = "".join(_piece(piece["text"], _PIECES[piece["kind"]]) for piece in found["pieces"])
    count = found["num_virtual_tokens"]
    text = f"{found['length'] - count} tokens and {count} virtual tokens: {found['length']} of {found['max_length']}"
    return f'<div class="seen">{pieces}</div><p class="quiet">{text}</p>'


def _piece(text: str, kind: str) -> str:
    shown = html.escape(text).replace("\n", "⏎\n")
    match kind:
        case "":
            return f"<span>{shown}</span>"
        case "cut":
            return f'<s class="cut" title="left out: the text is too long">{shown}</s>'
        case _:
            return f'<span class="{kind}" title="{kind} token">{shown}</span>'


def labelled(report: BatchReport) -> str:
    """What became of a file: counts, accuracy where labels were there, the first rows."""
    counts = ", ".join(f"{count:,} {label}" for label, count in report.labels.items() if count)
    lines = [f"{sum(report.labels.values()):,} rows labelled: {counts}."]
    if report.known:
        share = 100 * report.right / report.known
        lines.append(trying.accuracy(share, report.right, report.known))
    if report.blank:
        lines.append(trying.BLANK_ROWS.format(report.blank))
    lines += [f"{{{name}}} was read from the column {column}." for name, column in report.columns.items()]
    said = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    problems = "".join(f"<li>{html.escape(problem)}</li>" for problem in report.problems[:12])
    wrong = f'<div class="problem"><p>Rows that were left out</p><ol>{problems}</ol></div>' if problems else ""
    head, *rows = report.head
    cells = [[cell if len(cell) <= MOST_CELL else cell[:MOST_CELL] + "…" for cell in row] for row in rows]
    return f'<div class="labelled">{said}{wrong}{table(head, cells)}</div>'


def progress(done: int, rows: int) -> str:
    """A bar for a file that is being labelled."""
    share = 100 * done / max(1, rows)
    return (
        f'<div class="progress" role="progressbar" aria-valuenow="{share:.0f}" aria-valuemin="0" aria-valuemax="100">'
        f'<span style="width:{share:.1f}%"></span></div><p class="quiet">{trying.labelling(done, rows)}</p>'
    )


def said(values: Mapping[str, str]) -> str:
    """What a person said in one turn of a conversation, from the template's columns."""
    return "\n".join(text for text in values.values() if text.strip())
