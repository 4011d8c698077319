"""How much arithmetic a training step of P-tuning cannot do without.

The limit of a method on a machine is these FLOPs divided by the rate at which the machine multiplies matrices of the
same sizes (`machine.MatmulRate`). A product of `[m, k]` and `[k, n]` is `2 m k n` FLOPs. Counted are products alone:
norms, activations, softmax and the optimizer are free, and so is padding, because the method needs none of it.

Per layer of width H with inner width I, a row costs `8 H^2` in attention (queries, keys, values, output: 2 H^2 each)
and `4 H I` in the MLP; the base model is frozen, so the way back costs the same again (gradients of inputs, none of
weights). What is needed of it:

- **Text before the first virtual token** (a text cache): nothing that is trained can change it. Nothing in later
  epochs; in the first, the way forward, and in the last layer of it keys and values alone.
- **A prompt that all rows of the batch share** (in front): its P rows once per batch, not once per example, there and
  back.
- **Other virtual tokens, and text after the first of them**: there and back for every example. Two exceptions. In the
  last layer only keys and values (`4 H^2`) of every row are needed, the rest only for the row whose output is the
  answer. In the first layer the way back ends, for a row of text, at what went into attention's output product: its
  embedding is constant, so queries, keys and values (`6 H^2`) need no gradient.
- **Attention**, per pair of a row and a position it sees: `4 H` forward (scores, weighted sum); back `8 H` (both, with
  respect to both factors), or `4 H` where the position is cached text, whose keys and values need no gradient. In the
  last layer only the pairs of the answer's row.
- **The vocabulary head**: only the answer's row, and of the vocabulary only the verbalizer's words. Nearly nothing.
- **The prompt encoder** (MLP of three products `H x H`): P rows, forward, gradients of inputs and of weights.

Stock PEFT computes every row of the padded batch there and back through all layers and through the vocabulary head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptune_core.data.batching import Row


@dataclass(frozen=True)
class Shape:
    """A transformer: L layers of width H with inner width I; `causal` rows see only what stands before them."""

    layers: int
    hidden: int
    inner: int
    causal: bool

    @property
    def products(self) -> list[tuple[int, int]]:
        """`(inputs, outputs)` of the products of one layer, queries, keys and values as one."""
        return [
            (self.hidden, 3 * self.hidden),
            (self.hidden, self.hidden),
            (self.hidden, self.inner),
            (self.inner, self.hidden),
        ]

    @property
    def row(self) -> int:
        """FLOPs of one row through the products of one layer."""
        return sum(2 * inputs * outputs for inputs, outputs in self.products)

    @property
    def keys_and_values(self) -> int:
        """FLOPs of one row's keys and values in one layer."""
        return 4 * self.hidden**2


@dataclass(frozen=True)
class Counts:
    """Rows and pairs of one batch.

    Attributes:
        examples: Examples.
        prompt_rows: Virtual tokens that are computed.
        text_rows: Text after the first virtual token that is computed.
        context_rows: Text before it.
        live_pairs: Pairs of a computed row and a computed position it sees.
        cached_pairs: Pairs of a computed row and a position before the first virtual token.
        context_pairs: Pairs within that text.
        answer_pairs: Positions that the answers' rows see.
    """

    examples: int
    prompt_rows: int
    text_rows: int
    context_rows: int
    live_pairs: int
    cached_pairs: int
    context_pairs: int
    answer_pairs: int


def count(rows: Sequence[Row], causal: bool) -> Counts:
    """Rows and pairs of a batch of `rows`."""
    contexts = [len(row.context) if causal else 0 for row in rows]
    lengths = [len(row.ids) - context for row, context in zip(rows, contexts, strict=True)]
    prompt = sum(number < 0 for number in rows[0].ids)
    is_shared = causal and not any(contexts)
    again = len(rows) - 1 if is_shared else 0
    pairs = [_pairs(length, causal) for length in lengths]
    return Counts(
        examples=len(rows),
        prompt_rows=prompt * (len(rows) - again),
        text_rows=sum(length - prompt for length in lengths),
        context_rows=sum(contexts),
        live_pairs=sum(pairs) - again * _pairs(prompt, causal),
        cached_pairs=sum(length * context for length, context in zip(lengths, contexts, strict=True)),
        context_pairs=sum(_pairs(context, causal) for context in contexts),
        answer_pairs=sum(len(row.ids) for row in rows),
    )


def _pairs(rows: int, causal: bool) -> int:
    return rows * (rows + 1) // 2 if causal else rows**2


def needed(shape: Shape, counts: Counts, prompt_tokens: int, *, filling: bool = False) -> float:
    """FLOPs of one training step, as the module's text counts them.

    Args:
        shape: The base model.
        counts: The batch.
        prompt_tokens: P, what the prompt encoder makes.
        filling: Whether the text before the first virtual token is computed too, as in the first epoch.
    """
    inner_layers, h = shape.layers - 1, shape.hidden
    rows = counts.prompt_rows + counts.text_rows
    last = rows * shape.keys_and_values + counts.examples * (shape.row - shape.keys_and_values)
    last += 4 * h * counts.answer_pairs
    forward = rows * shape.row * inner_layers + last
    forward += 4 * h * (counts.live_pairs + counts.cached_pairs) * inner_layers
    back = rows * shape.row * inner_layers - counts.text_rows * 6 * h**2 + last
    back += (8 * h * counts.live_pairs + 4 * h * counts.cached_pairs) * inner_layers
    encoder = 3 * prompt_tokens * 3 * 2 * h**2
    context = 0
    if filling:
        context = counts.context_rows * (shape.row * inner_layers + shape.keys_and_values)
        context += 4 * h * counts.context_pairs * inner_layers
    return forward + back + encoder + context
