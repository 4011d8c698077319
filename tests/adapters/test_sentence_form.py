"""A head on an encoder as a model of sentence-transformers: the stock package gives the adapter's own scores."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    AutoTokenizer,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from ptune_core.__main__ import main
from ptune_core.adapters import ptune_loader
from ptune_core.adapters.export import export_adapter
from ptune_core.adapters.format import template_of
from ptune_core.adapters.sentence_form import export_sentence_transformers
from ptune_core.data.batching import Row, RowMaker
from ptune_core.errors import AdapterError
from ptune_core.model.base import load_base_model, with_head_input
from ptune_core.model.head_input import HeadInput
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.template import TargetKind, parse_template

FRONT = "[P*4] {text} [HEAD:label]"
FIRST = "[CLS] [P*4] {text} [SEP] [HEAD:label]"
TEXTS = (
    "the film was great",
    "",
    " ",
    "A terrible , boring waste of time ; the food was bad .  ",
    "Is [SEP] the [CLS] film [MASK] <|ptune|> </s> <s> <|endoftext|> good ?",
    "[CLS] the film",
    "the film was great and I loved every minute of it . " * 9,
)
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.4,
}  # fmt: skip
ENCODERS = ("bert", "own class", "roberta", "xlm-roberta", "albert", "distilbert", "modernbert")


@pytest.fixture
def encoder(request: pytest.FixtureRequest, tiny_bert: Path, tmp_path: Path) -> Path:
    """Folder of a tiny encoder of a family."""
    if request.param == "bert":
        return tiny_bert
    folder = tmp_path / "encoder"
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_bert)
    size = len(tokenizer)
    torch.manual_seed(6)
    if request.param == "own class":  # whose class builds the tokenizer anew whenever it is loaded
        tokenizer = BertTokenizer(vocab=tokenizer.get_vocab())
        model: Any = AutoModel.from_pretrained(tiny_bert)
    elif request.param == "roberta":
        tokenizer = byte_level()
        own = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
        model = RobertaModel(
            RobertaConfig(vocab_size=len(tokenizer), **(SMALL | {"max_position_embeddings": 66}), **own)
        )
    elif request.param == "xlm-roberta":
        tokenizer = metaspace()
        own = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
        model = RobertaModel(
            RobertaConfig(vocab_size=len(tokenizer), **(SMALL | {"max_position_embeddings": 66}), **own)
        )
    elif request.param == "albert":  # embeddings narrower than hidden states, and spare rows
        model = AlbertModel(AlbertConfig(vocab_size=size + 9, embedding_size=16, **SMALL))
    elif request.param == "distilbert":
        model = DistilBertModel(
            DistilBertConfig(vocab_size=size, dim=32, hidden_dim=64, n_layers=2, n_heads=4, initializer_range=0.4)
        )
    else:
        own = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
        model = ModernBertModel(ModernBertConfig(vocab_size=size, **SMALL, **own))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def byte_level() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*TEXTS, "a " * 20], trainer)
    made = json.loads(tokenizer.to_str())["model"]
    return RobertaTokenizer(vocab=made["vocab"], merges=[tuple(pair) for pair in made["merges"]])


def metaspace() -> Any:
    """Of words and characters; the library's trainer would find other pieces in each process."""
    words = sorted({f"▁{word}" for text in TEXTS for word in text.split()})
    characters = sorted({character for word in words for character in word})
    special = {piece: 0.0 for piece in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")}
    scores = special | {piece: -9.0 for piece in characters} | {piece: -3.0 for piece in words}
    return XLMRobertaTokenizer(vocab=list(scores.items()))


def make(make_trained: Any, folder: Path, template: str = FRONT, reads: str = "mean", **changes: Any) -> TrainedPrompt:
    model = AutoModel.from_pretrained(folder)
    hidden, width = model.get_input_embeddings().weight.shape[1], model.config.hidden_size
    answers = {"bad": "", "good": "", "neither": ""}
    trained = make_trained(
        folder, template, head_name="classifier", hidden=hidden, answers=answers, head_input=HeadInput(reads), **changes
    )
    torch.manual_seed(8)
    head = {"classifier.weight": torch.randn(3, width), "classifier.bias": torch.randn(3)}
    return replace(trained, head=head)


@torch.no_grad()
def by_ptune(trained: TrainedPrompt, texts: Any = TEXTS) -> Tensor:
    loaded = load_base_model(
        trained.base_model, target=TargetKind.HEAD, num_labels=3, device="cpu", precision=trained.precision
    )
    base = with_head_input(loaded, trained.head_input)
    assert base.head is not None
    base.head.load_state_dict({name.removeprefix("classifier."): tensor for name, tensor in trained.head.items()})
    prompted = PromptedModel(base, template_of(trained), None, max_length=trained.max_length)
    rows = prompted.make_rows([{"text": text} for text in texts])
    assert rows[-1].num_cut > 0 or texts is not TEXTS
    return prompted.scores(rows, trained.prompt_embeddings)


def unpacked(trained: TrainedPrompt, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    num_bytes = export_sentence_transformers(trained, folder / "sentence.zip")
    with zipfile.ZipFile(folder / "sentence.zip") as archive:
        archive.extractall(folder / "sentence")
    assert (folder / "sentence" / "model.safetensors").stat().st_size == num_bytes
    assert [path.name for path in folder.glob(".tmp*")] == []
    return folder / "sentence"


@pytest.mark.parametrize("encoder", ENCODERS, indirect=True)
def test_the_stock_package_gives_the_same_scores(encoder, make_trained, tmp_path) -> None:
    trained = make(make_trained, encoder)
    expected = by_ptune(trained)
    model = SentenceTransformer(str(unpacked(trained, tmp_path / "out")), device="cpu")
    assert expected.std() > 0.1 and float((expected[0] - expected[3]).abs().max()) > 1e-3
    for encode in (model.encode, model.encode_query, model.encode_document):
        found = encode(list(TEXTS), convert_to_tensor=True)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    one_by_one = torch.stack([model.encode(text, prompt_name="classify", convert_to_tensor=True) for text in TEXTS])
    torch.testing.assert_close(one_by_one, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("template", "reads"),
    [
        (FRONT, "last"),
        ("[P*4] Review: {text} [HEAD:label]", "last"),
        (FIRST, "first"),
        (FIRST, "mean"),
        ("[P*2:a] [CLS] [P*3] {text} [HEAD:label]", "last"),
        ("[CLS] [P*3] the film : {text} [SEP] [HEAD:label]", "first"),
    ],
)
def test_other_rows_and_ways_of_reading(template, reads, tiny_bert, make_trained, tmp_path) -> None:
    trained = make(make_trained, tiny_bert, template, reads)
    model = SentenceTransformer(str(unpacked(trained, tmp_path / "out")), device="cpu")
    found = model.encode(list(TEXTS), convert_to_tensor=True)
    torch.testing.assert_close(found, by_ptune(trained), atol=2e-5, rtol=1e-4)


def test_texts_as_long_as_the_row_and_longer(tiny_bert, make_trained, tmp_path) -> None:
    trained = make(make_trained, tiny_bert, max_length=16)
    texts = ["great " * count for count in range(1, 16)]
    model = SentenceTransformer(str(unpacked(trained, tmp_path / "out")), device="cpu")
    assert model.max_seq_length == 16
    torch.testing.assert_close(
        model.encode(texts, convert_to_tensor=True), by_ptune(trained, texts), atol=1e-4, rtol=1e-4
    )


def test_what_was_trained_in_bf16_is_close_in_fp32(tiny_bert, make_trained, tmp_path) -> None:
    trained = make(make_trained, tiny_bert, precision="bf16")
    model = SentenceTransformer(str(unpacked(trained, tmp_path / "out")), device="cpu")
    found, expected = model.encode(list(TEXTS), convert_to_tensor=True), by_ptune(trained)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 0.2 * float(expected.std())


def test_the_card_runs_and_says_what_it_is(tiny_bert, make_trained, tmp_path, capsys, monkeypatch) -> None:
    trained = make(make_trained, tiny_bert)
    folder = unpacked(trained, tmp_path / "out")
    monkeypatch.chdir(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    capsys.readouterr()
    exec("".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL)), {})
    printed = json.loads(capsys.readouterr().out.replace("'", '"'))
    expected = by_ptune(trained, ["Write a text here."])[0].softmax(0).tolist()
    assert printed == pytest.approx(dict(zip(trained.labels, expected, strict=True)), abs=1e-4)
    assert (
        "<|ptune_0|><|ptune_1|><|ptune_2|><|ptune_3|>[CLS]" in card and 'library_name: "sentence-transformers"' in card
    )
    size = (folder / "model.safetensors").stat().st_size / 1e6
    assert f"({size:,.1f} MB)" in card and "the first 48 tokens" in card
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good", "2": "neither"}
    assert not [path for path in folder.rglob("*.json") if str(tiny_bert) in path.read_text()]


def test_the_command_line_makes_it_and_says_how_large_it_is(tiny_bert, make_trained, tmp_path, capsys) -> None:
    export_adapter(make(make_trained, tiny_bert), tmp_path / "adapter", tmp_path / "adapter.zip")
    out = tmp_path / "sentence.zip"
    assert main(["export", str(tmp_path / "adapter"), "--out", str(out), "--format", "sentence-transformers"]) == 0
    output, errors = capsys.readouterr()
    assert output == f"{out}\n" and re.search(r"weights are in it: 0\.\d MB", errors)
    export_sentence_transformers(make(make_trained, tiny_bert), tmp_path / "again.zip")
    assert out.read_bytes() == (tmp_path / "again.zip").read_bytes()
    missing = tmp_path / "nowhere" / "sentence.zip"
    assert main(["export", str(tmp_path / "adapter"), "--out", str(missing), "--format", "sentence-transformers"]) == 2
    assert "sentence.zip cannot be written" in capsys.readouterr().err


def test_the_same_adapter_gives_the_same_zip(tiny_bert, make_trained, tmp_path) -> None:
    trained = make(make_trained, tiny_bert)
    for name in ("a.zip", "b.zip"):
        torch.manual_seed(len(name))
        export_sentence_transformers(trained, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    ("template", "reads", "why"),
    [
        (FRONT, "model", "the base model's own class reads.*Train it with head_input: mean"),
        (FRONT, "first", r"the special token between virtual tokens and text.*\[CLS\] \[P\*20\]"),
        ("[P*4] Review: {text} [HEAD:label]", "mean", "the template's own 'Review:'.*leaves all of a prompt out"),
        ("{text} [P*4] [HEAD:label]", "mean", "nothing but special tokens behind the text"),
        ("[P*4] {text} It was [HEAD:label]", "last", "nothing but special tokens behind the text"),
        ("Review [P*4] {text} [HEAD:label]", "last", "virtual tokens and special tokens alone in front"),
        ("[P*4] {text} {title} [HEAD:label]", "last", "with 2 columns"),
        ("[P*4] {text|lower} [HEAD:label]", "mean", "whose column has filters"),
        ("[P*2] [CLS] [P*2] {text} [HEAD:label]", "first", "other positions than training"),
    ],
)
def test_what_it_cannot_do_is_refused(template, reads, why, tiny_bert, make_trained, tmp_path) -> None:
    trained = make(make_trained, tiny_bert, template, reads)
    with pytest.raises(AdapterError, match=f"cannot be exported as a model of sentence-transformers.*{why}"):
        export_sentence_transformers(trained, tmp_path / "sentence.zip")
    assert list(tmp_path.iterdir()) == []


def test_other_base_models_and_targets_are_refused(tiny_gpt2, tiny_bert, make_trained, tmp_path) -> None:
    def refused(trained: TrainedPrompt, why: str) -> None:
        with pytest.raises(AdapterError, match=why):
            export_sentence_transformers(trained, tmp_path / "sentence.zip")

    refused(make_trained(tiny_gpt2), r"a \[ANSWER\] target")
    refused(make_trained(tiny_gpt2, FRONT, head_name="score", head_input=HeadInput.MEAN), "tiny-gpt2.*, a decoder")
    refused(replace(make(make_trained, tiny_bert), tuned_base=tiny_bert), "its own tuned base model")
    other = {"classifier.weight": torch.zeros(3, 31), "classifier.bias": torch.zeros(3)}
    refused(replace(make(make_trained, tiny_bert), head=other), r"a head of the base model's size: weight \(3, 32\)")
    assert list(tmp_path.iterdir()) == []


def test_a_special_token_that_is_written_in_a_text_is_text(tiny_bert, make_trained, tmp_path) -> None:
    """It was left out of the mean, and a separator began a second text: nobody else's tokenizer does that."""
    texts = ["the [CLS] film", "[CLS] great", "a [SEP] boring film"]
    trained = make(make_trained, tiny_bert)
    loaded = load_base_model(str(tiny_bert), target=TargetKind.HEAD, num_labels=3, device="cpu", precision="fp32")
    base = with_head_input(loaded, HeadInput.MEAN)
    body: Any = base.body
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    alone = ptune_loader.Adapter(tmp_path / "adapter")
    for text, found in zip(texts, by_ptune(trained, texts), strict=True):
        ids = base.tokenizer(text, return_tensors="pt")["input_ids"]
        embeddings = torch.cat([trained.prompt_embeddings[None], base.word_embeddings(ids)], dim=1)
        with torch.no_grad():
            hidden = body(inputs_embeds=embeddings).last_hidden_state[0, 4 + 1 :]
        expected = trained.head["classifier.weight"] @ hidden.mean(0) + trained.head["classifier.bias"]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.logits({"text": text}), expected, atol=1e-4, rtol=1e-4)


def test_a_cut_text_that_ends_with_a_space_of_its_own() -> None:
    """RoBERTa's tokenizer says that such a token begins behind the text: cutting ended in an IndexError."""
    rows = RowMaker(byte_level(), parse_template(FRONT), 12)
    [row] = rows.rows([{"text": "great film " * 9}])
    assert isinstance(row, Row) and len(row.ids) == 12 and row.num_cut > 0
