from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import errors

from ptune_core.data.hub import fetch_hub_file, find_split, list_splits, names_a_file
from ptune_core.data.ingest import load_source, open_table
from ptune_core.errors import DataError

MEGABYTE = 2**20


class Hub:
    """A Hub with one data set, which notes what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {"data/train.csv": 100, "data/big.parquet": 10 * MEGABYTE, "README.md": 10, "setup.py": 10}
        self.asked: list[tuple[Any, ...]] = []

    def dataset_info(self, repo: str, **options: Any) -> SimpleNamespace:
        self.asked.append(("info", repo, options["revision"], options["token"]))
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in self.files.items()]
        return SimpleNamespace(sha="c0ffee", siblings=siblings)

    def download(self, repo: str, file: str, **options: Any) -> str:
        self.asked.append(("download", repo, file, options["repo_type"], options["revision"], options["token"]))
        return str(self.folder / file)

    def fetch(self, reference: str) -> Path:
        return fetch_hub_file(reference, MEGABYTE, dataset_info=self.dataset_info, hf_hub_download=self.download)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


@pytest.mark.parametrize(
    ("name", "revision"),
    [("o-w/n.a_m", None), ("o/n@v1.0", "v1.0"), ("o/n@refs/convert/parquet", "refs/convert/parquet")],
)
def test_a_listed_file_is_fetched_at_the_commit_that_was_looked_at(hub: Hub, name: str, revision: str | None) -> None:
    """And without a token: a visitor must not read the private data sets of the page's owner."""
    repo = name.split("@")[0]
    assert hub.fetch(f" hf://datasets/{name}/data/train.csv\n") == hub.folder / "data/train.csv"
    assert hub.asked == [
        ("info", repo, revision, False),
        ("download", repo, "data/train.csv", "dataset", "c0ffee", False),
    ]


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "data/other.csv", "data", "train.csv", ""])
def test_only_listed_files_are_fetched(hub: Hub, file: str) -> None:
    with pytest.raises(DataError) as error:
        hub.fetch(f"hf://datasets/o/n/{file}")
    assert error.value.needed == "one of data/train.csv, data/big.parquet"
    assert [asked[0] for asked in hub.asked] == ["info"]


def test_a_data_set_without_a_file_named_asks_which(hub: Hub) -> None:
    with pytest.raises(DataError, match="Which file of the data set o/n"):
        hub.fetch("hf://datasets/o/n")
    hub.files = {"data.zip": 3}
    with pytest.raises(DataError, match="o/n has none"):
        hub.fetch("hf://datasets/o/n")


def test_a_file_over_the_limit_is_not_downloaded(hub: Hub) -> None:
    with pytest.raises(DataError, match="too large. Got: 10 MB. Needed: at most 1 MB"):
        hub.fetch("hf://datasets/o/n/data/big.parquet")
    assert [asked[0] for asked in hub.asked] == ["info"]


@pytest.mark.parametrize(
    "reference",
    ["hf://o/n/a.csv", "hf://datasets/a.csv", "hf://models/o/n/a.csv", "http://x/y/z.csv", "hf://datasets/../n/a"],
)
def test_other_references_are_refused_before_the_hub_is_asked(hub: Hub, reference: str) -> None:
    with pytest.raises(DataError):
        hub.fetch(reference.replace("..", "?"))
    assert hub.asked == []


def http_error(kind: type[errors.HfHubHTTPError]) -> errors.HfHubHTTPError:
    httpx = sys.modules[errors.HTTPError.__module__.split(".")[0]]
    return kind(
        "401 Client Error", response=httpx.Response(401, request=httpx.Request("GET", "https://huggingface.co"))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: http_error(errors.RepositoryNotFoundError), "There is no public data set o/n on the Hub"),
        (lambda: http_error(errors.GatedRepoError), "asks for its terms to be accepted"),
        (lambda: http_error(errors.RevisionNotFoundError), "has no revision v2"),
        (lambda: http_error(errors.HfHubHTTPError), "The Hub cannot be reached"),
        (lambda: errors.OfflineModeIsEnabled("offline"), "The Hub cannot be reached. Got: offline"),
        (
            lambda: errors.HTTPError("[Errno -2] Name or service not known"),
            "The Hub cannot be reached. Got: [Errno -2]",
        ),
        (lambda: TimeoutError(), "The Hub cannot be reached. Got: TimeoutError"),
        (lambda: errors.HFValidationError("bad"), "not the name of a data set"),
    ],
)
def test_what_the_hub_refuses_is_told(hub: Hub, make: Callable[[], Exception], message: str) -> None:
    """Without a connection `dataset_info` raises an error of the HTTP library, not one of `OSError`'s children."""

    def refuse(repo: str, **options: Any) -> None:
        raise make()

    with pytest.raises(DataError) as error:
        fetch_hub_file("hf://datasets/o/n@v2/a.csv", MEGABYTE, dataset_info=refuse)
    assert message in str(error.value)


