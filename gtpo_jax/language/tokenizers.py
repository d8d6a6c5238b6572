"""Tokenizers that satisfy the protocol `types.Tokenizer`."""

from __future__ import annotations

import functools
import io
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sentencepiece

from gtpo_jax.language.files import refuse_git_lfs_pointer

ASSETS = pathlib.Path(__file__).parent / "assets"
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for a space in pieces of SentencePiece


class SentencePieceTokenizer:
    """A SentencePiece model whose control symbols are the turn markers.

    SentencePiece never produces a control symbol from text, so no output of a tool can open or
    close a turn.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise ValueError(
                f"no tokenizer at {self.path}; train one with `python -m launch.train_tokenizer`"
            )
        refuse_git_lfs_pointer(self.path)
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(self.path))
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{self.path} is not a SentencePiece model: {error}") from None
        self._control = {
            self._model.id_to_piece(i): i
            for i in range(self._model.vocab_size())
            if self._model.is_control(i)
        }
        self._pieces = {i: piece for piece, i in self._control.items()}

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size()

    @property
    def control_symbols(self) -> Mapping[str, int]:
        """Control symbol → id. User-defined symbols of the model are text."""
        return self._control

    def encode(self, text: str) -> list[int]:
        # Half of a surrogate pair is not a character; SentencePiece accepts only UTF-8.
        return self._model.encode(text.encode("utf-8", "replace").decode())

    def decode(self, ids: Sequence[int]) -> str:
        text: list[str] = []
        plain: list[int] = []
        for i in map(int, ids):
            if i in self._pieces:
                text += [self._model.decode(plain), self._pieces[i]]
                plain = []
            else:
                plain.append(i)
        return "".join([*text, self._model.decode(plain)])

    def control_id(self, symbol: str) -> int:
        if symbol not in self._control:
            raise ValueError(
                f"{self.path} has no control symbol {symbol}; it has {sorted(self._control)}"
            )
        return self._control[symbol]

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes that a token adds to the text; `b""` for a control symbol.

        A byte piece adds its byte, the unknown piece the text that `decode` writes for it. Raises
        `ValueError` for an id outside the vocabulary, and for a model whose `decode` strips a
        leading space (`add_dummy_prefix` or `remove_extra_whitespaces`): with such a model the text
        of a token depends on its position.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"no token {token}; ids lie in [0, {self.vocab_size})")
        return self._bytes[token]

    @functools.cached_property
    def _bytes(self) -> tuple[bytes, ...]:
        model = self._model

        def added(token: int) -> bytes:
            piece: str = model.id_to_piece(token)
            if model.is_byte(token):  # written "<0x0A>"
                return bytes([int(piece[1:-1], 16)])
            text: str = model.decode([token])  # empty for a control symbol
            if piece.startswith(SPACE) and not text.startswith(" "):
                raise ValueError(
                    f"{self.path} strips leading spaces, so {piece!r} adds no fixed bytes; train it"
                    " with add_dummy_prefix=False and remove_extra_whitespaces=False"
                )
            return text.encode()

        return tuple(map(added, range(self.vocab_size)))


CONTROLS = frozenset({*range(0x20), 0x7F}) - frozenset(b"\t\n\r")
ABSENT = CONTROLS | {0xC0, 0xC1, *range(0xF1, 0x100)}
"""Bytes that a byte-level vocabulary may lack: control characters other than tab, newline and
return, and bytes that no character, or none that is in use, begins with in UTF-8."""


class JsonTokenizer:
    """The BPE model of a Hugging Face `tokenizer.json`: byte-level, or with byte fallback.

    Added tokens are of two kinds. *Control symbols* are those marked special, and tags (`<…>`,
    `[…]`) outside the model's own vocabulary, such as Qwen's `<tool_call>`: no text encodes to
    them. The others, such as runs of spaces, are text like any piece of the vocabulary. A tag that
    is not marked special counts as text of the policy: it has bytes, and stop strings match it.

    No space is added before a text (SentencePiece's dummy prefix), and texts are neither framed,
    truncated nor padded: ids of joined texts are joined ids. The model's normalizer still applies.
    A vocabulary that writes spaces as U+2581 cannot distinguish that character from a space.

    A byte-level vocabulary may lack the bytes `ABSENT`, which ordinary text does not have: such a
    byte is dropped, as `transformers` drops it.

    Raises `ValueError` for other kinds of models, and for a vocabulary without one of the other
    bytes, which would lose text. Raises `ImportError` without the package `tokenizers`.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise ValueError(f"no tokenizer at {self.path}; name a tokenizer.json")
        refuse_git_lfs_pointer(self.path)
        try:
            import tokenizers as huggingface  # the library, not this module
        except ImportError as error:
            raise ImportError(
                f"{self.path} takes the package `tokenizers`; pip install 'gtpo_jax[hf]'"
            ) from error
        data = _read_json(self.path)
        model = data["model"]
        kind = model.get("type") or ("BPE" if "merges" in model else "unnamed")
        if kind != "BPE":
            raise ValueError(
                f"{self.path} holds a {kind} model, only BPE is supported; use the tokenizer.model"
            )
        vocabulary: dict[str, int] = model["vocab"]
        byte_level = any(part["type"] == "ByteLevel" for part in _parts(data.get("pre_tokenizer")))
        spelling = _BYTE_LEVEL if byte_level else [f"<0x{byte:02X}>" for byte in range(256)]
        if not (byte_level or model.get("byte_fallback")):
            raise ValueError(
                f"{self.path} is neither byte-level nor has it byte fallback, so text is lost;"
                " train it with one of them"
            )
        dispensable = ABSENT if byte_level else frozenset[int]()
        lacking = {byte for byte, piece in enumerate(spelling) if piece not in vocabulary}
        if missing := sorted(lacking - dispensable):
            raise ValueError(
                f"{self.path} lacks {len(missing)} of the bytes that text has, 0x{missing[0]:02x}"
                " the first: text is lost; train it with the whole alphabet"
            )
        added: list[dict[str, Any]] = data.setdefault("added_tokens", [])
        self._control: dict[str, int] = {
            token["content"]: token["id"]
            for token in added
            if token["special"]
            or (_TAG.fullmatch(token["content"]) and token["content"] not in vocabulary)
        }
        self._bytes = _bytes_of_ids(vocabulary, added, spelling, byte_level=byte_level)
        # A merge may produce a control symbol that is in the vocabulary: it is spelled in bytes.
        self._spelled = {
            token: [vocabulary[spelling[byte]] for byte in symbol.encode() if byte not in lacking]
            for symbol, token in self._control.items()
        }
        for token in added:
            token["special"] = token["content"] in self._control
        data["truncation"] = data["padding"] = None
        data["normalizer"] = _without_prefix(data.get("normalizer"))
        data["pre_tokenizer"] = _without_prefix(data.get("pre_tokenizer"))
        self._model = huggingface.Tokenizer.from_str(json.dumps(data))
        self._model.encode_special_tokens = True  # as text, that is
        for token in added:
            actual = self._model.token_to_id(token["content"])
            if actual != token["id"]:
                raise ValueError(
                    f"{self.path} says that {token['content']!r} has id {token['id']}, the package"
                    f" `tokenizers` gives it {actual}; save the tokenizer again"
                )

    @property
    def vocab_size(self) -> int:
        """Highest id plus one. Some ids below it may be unused; see `unused_ids`."""
        return len(self._bytes)

    @property
    def control_symbols(self) -> Mapping[str, int]:
        """Control symbol → id."""
        return self._control

    @property
    def unused_ids(self) -> tuple[int, ...]:
        """Ids below `vocab_size` without a token; the sampler must not draw them."""
        return tuple(i for i, text in enumerate(self._bytes) if text is None)

    def encode(self, text: str) -> list[int]:
        # Half of a surrogate pair is not a character; the library accepts only UTF-8.
        text = text.encode("utf-8", "replace").decode()
        ids: list[int] = self._model.encode(text, add_special_tokens=False).ids
        if self._spelled.keys().isdisjoint(ids):
            return ids
        return [piece for i in ids for piece in self._spelled.get(i, (i,))]

    def decode(self, ids: Sequence[int]) -> str:
        written: list[bytes] = []
        text: list[str] = []
        for i in map(int, ids):
            if i in self._symbols:
                text += [b"".join(written).decode("utf-8", "replace"), self._symbols[i]]
                written = []
            else:
                written.append(self.token_bytes(i))
        return "".join([*text, b"".join(written).decode("utf-8", "replace")])

    def control_id(self, symbol: str) -> int:
        if symbol not in self._control:
            some = sorted(self._control, key=lambda symbol: self._control[symbol])[:16]
            raise ValueError(f"{self.path} has no control symbol {symbol}; it has {some} …")
        return self._control[symbol]

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes that a token adds to the text; `b""` if it is special or unused.

        Raises `ValueError` for an id outside the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"no token {token}; ids lie in [0, {self.vocab_size})")
        return self._bytes[token] or b""

    @functools.cached_property
    def _symbols(self) -> dict[int, str]:
        return {i: symbol for symbol, i in self._control.items()}


