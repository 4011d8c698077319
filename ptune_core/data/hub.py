"""One file of a data set on the Hub. Only a file that the data set lists is ever fetched, never what its README names.

A configuration and split are found among the Parquet files that the Hub itself makes of every public data set, in the
branch `refs/convert/parquet` (`CONFIG/SPLIT/0000.parquet`). `datasets.load_dataset` is not used: a data set's own
settings can make it read local files or fetch other addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ptune_core.data.kinds import ACCEPTED
from ptune_core.errors import DataError

SPLIT_FORM = "hf://datasets/OWNER/NAME?config=CONFIG&split=SPLIT"

_FORM = f"hf://datasets/OWNER/NAME/FILE, hf://datasets/OWNER/NAME@REVISION/FILE, or {SPLIT_FORM}"
_NAME = r"[\w.-]+/[\w.-]+"
_REFERENCE = re.compile(
    rf"hf://datasets/(?P<repo>{_NAME})(?:@(?P<revision>refs/[\w-]+/[\w-]+|[\w.-]+))?(?:/(?P<file>.*))?"
)
_SPLIT = re.compile(rf"(?:hf://datasets/)?(?P<repo>{_NAME})(?:\?(?P<query>.*))?")
_PARQUET = "refs/convert/parquet"
_PARQUET_FILE = re.compile(r"(?P<config>.+)/(?P<split>[^/]+)/\d+\.parquet")
_SECONDS = 10.0

LookUp = Callable[..., Any]
"""`huggingface_hub.dataset_info`, or what stands for it in a test."""


@dataclass(frozen=True)
class HubSplit:
    """One split of a data set on the Hub.

    Attributes:
        repo: ``OWNER/NAME``.
        config: Name of the configuration; `default` where there is only one.
        name: Name of the split, such as `train`.
        files: Its Parquet files, in order.
    """

    repo: str
    config: str
    name: str
    files: tuple[str, ...]

    @property
    def reference(self) -> str:
        """What `RunSettings.data` calls it."""
        return f"hf://datasets/{self.repo}?{urlencode({'config': self.config, 'split': self.name})}"

    @property
    def first_file(self) -> str:
        """The reference of its first file."""
        return f"hf://datasets/{self.repo}@{_PARQUET}/{self.files[0]}"


def list_splits(reference: str, *, dataset_info: LookUp | None = None) -> list[HubSplit]:
    """Every configuration and split of a data set; `train` comes first in each configuration.

    Args:
        reference: ``OWNER/NAME``, perhaps after ``hf://datasets/``; what it says of a split is left aside.
        dataset_info: As in `huggingface_hub`, which it comes from by default.

    Raises:
        DataError: There is no such data set, it needs a sign-in, the Hub has made no Parquet files of it, or there is
            no connection.
    """
    match = _SPLIT.fullmatch(reference.strip())
    if not match:
        raise DataError("This is not the name of a data set on the Hub", got=reference, needed="OWNER/NAME")
    repo = match["repo"]
    with _explained(repo, _PARQUET):
        info = _look_up(dataset_info)(repo, revision=_PARQUET, timeout=_SECONDS, token=False)
    found: dict[tuple[str, str], list[str]] = {}
    for name in sorted(sibling.rfilename for sibling in info.siblings or ()):
        if file := _PARQUET_FILE.fullmatch(name):
            found.setdefault((file["config"], file["split"]), []).append(name)
    if not found:
        raise _no_parquet(repo)
    splits = [HubSplit(repo, config, split, tuple(files)) for (config, split), files in found.items()]
    return sorted(splits, key=lambda each: (each.config != "default", each.config, each.name != "train", each.name))


def find_split(reference: str, *, dataset_info: LookUp | None = None) -> HubSplit:
    """The split that a reference names: `hf://datasets/OWNER/NAME?config=CONFIG&split=SPLIT`.

    Raises:
        DataError: As `list_splits` and `find_split_in`.
    """
    return find_split_in(list_splits(reference, dataset_info=dataset_info), reference)


def find_split_in(splits: Sequence[HubSplit], reference: str) -> HubSplit:
    """The one of a data set's splits that a reference names.

    Without a configuration it is the first one, without a split it is `train` or the first one.

    Raises:
        DataError: There is no such configuration or split; those that there are are named.
    """
    match = _SPLIT.fullmatch(reference.strip())
    asked = dict(parse_qsl((match["query"] if match else "") or ""))
    if strange := set(asked) - {"config", "split"}:
        raise DataError("This is not a split of a data set", got=", ".join(sorted(strange)), needed=SPLIT_FORM)
    repo, config = splits[0].repo, asked.get("config", splits[0].config)
    of_config = [split for split in splits if split.config == config]
    if not of_config:
        names = list(dict.fromkeys(split.config for split in splits))
        raise DataError(f"The data set {repo} has no configuration {config}", needed=_one_of(names))
    wanted = asked.get("split", of_config[0].name)
    found = next((split for split in of_config if split.name == wanted), None)
    if found is None:
        raise DataError(
            f"The data set {repo} has no split {wanted}", needed=_one_of([split.name for split in of_config])
        )
    return found


def names_a_file(reference: str) -> bool:
    """Whether a reference says which file; else it is a data set, perhaps with a configuration and a split."""
    return _SPLIT.fullmatch(reference.strip()) is None


def fetch_hub_file(
    reference: str,
    max_bytes: int,
    *,
    dataset_info: LookUp | None = None,
    hf_hub_download: Callable[..., str] | None = None,
) -> Path:
    """Download the file that `reference` names, or find it in the cache of earlier downloads.

    Args:
        reference: `hf://datasets/OWNER/NAME[@REVISION]/FILE`.
        max_bytes: Largest size that is downloaded.
        dataset_info, hf_hub_download: As in `huggingface_hub`, which they come from by default.

    Raises:
        DataError: The reference has another form, the data set or file does not exist, needs a sign-in or is too
            large, or there is no connection.
    """
    match = _REFERENCE.fullmatch(reference.strip())
    if not match:
        raise DataError("This is not a file of a data set on the Hub", got=reference, needed=_FORM)
    repo, revision, file = match["repo"], match["revision"], match["file"] or ""
    # No token: a visitor of a public page must not read the private data sets of its owner.
    with _explained(repo, revision):
        info = _look_up(dataset_info)(repo, revision=revision, files_metadata=True, timeout=_SECONDS, token=False)
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
        _check_listed(repo, file, sizes, max_bytes)
        return Path(_download(hf_hub_download)(repo, file, repo_type="dataset", revision=info.sha, token=False))


def _look_up(given: LookUp | None) -> LookUp:
    # Importing the Hub's library takes longer than reading most files.
    import huggingface_hub

    return given or huggingface_hub.dataset_info


def _download(given: Callable[..., str] | None) -> Callable[..., str]:
    import huggingface_hub

    return given or huggingface_hub.hf_hub_download


@contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """What the Hub's library raises, as a `DataError` that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise _needs_sign_in(repo) from error
    except errors.RevisionNotFoundError as error:
        if revision == _PARQUET:
            raise _no_parquet(repo) from error
        raise DataError(f"The data set {repo} has no revision {revision}", needed="a branch, tag or commit") from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"There is no public data set {repo} on the Hub",
            needed=_FORM,
            remedy="Check the spelling. If it is private, download the file and upload it here",
        ) from error
    except errors.HFValidationError as error:
        raise DataError("This is not the name of a data set", got=repo, needed=_FORM) from error
    except (OSError, errors.HTTPError, errors.XetDownloadError) as error:
        raise DataError(
            "The Hub cannot be reached",
            got=str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__,
            remedy="Check the connection and try again, or upload the file",
        ) from error


def _check_listed(repo: str, file: str, sizes: dict[str, int | None], max_bytes: int) -> None:
    if file not in sizes:
        usable = [name for name in sizes if name.lower().endswith(ACCEPTED)]
        raise DataError(
            f"The data set {repo} has no file {file}" if file else f"Which file of the data set {repo}?",
            needed=_one_of(usable) if usable else f"a file that can be read; {repo} has none",
        )
    size = sizes[file]
    if size is not None and size > max_bytes:
        raise DataError(
            f"{file} is too large", got=f"{size / 2**20:,.0f} MB", needed=f"at most {max_bytes / 2**20:,.0f} MB"
        )


def _one_of(names: Sequence[str], most: int = 20) -> str:
    return f"one of {', '.join(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")


def _needs_sign_in(repo: str) -> DataError:
    return DataError(
        f"The data set {repo} asks for its terms to be accepted",
        remedy=f"Accept them on https://huggingface.co/datasets/{repo}, download the file, and upload it here",
    )


def _no_parquet(repo: str) -> DataError:
    return DataError(
        f"The Hub has made no Parquet files of the data set {repo}, so its splits are not known",
        remedy=f"Name one of its files, as in hf://datasets/{repo}/FILE",
    )
