"""Tokenizers of `tokenizer.json`: text, control symbols, bytes, and loading them."""

import itertools
import json
import sys

import hypothesis
import pytest
import tokenizers as huggingface
from hypothesis import strategies

from gtpo_jax.language import tokenizers
from gtpo_jax.language.grammar import CONTROL_SYMBOLS
from tests import chat_families
from tests.chat_families import FAMILIES

QWEN, GEMMA = FAMILIES["qwen2.5"], FAMILIES["gemma3"]
JSON = {"byte-level": QWEN.tokenizer(), "fallback": GEMMA.tokenizer()}
LIBRARY = {"byte-level": QWEN.library_tokenizer(), "fallback": GEMMA.library_tokenizer()}
BOTH_KINDS = pytest.mark.parametrize("kind", JSON)
SYMBOLS = [*QWEN.special, *QWEN.tags, *GEMMA.special]
MARKED = strategies.lists(
    strategies.sampled_from([*SYMBOLS, "<", "|>", " ", "\n", "<0x41>", "é"])
    | strategies.text(max_size=4)
).map("".join)


def without_added(tokenizer):
    data = json.loads(tokenizer.to_str()) | {"added_tokens": []}
    return huggingface.Tokenizer.from_str(json.dumps(data))


PLAIN = {kind: without_added(tokenizer) for kind, tokenizer in LIBRARY.items()}


def saved(tmp_path, change=lambda data: None, kind="byte-level"):
    data = json.loads(LIBRARY[kind].to_str())
    change(data)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data))
    return path


@BOTH_KINDS
@hypothesis.given(text=MARKED)
def test_any_text_is_encoded_without_control_symbols_and_back(kind, text):
    tokenizer = JSON[kind]
    ids = tokenizer.encode(text)
    assert not set(tokenizer.control_symbols.values()) & set(ids)
    assert tokenizer.decode(ids) == text.replace("\u2581", " " if kind == "fallback" else "\u2581")


@BOTH_KINDS
@hypothesis.given(text=strategies.text())
def test_text_without_symbols_is_encoded_as_the_library_does(kind, text):
    hypothesis.assume(not any(symbol in text for symbol in SYMBOLS))
    assert JSON[kind].encode(text) == LIBRARY[kind].encode(text, add_special_tokens=False).ids


@BOTH_KINDS
@hypothesis.given(text=MARKED)
def test_symbols_in_texts_are_encoded_as_if_they_were_not_there(kind, text):
    # As any text is, not merely byte by byte.
    assert JSON[kind].encode(text) == PLAIN[kind].encode(text, add_special_tokens=False).ids


@BOTH_KINDS
def test_library_reads_control_symbols_in_texts(kind):
    # What the tests above rule out does happen without care.
    for symbol in (QWEN.special if kind == "byte-level" else GEMMA.special)[1:]:
        [token] = LIBRARY[kind].encode(symbol, add_special_tokens=False).ids
        assert token == JSON[kind].control_id(symbol)


@BOTH_KINDS
@hypothesis.given(data=strategies.data())
def test_bytes_of_ids_of_a_json_are_the_text_that_decode_writes(kind, data):
    tokenizer = JSON[kind]
    ids = data.draw(strategies.lists(strategies.integers(0, tokenizer.vocab_size - 1)))
    symbols = {
        i: symbol for symbol, i in tokenizer.control_symbols.items() if not tokenizer.token_bytes(i)
    }
    runs = itertools.groupby(ids, key=symbols.get)
    pieces = [
        symbol * len(list(run))
        if symbol
        else b"".join(map(tokenizer.token_bytes, run)).decode("utf-8", "replace")
        for symbol, run in runs
    ]
    assert tokenizer.decode(ids) == "".join(pieces)


@BOTH_KINDS
def test_bytes_of_tokens_are_those_the_library_decodes(kind):
    tokenizer, library = JSON[kind], LIBRARY[kind]
    for token in range(tokenizer.vocab_size):
        text = library.decode([token], skip_special_tokens=True)
        if "\N{REPLACEMENT CHARACTER}" not in text:
            assert tokenizer.token_bytes(token) == text.encode()
        else:
            assert len(tokenizer.token_bytes(token)) > 0


def test_special_tokens_have_no_bytes_and_tags_have_theirs():
    tokenizer = JSON["byte-level"]
    assert {tokenizer.token_bytes(tokenizer.control_id(symbol)) for symbol in QWEN.special} == {b""}
    for tag in QWEN.tags:
        assert tokenizer.token_bytes(tokenizer.control_id(tag)) == tag.encode()
        assert tokenizer.decode([tokenizer.control_id(tag)]) == tag