def load(path: str | pathlib.Path) -> SentencePieceTokenizer | JsonTokenizer:
    """Loads the tokenizer of a model's folder (`tokenizer.json`, else `tokenizer.model`) or a file.

    A file named `.json` gives a `JsonTokenizer`, any other a SentencePiece model. Raises
    `ValueError` if there is no tokenizer.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        names = [path / "tokenizer.json", path / "tokenizer.model"]
        present = [name for name in names if name.is_file()]
        if not present:
            raise ValueError(f"neither tokenizer.json nor tokenizer.model in {path}")
        path = present[0]
    return JsonTokenizer(path) if path.suffix == ".json" else SentencePieceTokenizer(path)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a `tokenizer.json`; raises ValueError unless it has a model with a vocabulary."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; fetch the file again") from None
    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise ValueError(
            f"{path} has no model with a vocabulary; name the tokenizer.json of a model"
        )
    return data


_TAG = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (Radford et al., 2019).

    Bytes that are printable in Latin-1 stand for themselves; the others map to U+0100 onwards.
    """
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printed else next(others)) for byte in range(0x100)]


_BYTE_LEVEL = _byte_alphabet()


def _bytes_of_ids(
    vocabulary: Mapping[str, int],
    added: Sequence[Mapping[str, Any]],
    spelling: Sequence[str],
    *,
    byte_level: bool,
) -> list[bytes | None]:
    """Bytes that each id adds to a text: `b""` for special tokens, None for ids without a token."""
    bytes_of = {piece: bytes([byte]) for byte, piece in enumerate(spelling)}

    def written(piece: str) -> bytes:
        if not byte_level:
            return bytes_of[piece] if piece in bytes_of else piece.replace(SPACE, " ").encode()
        try:
            return b"".join([bytes_of[character] for character in piece])
        except KeyError:  # not a piece of the byte-level alphabet
            return piece.encode()

    texts = {i: written(piece) for piece, i in vocabulary.items()}
    for token in added:
        if token["special"]:
            texts[token["id"]] = b""
        elif byte_level or token["content"] not in vocabulary:
            texts[token["id"]] = token["content"].encode()
    return [texts.get(i) for i in range(max(texts) + 1)]


