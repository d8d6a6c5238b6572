"""A tokenizer of a task's own texts: it is written, and it can encode all of them."""

from gtpo_jax.language.grammar import CONTROL_SYMBOLS, Dialogue
from gtpo_jax.language.tokenizers import SentencePieceTokenizer
from gtpo_jax.tasks.generated import GeneratedTask
from launch import train_tokenizer


def test_tokenizer_knows_the_grammar_and_gives_the_texts_of_the_task_back(tmp_path):
    path = tmp_path / "made" / "own.model"
    train_tokenizer.run(["tiny", f"--out={path}", "--vocab-size=160", "--texts=120"])
    tokenizer = SentencePieceTokenizer(path)
    assert tokenizer.vocab_size == 160
    assert len({tokenizer.control_id(symbol) for symbol in CONTROL_SYMBOLS}) == len(CONTROL_SYMBOLS)
    for problem in GeneratedTask(seed=0).held_out(20):
        assert tokenizer.decode(tokenizer.encode(problem.question)) == problem.question
    dialogue = Dialogue(tokenizer)
    assert dialogue.parse(dialogue.call("", "print(2*21)")).codes == ("print(2*21)",)
