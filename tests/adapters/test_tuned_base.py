"""An adapter that brings the base model it was trained together with: loaded by PEFT and by ours, and not trusted."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ptune_core.adapters.card import model_card
from ptune_core.adapters.export import export_adapter
from ptune_core.adapters.format import load_adapter
from ptune_core.adapters.vectors import adapter_of
from ptune_core.errors import AdapterError
from ptune_core.inference.batch import InProcess
from ptune_core.model.base import load_base_model
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.tuned import learning, save_base_model, tunable
from ptune_core.prompt.template import TargetKind, parse_template

Alone = Callable[..., tuple[int, str, str]]
ROW = {"text": "the film was great"}
FRONT, BEHIND, HEAD = "[P*4] {text}[ANSWER:label]", "{text} [P*4][ANSWER:label]", "[P*4] {text} [HEAD:label]"


@pytest.fixture
def make_tuned(make_trained, tiny_gpt2: Path, tmp_path: Path) -> Callable[..., TrainedPrompt]:
    """A prompt with random weights and a base model that is not the one it was tuned from."""

    def make(template: str = FRONT, factor: float = 1.2, **changes: object) -> TrainedPrompt:
        target = parse_template(template).target.kind
        torch.manual_seed(3)
        base = tunable(load_base_model(str(tiny_gpt2), target=target, num_labels=2, device="cpu", precision="fp32"))
        with torch.no_grad():
            for _, weight in learning(base):
                weight.mul_(factor)
        save_base_model(base, tmp_path / "tuned")
        name = "score" if target is TargetKind.HEAD else None
        return make_trained("some/origin", template, head_name=name, tuned_base=tmp_path / "tuned", **changes)

    return make


@pytest.fixture
def exported(make_tuned, tmp_path: Path) -> Path:
    """The zip."""
    export_adapter(make_tuned(), tmp_path / "adapter", tmp_path / "adapter.zip")
    return tmp_path / "adapter.zip"


def unpacked(archive: Path, place: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(place)
    return place


@pytest.mark.parametrize("template", [FRONT, HEAD])
def test_stock_peft_loads_both_parts_of_the_zip(make_tuned, template: str, tmp_path: Path, alone: Alone) -> None:
    export_adapter(make_tuned(template), tmp_path / "adapter", tmp_path / "adapter.zip")
    home = unpacked(tmp_path / "adapter.zip", tmp_path / "home")
    kind = "AutoModelForSequenceClassification" if template == HEAD else "AutoModelForCausalLM"
    scores = (
        "logits[0]" if template == HEAD else "logits[0, -1, [rows.answer_ids(a)[0] for a in (' terrible', ' great')]]"
    )
    code, printed, errors = alone(
        f"import torch, json\nfrom peft import PeftModel\nfrom transformers import {kind}, AutoTokenizer\n"
        f"from ptune_loader import Rows\n"
        f"base = {kind}.from_pretrained('base_model')\n"
        f"model = PeftModel.from_pretrained(base, '.').eval()\n"
        f"rows = Rows('.', AutoTokenizer.from_pretrained('base_model'))\n"
        f"ids = [i for i in rows.ids({ROW!r}) if i >= 0]\n"
        f"with torch.no_grad():\n"
        f"    logits = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits\n"
        f"print(json.dumps({scores}.softmax(0).tolist()))",
        home,
    )
    assert code == 0, errors
    # Also from the zip, which nobody unpacked.
    for adapter in (home, tmp_path / "adapter.zip"):
        answer = InProcess().classify(adapter, [ROW])
        assert json.loads(printed) == pytest.approx(answer["tuned"][0], abs=1e-4)
    assert answer["note"]


@pytest.mark.parametrize("template", [FRONT, BEHIND, HEAD])
def test_the_script_in_the_zip_runs_without_ptune(make_tuned, template: str, tmp_path: Path, alone: Alone) -> None:
    export_adapter(make_tuned(template), tmp_path / "adapter", tmp_path / "adapter.zip")
    home = unpacked(tmp_path / "adapter.zip", tmp_path / "home")
    script = f"import runpy, sys\nsys.argv = ['', '{ROW['text']}']\nrunpy.run_path('snippet.py')"
    code, printed, errors = alone(script, home)
    assert code == 0, errors
    answer = InProcess().classify(tmp_path / "adapter", [ROW])
    assert [float(line.split("\t")[1]) for line in printed.splitlines()] == pytest.approx(answer["tuned"][0], abs=1e-4)


def test_what_it_is_is_said_everywhere(make_tuned, exported: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    sidecar = json.loads((adapter / "ptune.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("./base_model", None)
    assert sidecar["tuned_from"] == {"base_model": "some/origin", "revision": None}
    card = (adapter / "README.md").read_text()
    assert "**tuned**" in card and 'base_model_relation: "finetune"' in card and 'base_model: "some/origin"' in card
    loaded = load_adapter(exported)
    assert (loaded.base_model, loaded.tuned_base) == ("some/origin", exported)
    assert InProcess().describe(exported)["base_weights"] == "tuned"


def test_a_frozen_adapter_says_that_it_is_frozen_and_has_no_new_key(make_trained, tmp_path: Path) -> None:
    trained = make_trained("some/model")
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    assert "**frozen**" in model_card(trained)
    assert "tuned_from" not in json.loads((tmp_path / "adapter" / "ptune.json").read_text()), "older versions read it"


def test_a_zip_exported_again_is_the_same_zip(exported: Path, tmp_path: Path) -> None:
    export_adapter(load_adapter(exported), tmp_path / "again" / "adapter", tmp_path / "again.zip")
    names = [entry.filename for entry in zipfile.ZipFile(exported).infolist()]
    for name in names:
        if name != "README.md":  # which says how large a base model in a zip is
            assert zipfile.ZipFile(tmp_path / "again.zip").read(name) == zipfile.ZipFile(exported).read(name)


def test_a_base_model_trained_again_in_the_same_place_is_loaded_again(make_tuned, tmp_path: Path) -> None:
    classifier = InProcess()
    export_adapter(make_tuned(), tmp_path / "adapter", tmp_path / "adapter.zip")
    first = classifier.classify(tmp_path / "adapter", [ROW])
    export_adapter(make_tuned(factor=0.8), tmp_path / "adapter", tmp_path / "adapter.zip")
    second = classifier.classify(tmp_path / "adapter", [ROW])
    assert first["base"] != second["base"]
    assert second == InProcess().classify(tmp_path / "adapter", [ROW])


def test_a_frozen_adapter_in_its_place_leaves_no_base_model(make_tuned, make_trained, exported, tmp_path) -> None:
    export_adapter(make_trained("some/model"), tmp_path / "adapter", exported)
    assert not (tmp_path / "adapter" / "base_model").exists()
    assert not [name for name in zipfile.ZipFile(exported).namelist() if "base_model/" in name]


def refused(path: Path, *reasons: str) -> None:
    with pytest.raises(AdapterError) as caught:
        load_adapter(path)
    assert all(reason in str(caught.value) for reason in reasons), str(caught.value)


def packed(folder: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """The folder as a zip that somebody else made."""
    path = folder.parent / "strange.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


def edit(folder: Path, name: str, **changes: object) -> None:
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(values | changes))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", b"{}"),  # transformers would load the adapter it names, from anywhere
        ("modeling_gpt2.py", b"import os"),
        ("pytorch_model.bin", b"\x80\x04"),
        ("model.safetensors.index.json", b"{}"),
        ("model-00001-of-00002.safetensors", b""),
        ("more/config.json", b"{}"),
    ],
)
@pytest.mark.parametrize("is_zip", [False, True])
def test_no_other_file_may_be_beside_the_weights(exported, tmp_path, name: str, content: bytes, is_zip: bool) -> None:
    path = tmp_path / "adapter" / "base_model" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    refused(packed(tmp_path / "adapter") if is_zip else tmp_path / "adapter", name.split("/")[0])


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "auto_map", {"AutoModel": "evil/repo--modeling.Evil"}),
        ("config.json", "attn_implementation", "evil/kernels"),
        ("config.json", "text_config", {"_attn_implementation": "evil/kernels"}),
        ("config.json", "quantization_config", {"quant_method": "bitsandbytes"}),
        ("tokenizer_config.json", "auto_map", {"AutoTokenizer": ["evil/repo--tokenization.Evil", None]}),
    ],
)
def test_no_key_may_make_transformers_run_something(exported, tmp_path, name: str, key: str, value: object) -> None:
    edit(tmp_path / "adapter" / "base_model", name, **{key: value})
    for path in (tmp_path / "adapter", packed(tmp_path / "adapter")):
        refused(path, f"base_model/{name} says")


def test_weights_must_be_whole_fp32_and_not_compressed(exported: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    refused(packed(adapter, zipfile.ZIP_DEFLATED), "model.safetensors is compressed")
    weights = adapter / "base_model" / "model.safetensors"
    found = safetensors.torch.load_file(weights)
    weights.unlink()  # the file has other names too
    for path in (adapter, packed(adapter)):
        refused(path, "model.safetensors is missing")
    safetensors.torch.save_file({name: tensor.half() for name, tensor in found.items()}, weights)
    refused(adapter, "is not fp32")
    weights.write_bytes(b"\xff" * 64)
    refused(adapter, "not a complete safetensors file")
    weights.unlink()
    weights.mkdir()
    refused(adapter, "not a regular file")


def test_a_sidecar_that_contradicts_itself_is_refused(exported: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    for name in ("adapter_config.json", "ptune.json"):
        edit(adapter, name, **{"base_model_name_or_path" if "config" in name else "base_model": "some/model"})
    refused(adapter, "tuned_from and the base model do not fit")


def test_its_virtual_tokens_are_not_taken_for_another_base_model(exported: Path, tiny_gpt2: Path) -> None:
    # `import --vectors` put them beside the base model as it was before, without a word.
    base = load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    with pytest.raises(AdapterError, match="belong to the base model that was tuned with them"):
        adapter_of(FRONT, {"n": " terrible", "p": " great"}, exported, base)
