"""Adapters made to harm: refused with every reason at once, nothing else opened, nothing left behind."""

from __future__ import annotations

import io
import json
import pickle
import random
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ptune_core.adapters.export import export_zip
from ptune_core.adapters.format import load_adapter, save_adapter
from ptune_core.errors import AdapterError

CONFIG, TENSORS, SIDECAR, ENCODER = (
    "adapter_config.json", "adapter_model.safetensors", "ptune.json", "prompt_encoder.safetensors",
)  # fmt: skip


@pytest.fixture
def folder(make_trained, tmp_path) -> Path:
    save_adapter(make_trained("some/model"), tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def plain(folder: Path) -> Path:
    """The same as PEFT would have written it: without sidecar and encoder."""
    (folder / SIDECAR).unlink()
    (folder / ENCODER).unlink()
    return folder


def edit(folder: Path, name: str, **changes: object) -> None:
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(values | changes))


def write_tensors(folder: Path, **tensors: torch.Tensor) -> None:
    current = safetensors.torch.load_file(folder / TENSORS)
    safetensors.torch.save_file(current | tensors, folder / TENSORS, metadata={"format": "pt"})


def refused(path: Path, *reasons: str) -> str:
    with pytest.raises(AdapterError) as caught:
        load_adapter(path)
    for reason in reasons:
        assert reason in str(caught.value)
    return str(caught.value)


def test_all_problems_are_told_at_once(folder) -> None:
    edit(folder, CONFIG, num_virtual_tokens=-1, peft_type="LORA")
    edit(folder, SIDECAR, max_length="512", surprise=1)
    write_tensors(folder, **{"transformer.wte.weight": torch.zeros(2, 2)})
    text = refused(folder, "num_virtual_tokens", "LORA", "max_length", "surprise", "transformer.wte.weight")
    assert [f"{number}. " in text for number in range(1, 7)] == [True] * 5 + [False]


@pytest.mark.parametrize(
    "changes",
    [
        {"num_virtual_tokens": 10**9},
        {"num_virtual_tokens": 0},
        {"num_virtual_tokens": "4"},
        {"num_virtual_tokens": True},
        {"num_virtual_tokens": 5},
        {"token_dim": 64},
        {"peft_type": "MULTITASK_PROMPT_TUNING"},
        {"peft_type": "XLORA"},
        {"task_type": "TOKEN_CLS"},
        {"task_type": None},
        {"modules_to_save": ["lm_head"]},
        {"auto_mapping": {"base_model_class": "Evil", "parent_library": "os"}},
        {"num_transformer_submodules": 2},
        {"encoder_reparameterization_type": "GRU"},
        {"encoder_dropout": 7},
        {"base_model_name_or_path": "a\nb"},
        {"revision": "../.."},
    ],
)
def test_a_config_that_is_not_ours_is_refused(changes, plain) -> None:
    load_adapter(plain)
    edit(plain, CONFIG, **changes)
    refused(plain)


def test_keys_of_later_versions_of_peft_are_ignored(plain) -> None:
    edit(plain, CONFIG, some_new_option=3)
    assert load_adapter(plain).prompt_embeddings.shape == (4, 32)


@pytest.mark.parametrize(
    "tensors",
    [
        {"word_embeddings.weight": torch.zeros(9, 32)},
        {"base_model.transformer.wte.weight": torch.zeros(9, 32)},
        {"base_model.score.weight": torch.zeros(2, 32)},
        {"prompt_embeddings": torch.zeros(4, 33)},
        {"prompt_embeddings": torch.zeros(4, 32, 1)},
        {"prompt_embeddings": torch.zeros(4, 32, dtype=torch.int32)},
        {"prompt_embeddings": torch.full((4, 32), float("inf"))},
        {"prompt_embeddings": torch.full((4, 32), 1e30)},
    ],
)
def test_only_the_expected_tensors_are_taken(tensors, plain) -> None:
    """Bug of stock PEFT 0.21.2: a tensor under a base model's name replaces the base model's weights for everybody."""
    write_tensors(plain, **tensors)
    refused(plain, next(iter(tensors)))


def test_a_head_must_be_complete_and_of_one_size(make_trained, tmp_path) -> None:
    save_adapter(make_trained("some/model", "[P*4] {text} [HEAD:label]", head_name="classifier"), tmp_path)
    (tmp_path / SIDECAR).unlink()
    write_tensors(tmp_path, **{"base_model.classifier.bias": torch.zeros(3)})
    refused(tmp_path, "base_model.classifier.bias has the shape [3], not [2]")
    tensors = safetensors.torch.load_file(tmp_path / TENSORS)
    del tensors["base_model.classifier.bias"]
    safetensors.torch.save_file(tensors, tmp_path / TENSORS)
    refused(tmp_path, "'base_model.classifier.bias' is missing")


