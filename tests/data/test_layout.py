"""Parts of a batch: what is set apart can be put together again, and targets point at what they should."""

from __future__ import annotations

from ptune_core.data.batching import Row
from ptune_core.data.layout import Arrangement, make_batch

FRONT = [Row((-1, -2, 5, 6)), Row((-1, -2, 5)), Row((-1, -2, 5, 7, 8))]
AFTER = [Row((5, 6, -1, -2)), Row((7, -1, -2)), Row((-1, -2))]


def test_rows_that_begin_alike_share_their_beginning() -> None:
    batch = make_batch(FRONT, Arrangement(in_parts=True))
    assert batch.contexts == ()
    assert batch.shared.tolist() == [[-1, -2]], "one number of the shortest row must be left to be computed"
    assert batch.token_ids.tolist() == [[5, 6, 0], [5, 0, 0], [5, 7, 8]]
    assert batch.targets.tolist() == [1, 3, 8]


def test_text_before_the_first_virtual_token_is_context() -> None:
    batch = make_batch(AFTER, Arrangement(in_parts=True))
    assert batch.contexts == ((5, 6), (7,), ())
    assert batch.shared.tolist() == [[]]
    assert batch.virtual_index.tolist() == [[0, 1]] * 3
    assert batch.targets.tolist() == [1, 3, 5]


def test_the_same_context_everywhere_lets_the_prompt_be_shared() -> None:
    batch = make_batch([Row((5, 6, -1, -2, 7)), Row((5, 6, -1, -2, 8, 9))], Arrangement(in_parts=True))
    assert batch.contexts == ((5, 6), (5, 6))
    assert batch.shared.tolist() == [[-1, -2]]
    assert batch.token_ids.tolist() == [[7, 0], [8, 9]]


def test_text_without_virtual_tokens_and_single_rows_are_not_cut_apart() -> None:
    for rows in ([Row((5, 6, 7)), Row((5, 6, 8))], FRONT[:1]):
        batch = make_batch(rows, Arrangement(in_parts=True))
        assert batch.contexts == () and batch.shared.tolist() == [[]]
        assert batch.attention_mask.sum(dim=1).tolist() == [len(row.ids) for row in rows]


def test_whole_rows_mark_padding_and_virtual_tokens() -> None:
    batch = make_batch(AFTER)
    assert batch.contexts == () and batch.shared.tolist() == [[]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch.virtual_index.tolist() == [[-1, -1, 0, 1], [-1, 0, 1, -1], [0, 1, -1, -1]]
    assert batch.targets.tolist() == [3, 6, 9]


def test_every_answer_token_is_predicted_from_the_position_before_it() -> None:
    batch = make_batch([Row((5, -1)), Row((7,))], answers=[[8, 9], [3]])
    assert batch.token_ids.tolist() == [[5, 0, 8], [7, 0, 0]], "the last answer token is only predicted"
    assert batch.targets.tolist() == [1, 2, 3]
    assert batch.labels is not None and batch.labels.tolist() == [8, 9, 3]
