"""The shipped tokenizer and those of SentencePiece: text, control symbols, bytes."""

import io
import itertools

import hypothesis
import pytest
import sentencepiece
from hypothesis import strategies

from gtpo_jax.language import tokenizers
from gtpo_jax.language.grammar import CONTROL_SYMBOLS
from gtpo_jax.testing import ByteTokenizer

SHIPPED = tokenizers.SentencePieceTokenizer(tokenizers.ASSETS / "tools-256.model")
CONTROL = {SHIPPED.control_id(symbol): symbol for symbol in CONTROL_SYMBOLS}
CODE = (
    'import math\n\ndef f(x):\n    if x%2 == 0:\n        return x//2\n    return 3*x+1  # "odd"\n'
)


def test_vocabulary_fits_the_tiny_model():
    assert SHIPPED.vocab_size == 256
    assert len(CONTROL) == len(CONTROL_SYMBOLS)


@pytest.mark.parametrize("text", ["0", "7", "1234567890", "-12.5", "99*99+1", "print(2024)"])
def test_every_digit_is_a_token_of_its_own(text):
    ids = SHIPPED.encode(text)
    digits = [SHIPPED.decode([i]) for i in ids if any(c.isdigit() for c in SHIPPED.decode([i]))]
    assert digits == [c for c in text if c.isdigit()]


@pytest.mark.parametrize(
    "text", [CODE, " ", "   ", "\n", "\n\n  x", "x  \n", " 4", "a  b", "", "   x   "]
)
def test_code_survives_encoding(text):
    assert SHIPPED.decode(SHIPPED.encode(text)) == text
    # Also between markers, where the text is decoded in pieces.
    opening, closing = CONTROL_SYMBOLS[4:6]
    ids = [SHIPPED.control_id(opening), *SHIPPED.encode(text), SHIPPED.control_id(closing)]
    assert SHIPPED.decode(ids) == f"{opening}{text}{closing}"


def test_every_printable_ascii_character_survives_encoding():
    for character in map(chr, range(32, 127)):
        assert SHIPPED.decode(SHIPPED.encode(character)) == character


@hypothesis.given(strategies.text(strategies.sampled_from([*map(chr, range(32, 127)), "\n"])))
def test_any_ascii_text_survives_encoding(text):
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


@hypothesis.given(
    strategies.lists(strategies.sampled_from([*CONTROL_SYMBOLS, "<", "|>", "end", " "])).map(
        "".join
    )
)
def test_text_never_encodes_to_a_control_symbol(text):
    assert not CONTROL.keys() & set(SHIPPED.encode(text))
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


@hypothesis.given(strategies.text())
def test_any_text_can_be_encoded(text):
    ids = SHIPPED.encode(text)
    assert not CONTROL.keys() & set(ids) and all(0 <= i < 256 for i in ids)


def test_half_of_a_surrogate_pair_can_be_encoded():
    # As `json.loads` makes it of the escape "\ud800".
    assert SHIPPED.decode(SHIPPED.encode("4\ud800")) == "4?"


def test_control_symbol_is_written_out_when_decoded():
    for i, symbol in CONTROL.items():
        assert SHIPPED.decode([i]) == symbol


def test_unknown_control_symbol_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"no control symbol <\|nobody\|>.*<\|user\|>"):
        SHIPPED.control_id("<|nobody|>")


def test_missing_model_is_an_error_that_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.model; train one with"):
        tokenizers.SentencePieceTokenizer(tmp_path / "nowhere.model")


def test_trained_tokenizer_keeps_its_promises(tmp_path):
    path = tmp_path / "trained.model"
    lines = [f"What is {a}*{b}?\nprint({a}*{b})" for a in range(40) for b in range(40)]
    tokenizers.train_sentencepiece(lines, path, vocab_size=118, control_symbols=CONTROL_SYMBOLS)
    trained = tokenizers.SentencePieceTokenizer(path)
    assert trained.vocab_size == 118
    assert trained.decode(trained.encode(CODE)) == CODE
    assert len(trained.encode("2024")) == 4
    control = {trained.control_id(symbol) for symbol in CONTROL_SYMBOLS}
    assert not control & set(trained.encode("".join(CONTROL_SYMBOLS)))
    assert len(trained.encode("What is")) < len("What is")


def written(tokenizer, ids) -> str:
    """The text of `decode`, without the control symbols."""
    return tokenizer.decode([i for i in ids if tokenizer.token_bytes(i)])


def train_on_words(**settings) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a bc  bcd"] * 20),
        model_writer=model,
        model_type="bpe",
        control_symbols=["<c>"],
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        minloglevel=2,
        **settings,
    )
    return model.getvalue()


@hypothesis.given(strategies.lists(strategies.integers(0, SHIPPED.vocab_size - 1)))
def test_bytes_of_tokens_are_the_text_that_decode_writes(ids):
    # Any ids: spaces at either end and in a row, the unknown piece, control symbols between.
    joined = b"".join(map(SHIPPED.token_bytes, ids))
    assert joined == written(SHIPPED, ids).encode()
    runs = itertools.groupby(ids, key=lambda i: CONTROL.get(i))
    pieces = [symbol * len(list(run)) if symbol else written(SHIPPED, run) for symbol, run in runs]
    assert "".join(pieces) == SHIPPED.decode(ids)


def test_control_symbols_alone_add_no_bytes():
    empty = {i for i in range(SHIPPED.vocab_size) if not SHIPPED.token_bytes(i)}
    assert empty == CONTROL.keys()


@pytest.mark.parametrize("text", ["héllo\x00", "日本", CODE, "a\ufffd"])
def test_byte_pieces_add_their_byte(tmp_path, text):
    path = tmp_path / "bytes.model"
    path.write_bytes(
        train_on_words(
            vocab_size=270,
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
        )
    )
    tokenizer = tokenizers.SentencePieceTokenizer(path)
    ids = tokenizer.encode(text)
    assert (
        b"".join(map(tokenizer.token_bytes, ids)) == text.encode() == tokenizer.decode(ids).encode()
    )
    assert max(len(tokenizer.encode(c)) for c in text) > 1 or text == CODE


@pytest.mark.parametrize("setting", ["add_dummy_prefix", "remove_extra_whitespaces"])
def test_model_that_strips_leading_spaces_has_no_bytes_of_tokens(tmp_path, setting):
    path = tmp_path / "strips.model"
    settings = {"add_dummy_prefix": False, "remove_extra_whitespaces": False, setting: True}
    path.write_bytes(train_on_words(vocab_size=10, **settings))
    tokenizer = tokenizers.SentencePieceTokenizer(path)
    with pytest.raises(ValueError, match=r"strips\.model strips leading spaces.*train it with"):
        tokenizer.token_bytes(3)


@pytest.mark.parametrize("tokenizer", [SHIPPED, ByteTokenizer()], ids=["sentencepiece", "bytes"])
def test_bytes_of_an_id_outside_the_vocabulary_are_refused(tokenizer):
    for token in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"no token {token}; ids lie in"):
            tokenizer.token_bytes(token)


def test_vocabulary_larger_than_the_texts_give_is_an_error_with_the_largest(tmp_path):
    message = r"vocab_size must be at most \d+ for these texts.*got 900"
    with pytest.raises(ValueError, match=message):
        tokenizers.train_sentencepiece(
            ["one two"] * 9, tmp_path / "m", vocab_size=900, control_symbols=CONTROL_SYMBOLS
        )
    assert not (tmp_path / "m").exists()