def test_offline_is_a_clear_error(tmp_path: Path) -> None:
    """The real functions; the tests run with HF_HUB_OFFLINE."""
    with pytest.raises(DataError, match="The Hub cannot be reached"):
        load_source("hf://datasets/o/n/a.csv", tmp_path)


PARQUET = [
    "default/test/0000.parquet",
    "default/train/0001.parquet",
    "default/train/0000.parquet",
    "hard/train/0000.parquet",
    "README.md",
]


def parquet_hub(asked: list[tuple[Any, ...]], files: list[str] = PARQUET) -> Callable[..., SimpleNamespace]:
    def dataset_info(repo: str, **options: Any) -> SimpleNamespace:
        asked.append((repo, options["revision"], options["token"]))
        return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=name, size=9) for name in files])

    return dataset_info


@pytest.mark.parametrize("name", ["fancyzhx/ag_news", " hf://datasets/fancyzhx/ag_news\n"])
def test_splits_are_those_of_the_hubs_own_parquet_files(name: str) -> None:
    asked: list[tuple[Any, ...]] = []
    splits = list_splits(name, dataset_info=parquet_hub(asked))
    assert asked == [("fancyzhx/ag_news", "refs/convert/parquet", False)]
    assert [(split.config, split.name, len(split.files)) for split in splits] == [
        ("default", "train", 2),
        ("default", "test", 1),
        ("hard", "train", 1),
    ]
    assert splits[0].first_file == ("hf://datasets/fancyzhx/ag_news@refs/convert/parquet/default/train/0000.parquet")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("o/n", ("default", "train")),
        ("hf://datasets/o/n?split=test", ("default", "test")),
        ("hf://datasets/o/n?config=hard", ("hard", "train")),
        ("hf://datasets/o/n?split=train&config=hard", ("hard", "train")),
    ],
)
def test_a_reference_leads_to_its_split_and_back(reference: str, expected: tuple[str, str]) -> None:
    hub = parquet_hub([])
    split = find_split(reference, dataset_info=hub)
    assert (split.config, split.name) == expected
    assert find_split(split.reference, dataset_info=hub) == split and not names_a_file(split.reference)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf://datasets/o/n?config=easy", "no configuration easy. Needed: one of default, hard"),
        ("hf://datasets/o/n?split=dev", "no split dev. Needed: one of train, test"),
        ("hf://datasets/o/n?rows=3", "not a split of a data set. Got: rows"),
        ("not a name", "not the name of a data set"),
    ],
)
def test_what_a_data_set_does_not_have_is_told_with_what_it_has(reference: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        find_split(reference, dataset_info=parquet_hub([]))
    assert message in str(error.value)


def test_a_data_set_without_parquet_files_says_how_to_go_on() -> None:
    def refuse(repo: str, **options: Any) -> None:
        raise http_error(errors.RevisionNotFoundError)

    for hub in (refuse, parquet_hub([], ["README.md"])):
        with pytest.raises(DataError, match="no Parquet files of the data set o/n.*hf://datasets/o/n/FILE"):
            list_splits("o/n", dataset_info=hub)


def test_a_split_is_read_and_says_when_it_has_more_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "0000.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"]}), file)
    hub = parquet_hub([])
    monkeypatch.setattr("huggingface_hub.dataset_info", hub)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name, **options: str(file))
    table = load_source("hf://datasets/o/n?split=train", tmp_path / "out")
    assert table.columns == ("text", "label") and table.num_rows == 2
    assert table.source == "hf://datasets/o/n?config=default&split=train"
    assert any("has 2 files" in note for note in open_table(tmp_path / "out").notes)
