"""One file of a data set on the Hub. Only a file that the data set lists is ever fetched, never what its README names.

`datasets.load_dataset` is not used: a data set's own settings can make it read local files or fetch other addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptune_core.data.kinds import ACCEPTED
from ptune_core.errors import DataError

_FORM = "hf://datasets/OWNER/NAME/FILE, or hf://datasets/OWNER/NAME@REVISION/FILE"
_REFERENCE = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/[\w-]+/[\w-]+|[\w.-]+))?(?:/(?P<file>.*))?"
)
_SECONDS = 10.0


def fetch_hub_file(
    reference: str,
    max_bytes: int,
    *,
    dataset_info: Callable[..., Any] | None = None,
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
    # Importing the Hub's library takes longer than reading most files.
    import huggingface_hub
    from huggingface_hub import errors

    match = _REFERENCE.fullmatch(reference.strip())
    if not match:
        raise DataError("This is not a file of a data set on the Hub", got=reference, needed=_FORM)
    repo, revision, file = match["repo"], match["revision"], match["file"] or ""
    # No token: a visitor of a public page must not read the private data sets of its owner.
    try:
        look_up = dataset_info or huggingface_hub.dataset_info
        info = look_up(repo, revision=revision, files_metadata=True, timeout=_SECONDS, token=False)
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
        _check_listed(repo, file, sizes, max_bytes)
        download = hf_hub_download or huggingface_hub.hf_hub_download
        return Path(download(repo, file, repo_type="dataset", revision=info.sha, token=False))
    except errors.GatedRepoError as error:
        raise _needs_sign_in(repo) from error
    except errors.RevisionNotFoundError as error:
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
        shown = ", ".join(usable[:20]) + (f" and {len(usable) - 20} more" if len(usable) > 20 else "")
        raise DataError(
            f"The data set {repo} has no file {file}" if file else f"Which file of the data set {repo}?",
            needed=f"one of {shown}" if usable else f"a file that can be read; {repo} has none",
        )
    size = sizes[file]
    if size is not None and size > max_bytes:
        raise DataError(
            f"{file} is too large", got=f"{size / 2**20:,.0f} MB", needed=f"at most {max_bytes / 2**20:,.0f} MB"
        )


def _needs_sign_in(repo: str) -> DataError:
    return DataError(
        f"The data set {repo} asks for its terms to be accepted",
        remedy=f"Accept them on https://huggingface.co/datasets/{repo}, download the file, and upload it here",
    )