def _truncated(content: bytes) -> bytes:
    return content[:-10]


def _with_trailing_bytes(content: bytes) -> bytes:
    return content + b"PK\x03\x04"


def _with_huge_header(content: bytes) -> bytes:
    return struct.pack("<Q", 2**63) + content[8:]


def _with_doubled_tensor(content: bytes) -> bytes:
    size = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + size].strip()
    entry = json.dumps(json.loads(header)["prompt_embeddings"]).encode()
    doubled = header[:-1] + b',"prompt_embeddings":' + entry + b"}"
    return struct.pack("<Q", len(doubled)) + doubled + content[8 + size :]


def _with_overlapping_tensors(content: bytes) -> bytes:
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    header["prompt_embeddings"]["data_offsets"] = [0, 16]
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + content[8 + size :]


def _as_pickle(content: bytes) -> bytes:
    return pickle.dumps(content)


def _empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "damage",
    [
        _truncated, _with_trailing_bytes, _with_huge_header, _with_doubled_tensor, _with_overlapping_tensors,
        _as_pickle, _empty,
    ],
)  # fmt: skip
def test_damaged_tensor_files_are_refused(damage: Callable[[bytes], bytes], plain) -> None:
    file = plain / TENSORS
    file.write_bytes(damage(file.read_bytes()))
    refused(plain, TENSORS)


@pytest.mark.parametrize("name", [CONFIG, SIDECAR])
@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{", b"\xff\xfe", b"[" * 60_000, b'{"a":' * 9_000, b'{"max_length": ' + b"9" * 6000 + b"}",
        b'{"peft_type": "P_TUNING", "peft_type": "P_TUNING"}', b'{"encoder_dropout": NaN}', b" " * (2**24 + 1),
    ],
)  # fmt: skip
def test_damaged_json_is_refused(name, content, folder) -> None:
    (folder / name).write_bytes(content)
    refused(folder, name)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"template": "{text} [P*4][ANSWER:label]"}, "segments are not those of the template"),
        ({"template": "[P*4] {text}"}, "no target"),
        ({"segments": [{"kind": "exec", "text": "x"}]}, "segments.0"),
        ({"base_model": "other/model"}, "base models differ"),
        ({"revision": "main"}, "revisions differ"),
        ({"labels": ["positive", "negative"]}, "other labels"),
        ({"labels": []}, "other labels"),
        ({"verbalizer": None}, "labels do not fit the target"),
        ({"format_version": 2}, "format_version"),
        ({"special_tokens": False}, "special_tokens"),
    ],
)
def test_a_sidecar_that_contradicts_itself_or_the_config_is_refused(changes, reason, folder) -> None:
    edit(folder, SIDECAR, **changes)
    refused(folder, reason)


def test_a_placement_cannot_be_passed_off_as_a_front_prompt(make_trained, tmp_path) -> None:
    save_adapter(make_trained("some/model", "{text} [P*4][ANSWER:label]"), tmp_path)
    edit(tmp_path, CONFIG, peft_type="P_TUNING")
    refused(tmp_path, "does not fit the place", "prompt_embeddings")
    edit(tmp_path, CONFIG, peft_type="PTUNE_TEMPLATE")
    (tmp_path / SIDECAR).unlink()
    refused(tmp_path, "ptune.json is missing")


def test_virtual_tokens_cannot_take_rows_of_another_group(make_trained, tmp_path) -> None:
    save_adapter(make_trained("some/model", "[P*2] {text} [P*2][ANSWER:label]"), tmp_path)
    segments = json.loads((tmp_path / SIDECAR).read_text())["segments"]
    next(part for part in segments if part.get("group") == 1)["first_row"] = 1000
    edit(tmp_path, SIDECAR, segments=segments)
    refused(tmp_path, "first rows")


def test_an_encoder_of_another_shape_is_refused(folder) -> None:
    state = safetensors.torch.load_file(folder / ENCODER)
    state["encoder.embedding.weight"] = torch.zeros(400, 32)
    safetensors.torch.save_file(state | {"more": torch.zeros(1)}, folder / ENCODER)
    refused(folder, "encoder.embedding.weight has the shape [400, 32], not [4, 32]", "'more' does not belong here")


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [("none", "does not belong here"), ("paper-lama", "prompt encoders differ"), ("GRU", "encoder"), (7, "encoder")],
)
def test_a_kind_of_encoder_that_the_files_do_not_have_is_refused(encoder, reason, folder) -> None:
    edit(folder, SIDECAR, encoder=encoder)
    refused(folder, reason)


