"""Tokenizers behind the `Tokenizer` protocol of `types`."""

from __future__ import annotations

import functools
import io
import pathlib
from collections.abc import Iterable, Sequence

import sentencepiece

ASSETS = pathlib.Path(__file__).parent / "assets"
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space in its pieces


class SentencePieceTokenizer:
    """A SentencePiece model whose control symbols are the turn markers.

    SentencePiece never produces a control symbol from text, so nothing that a tool prints can open
    or close a turn.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise ValueError(
                f"no tokenizer at {self.path}; train one with `python -m launch.train_tokenizer`"
            )
        self._model = sentencepiece.SentencePieceProcessor(model_file=str(self.path))
        self._control = {
            self._model.id_to_piece(i): i
            for i in range(self._model.vocab_size())
            if self._model.is_control(i)
        }
        self._pieces = {i: piece for piece, i in self._control.items()}

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size()

    def encode(self, text: str) -> list[int]:
        # Half of a surrogate pair is no character; SentencePiece takes UTF-8 alone.
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
        """The UTF-8 that a token adds to the text; `b""` for a control symbol.

        A byte piece adds its byte, the unknown piece what `decode` writes for it. Raises
        `ValueError` for an id outside the vocabulary, and for a model whose `decode` strips the
        space that a text begins with (`add_dummy_prefix` or `remove_extra_whitespaces`): there a
        token's text depends on where it stands.
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
            text: str = model.decode([token])  # nothing for a control symbol
            if piece.startswith(SPACE) and not text.startswith(" "):
                raise ValueError(
                    f"{self.path} strips leading spaces, so {piece!r} adds no fixed bytes; train it"
                    " with add_dummy_prefix=False and remove_extra_whitespaces=False"
                )
            return text.encode()

        return tuple(map(added, range(self.vocab_size)))


def train_sentencepiece(
    lines: Iterable[str],
    path: str | pathlib.Path,
    *,
    vocab_size: int,
    control_symbols: Sequence[str],
) -> None:
    """Trains a BPE model on `lines` and writes it to `path`.

    Digits stay single tokens, whitespace and newlines are kept as they are, and every printable
    ASCII character has a token of its own, so that code and tool output survive encoding.
    """
    model = io.BytesIO()
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
    pathlib.Path(path).write_bytes(model.getvalue())