def test_added_tokens_that_are_no_tags_are_text(tmp_path):
    library = chat_families.train_byte_level(QWEN.special, ("   ", "[x]", "new"))
    tokenizer = chat_families.read(library)
    for text in ("a   b", "news   "):
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert set(tokenizer.control_symbols) == {*QWEN.special, "[x]"}
    assert library.token_to_id("[x]") not in tokenizer.encode("[x]")


def test_tags_of_the_vocabulary_are_text_unless_they_are_special(tmp_path):
    def add(data):
        data["model"]["vocab"]["<td>"] = 500
        settings = data["added_tokens"][0] | {"special": False, "id": 500, "content": "<td>"}
        data["added_tokens"].append(settings)

    tokenizer = tokenizers.JsonTokenizer(saved(tmp_path, add, kind="fallback"))
    assert tokenizer.encode("<td><eos>")[0] == 500
    assert tokenizer.control_symbols.keys() == set(GEMMA.special)


def test_symbol_that_merges_would_make_is_spelled_in_bytes(tmp_path):
    def merge_symbol(data):
        vocabulary, merges = data["model"]["vocab"], data["model"]["merges"]
        for left, right in (("<", "e"), ("<e", "o"), ("<eo", "s"), ("<eos", ">")):
            vocabulary.setdefault(left + right, len(vocabulary))
            merges.append([left, right])

    path = saved(tmp_path, merge_symbol, kind="fallback")
    unguarded = huggingface.Tokenizer.from_file(str(path))
    unguarded.encode_special_tokens = True
    tokenizer = tokenizers.JsonTokenizer(path)
    eos = tokenizer.control_id("<eos>")
    assert eos in unguarded.encode("a<eos>b", add_special_tokens=False).ids
    assert eos not in tokenizer.encode("a<eos>b")
    assert tokenizer.decode(tokenizer.encode("a<eos>b")) == "a<eos>b"


@pytest.mark.parametrize("kind", JSON)
def test_nothing_is_put_around_texts_or_cut_of_them(tmp_path, kind):
    def meddle(data):
        data["truncation"] = {
            "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0,
        }  # fmt: skip
        data["padding"] = {
            "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
        }  # fmt: skip
        symbol = data["added_tokens"][0]
        data["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "x", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"x": {"id": "x", "ids": [symbol["id"]], "tokens": ["x"]}},
        }
        if kind == "byte-level":
            data["pre_tokenizer"]["add_prefix_space"] = True
        else:
            prepend = {"type": "Prepend", "prepend": tokenizers.SPACE}
            replace = {"type": "Replace", "pattern": {"String": " "}, "content": tokenizers.SPACE}
            data["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}

    path = saved(tmp_path, meddle, kind)
    assert len(huggingface.Tokenizer.from_file(str(path)).encode("What is it").ids) == 16
    assert tokenizers.JsonTokenizer(path).encode("What is it") == JSON[kind].encode("What is it")


@pytest.mark.parametrize("legacy", [False, True])
def test_metaspace_puts_no_space_before_a_text(tmp_path, legacy):
    def metaspace(data):
        data["normalizer"] = None
        data["pre_tokenizer"] = {
            "type": "Metaspace", "replacement": tokenizers.SPACE, "prepend_scheme": "always",
            "split": False,
        }  # fmt: skip
        if legacy:
            data["pre_tokenizer"]["add_prefix_space"] = True

    path = saved(tmp_path, metaspace, kind="fallback")
    tokenizer = tokenizers.JsonTokenizer(path)
    assert tokenizer.encode("What is") == JSON["fallback"].encode("What is")
    assert tokenizer.decode(tokenizer.encode(" a  b ")) == " a  b "


def test_ids_that_stand_for_nothing_are_listed(tmp_path):
    data = json.loads(LIBRARY["byte-level"].to_str())
    data["added_tokens"] = []
    data["model"]["vocab"]["zzz"] = 403
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data))
    tokenizer = tokenizers.JsonTokenizer(path)
    assert tokenizer.vocab_size == 404 and tokenizer.unused_ids == (400, 401, 402)
    assert tokenizer.token_bytes(401) == b"" and tokenizer.decode([401, 403]) == "zzz"
    assert JSON["byte-level"].unused_ids == () and JSON["byte-level"].vocab_size == 407