@pytest.mark.parametrize("name", ["adapter_model.bin", "prompt.pt", "x.pkl", "y.pth", "z.ckpt"])
def test_pickles_are_never_opened(name, folder, tmp_path) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(canary), "w"))

    (folder / name).write_bytes(pickle.dumps(Payload()))
    load_adapter(folder)
    refused(folder / name, "can run code")
    archive = packed(folder, extra=[name])
    refused(archive, "can run code")
    assert not canary.exists()


def packed(folder: Path, *, extra: list[str] | None = None, skip: tuple[str, ...] = ()) -> Path:
    path = folder.parent / "adapter.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in [CONFIG, TENSORS, SIDECAR, ENCODER, *(extra or [])]:
            if name not in skip:
                archive.write(folder / name, name)
    return path


def test_a_zip_loads_like_its_folder(folder, tmp_path) -> None:
    export_zip(folder, tmp_path / "adapter.zip")
    assert torch.equal(load_adapter(tmp_path / "adapter.zip").prompt_embeddings, load_adapter(folder).prompt_embeddings)


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_names_that_leave_the_archive_are_refused_and_nothing_is_written(name, folder, tmp_path) -> None:
    path = packed(folder)
    before = sorted(tmp_path.rglob("*"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    refused(path, "outside the archive")
    assert sorted(tmp_path.rglob("*")) == before


def test_links_in_a_zip_are_refused(folder) -> None:
    path = packed(folder, skip=(CONFIG,))
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo(CONFIG)
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    refused(path, f"{CONFIG} is a link")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_files_of_one_name_are_refused(folder) -> None:
    path = packed(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CONFIG, (folder / CONFIG).read_bytes())
    refused(path, f"{CONFIG} is in the archive twice")


def test_a_zip_bomb_is_cut_off(folder) -> None:
    path = packed(folder, skip=(SIDECAR,))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(SIDECAR, b" " * 2**26)
    assert path.stat().st_size < 2**17
    refused(path, f"{SIDECAR} holds more than 16,777,216 bytes")


def test_a_zip_of_very_many_entries_is_refused_before_they_are_read(folder, monkeypatch) -> None:
    path = packed(folder)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(2000):
            archive.writestr(f"file{number}", "")

    def unreachable(*_: object) -> None:
        raise AssertionError("the table of contents was read")

    monkeypatch.setattr(zipfile, "ZipFile", unreachable)
    refused(path, "far too many entries")


@pytest.mark.parametrize("how", ["truncated", "flipped", "text", "empty", "nested"])
def test_damaged_zips_are_refused(how, folder) -> None:
    path = packed(folder)
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[content.index(b"prompt_embeddings") + 200] ^= 0xFF
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as archive:
        archive.writestr("adapter.zip", bytes(content))
    damaged = {"truncated": content[:-30], "text": b"PK not a zip", "empty": b"", "nested": nested.getvalue()}
    path.write_bytes(bytes(damaged.get(how, content)))
    refused(path)


@pytest.mark.parametrize("name", [CONFIG, TENSORS, SIDECAR, ENCODER, "adapter.zip"])
def test_random_damage_is_refused_or_harmless(name, folder) -> None:
    """Every byte flipped, cut or doubled somewhere: an `AdapterError` or an adapter, never another exception."""
    path = packed(folder) if name == "adapter.zip" else folder / name
    whole = path.read_bytes()
    random_numbers = random.Random(0)
    outcomes = set()
    for _ in range(150):
        # The first bytes hold what is parsed; in a tensor file nearly all others are numbers.
        at = random_numbers.randrange(min(len(whole), 600) if random_numbers.random() < 0.5 else len(whole))
        flipped = bytes([whole[at] ^ (1 << random_numbers.randrange(8))])
        end = random_numbers.choice([at + 1, at + 1, at + 9, len(whole)])
        path.write_bytes(whole[:at] + flipped + whole[end:])
        try:
            outcomes.add(load_adapter(path if name == "adapter.zip" else folder).prompt_embeddings.shape)
        except AdapterError:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert outcomes <= {"refused", torch.Size([4, 32])}


def test_a_path_without_an_adapter_is_explained(tmp_path) -> None:
    refused(tmp_path / "nothing", "There is no adapter at")
    refused(tmp_path, "adapter_config.json is missing", "adapter_model.safetensors is missing")