def _parts(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """A normalizer or pre-tokenizer of a `tokenizer.json`, and the parts of a sequence of them."""
    if part is None:
        return []
    inner = part.get("normalizers") or part.get("pretokenizers") or []
    return [part, *(nested for each in inner for nested in _parts(each))]


def _without_prefix(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """The normalizer or pre-tokenizer without the space that it adds before a text."""
    if part is None or part["type"] == "Prepend":
        return None
    part = dict(part)
    for name in ("normalizers", "pretokenizers"):
        if name in part:
            inner = [_without_prefix(each) for each in part[name]]
            part[name] = [each for each in inner if each is not None]
    if "prepend_scheme" in part:
        part["prepend_scheme"] = "never"
    if "add_prefix_space" in part:
        part["add_prefix_space"] = False
    return part


def train_sentencepiece(
    lines: Iterable[str],
    path: str | pathlib.Path,
    *,
    vocab_size: int,
    control_symbols: Sequence[str],
) -> None:
    """Trains a BPE model on `lines` and writes it to `path`.

    Digits stay single tokens, whitespace and newlines are preserved, and every printable ASCII
    character has a token of its own, so that code and tool output survive encoding. Raises
    `ValueError` where the texts do not have so many pieces.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            control_symbols=list(control_symbols),
            user_defined_symbols=["\n"],
            required_chars="".join(map(chr, range(33, 127))),
            character_coverage=1.0,
            split_digits=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            allow_whitespace_only_pieces=True,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        most = re.search(r"Vocabulary size too high .* value <= (\d+)", str(error))
        if most is None:
            raise
        raise ValueError(
            f"vocab_size must be at most {most[1]} for these texts, which have no more pieces, got"
            f" {vocab_size}; lower it, or give more texts"
        ) from None
    pathlib.Path(path).write_bytes(model.getvalue())