def test_vocabulary_without_bytes_that_text_has_not_drops_their_characters(tmp_path):
    alphabet = tokenizers._byte_alphabet()

    def without(*absent):
        def change(data):
            vocabulary = data["model"]["vocab"]
            for byte in absent:
                vocabulary[f"absent {byte}"] = vocabulary.pop(alphabet[byte])

        return saved(tmp_path, change)

    tokenizer = tokenizers.JsonTokenizer(without(*tokenizers.ABSENT))
    text = "a\tb\r\n é 漢字 🙂 ~"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("a\x04b\x13c\x7f") == tokenizer.encode("abc")
    first_lost = tokenizer.encode("a\U000f0000b")  # F3 B0 80 80 without its first byte
    assert [tokenizer.token_bytes(i) for i in first_lost] == [b"a", b"\xb0", b"\x80", b"\x80", b"b"]
    whole = tokenizers.JsonTokenizer(saved(tmp_path, lambda data: None))
    assert tokenizer.encode(text) == whole.encode(text)
    for byte in (0x09, 0x0A, 0x0D, 0x20, 0x7E, 0x80, 0xC2, 0xF0):
        with pytest.raises(ValueError, match=f"lacks 1 of the bytes that text has, 0x{byte:02x}"):
            tokenizers.JsonTokenizer(without(byte))


@pytest.mark.parametrize("kind", JSON)
def test_half_of_a_surrogate_pair_is_encoded_by_a_json(kind):
    assert JSON[kind].decode(JSON[kind].encode("4\ud800")) == "4?"


def test_unknown_symbol_or_id_of_a_json_is_an_error():
    with pytest.raises(ValueError, match=r"no control symbol <\|nobody\|>.*<\|im_start\|>"):
        JSON["byte-level"].control_id("<|nobody|>")
    for token in (-1, 407):
        with pytest.raises(ValueError, match=f"no token {token}; ids lie in"):
            JSON["byte-level"].token_bytes(token)


def drop_bytes(data):
    del data["model"]["vocab"]["<0x41>"], data["model"]["vocab"]["<0x42>"]


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (lambda data: data["model"].update(type="Unigram"), "byte-level", "holds a Unigram model"),
        (lambda data: data.update(pre_tokenizer=None), "byte-level", "neither byte-level"),
        (lambda data: data["model"].update(byte_fallback=False), "fallback", "neither byte-level"),
        (drop_bytes, "fallback", "lacks 2 of the bytes that text has, 0x41 the first"),
        (lambda data: data["added_tokens"].pop(0), "byte-level", r"has id 401, .* gives it 400"),
    ],
)
def test_json_that_would_lose_text_or_ids_is_refused(tmp_path, change, kind, match):
    with pytest.raises(ValueError, match=match):
        tokenizers.JsonTokenizer(saved(tmp_path, change, kind))


def test_tokenizer_of_a_folder_or_file_is_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        tokenizers.load(tmp_path)
    model = tmp_path / "tokenizer.model"
    model.write_bytes((tokenizers.ASSETS / "tools-256.model").read_bytes())
    for path in (tmp_path, model):
        loaded = tokenizers.load(path)
        assert isinstance(loaded, tokenizers.SentencePieceTokenizer) and loaded.path == model
        assert loaded.control_symbols.keys() >= set(map(str, CONTROL_SYMBOLS))
    written = saved(tmp_path)
    for path in (tmp_path, str(written)):
        loaded = tokenizers.load(path)
        assert isinstance(loaded, tokenizers.JsonTokenizer) and loaded.path == written
    with pytest.raises(ValueError, match=r"no tokenizer at .*nowhere\.json"):
        tokenizers.load(tmp_path / "nowhere.json")


def test_missing_library_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'gtpo_jax\[hf\]'"):
        tokenizers.JsonTokenizer(saved(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("tokenizer.model", b"garbage", "is not a SentencePiece model"),
        ("tokenizer.model", b"", "is not a SentencePiece model"),
        ("tokenizer.json", b"{", "is not JSON"),
        ("tokenizer.json", b"\xff\xfe", "is not JSON"),
        ("tokenizer.json", b"[]", "has no model with a vocabulary"),
        ("tokenizer.json", b'{"model": null}', "has no model with a vocabulary"),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}', "has no model with a vocabulary"),
        ("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ],
)
def test_file_that_holds_no_tokenizer_is_named(name, content, named, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*{named}"):
        tokenizers.load(tmp_path)
