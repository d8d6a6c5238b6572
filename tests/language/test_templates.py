"""Chat templates: their sandbox, and the split of a rendering into template and content."""

import datetime
import json

import hypothesis
import pytest
from hypothesis import strategies

from gtpo_jax.language.templates import ChatTemplate, Segment, SegmentEncoder, segments
from tests import chat_families
from tests.chat_families import FAMILIES

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>\\n' }}{% endfor %}"
)
USER = [{"role": "user", "content": "hi"}]


def rendered(source, messages=USER, **variables):
    return ChatTemplate(source, variables=variables).render(messages)


def test_template_renders_messages():
    assert rendered(CHATML) == "<|im_start|>user\nhi<|im_end|>\n"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages | tojson }}", json.dumps(USER)),
        ("{{ {'a': \"<é>&'\"} | tojson }}", '{"a": "<é>&\'"}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        (
            "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "hi!"),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{{ bos_token }}{{ tools is none }}{{ add_generation_prompt }}", "<s>TrueFalse"),
        ("{{ strftime_now('%d %b %Y') }}", "01 Jan 2025"),
        ("{{ unheard_of }}{{ documents is none }}", "True"),
    ],
)
def test_template_has_what_templates_use(source, text):
    assert rendered(source, bos_token="<s>") == text


def test_template_is_told_the_time_it_was_given():
    template = ChatTemplate("{{ strftime_now('%Y') }}", now=datetime.datetime(2031, 5, 6))
    assert template.render(USER) == "2031"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('not so') }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[0].content + none }}",
        "{{ (1).unheard.of }}",
    ],
)
def test_template_that_refuses_or_misbehaves_is_an_error(source):
    with pytest.raises(ValueError, match=r"refuses messages of the roles \['user'\]"):
        rendered(source)


def test_reason_of_a_refusal_is_told():
    with pytest.raises(ValueError, match="not so"):
        rendered("{{ raise_exception('not so') }}")


def test_source_that_is_no_template_is_an_error():
    with pytest.raises(ValueError, match="not valid Jinja"):
        ChatTemplate("{% if %}")


def write(folder, config, jinja=None):
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja, encoding="utf-8")


def test_template_is_loaded_from_the_configuration_of_a_tokenizer(tmp_path):
    config = {"bos_token": {"content": "<s>", "special": True}, "eos_token": "</s>"}
    config["unk_token"] = None
    write(tmp_path, {**config, "chat_template": "{{ bos_token }}{{ eos_token }}"})
    assert ChatTemplate.load(tmp_path).render(USER) == "<s></s>"
    template = ChatTemplate.load(tmp_path, variables={"bos_token": "B"})
    assert template.render(USER) == "B</s>"
    assert template.variables["eos_token"] == "</s>"


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        (
            "{{ bos_token }}{{ messages }}{{ tools }}{{ raise_exception('x') if add }}",
            "add bos_token",
        ),
        ("{% for m in messages %}{{ loop.index }}{{ m }}{{ range(n) }}{% endfor %}", "n"),
        ("{% if x is not defined %}{% set x = 1 %}{% endif %}{{ x }}", "x"),
        ("{% set x = x | default(1) %}{% set y = y or 2 %}{{ x }}{{ y }}", "x y"),
        ("{% if messages %}{% set said = 1 %}{% endif %}{{ said }}", ""),
        ("{% macro m(a) %}{{ a }}{{ deep }}{% endmacro %}{{ m(1) }}", "deep"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = k %}{{ ns.a }}", "k"),
        (FAMILIES["qwen3"].template, "enable_thinking"),
        (FAMILIES["llama3.1"].template, "bos_token date_string"),
    ],
)
def test_template_knows_the_variables_that_it_reads(source, reads):
    assert sorted(ChatTemplate(source).reads) == reads.split()


def test_variable_that_the_template_never_reads_is_an_error(tmp_path):
    write(tmp_path, {"pad_token": "<p>", "chat_template": "{{ a }}{{ b if bos_token }}"})
    assert ChatTemplate.load(tmp_path, variables={"a": 3}).render(USER) == "3"
    with pytest.raises(ValueError, match="never reads the variable thinking; it reads a, b, bos_t"):
        ChatTemplate.load(tmp_path, variables={"a": 1, "thinking": False})
    write(tmp_path, {"chat_template": "hi"})
    with pytest.raises(ValueError, match="never reads the variable messages; it reads none"):
        ChatTemplate.load(tmp_path, variables={"messages": 1})


def test_end_tokens_are_those_of_the_generation_config_or_of_the_config(tmp_path):
    write(tmp_path, {"chat_template": "hi"})
    assert ChatTemplate.load(tmp_path).ends == ()
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}', encoding="utf-8")
    assert ChatTemplate.load(tmp_path).ends == (7,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": null}', encoding="utf-8")
    assert ChatTemplate.load(tmp_path).ends == (7,)
    (tmp_path / "generation_config.json").write_text(
        '{"eos_token_id": [1, "<e>"]}', encoding="utf-8"
    )
    assert ChatTemplate.load(tmp_path).ends == (1, "<e>")
    (tmp_path / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"generation_config\.json is not JSON: Expecting"):
        ChatTemplate.load(tmp_path)


def test_template_in_a_file_of_its_own_counts(tmp_path):
    write(tmp_path, {"bos_token": "<s>", "chat_template": "old"}, "{{ bos_token }}é")
    assert ChatTemplate.load(tmp_path).render(USER) == "<s>é"


def test_one_of_several_templates_is_chosen_by_name(tmp_path):
    several = [{"name": name, "template": f"this is {name}"} for name in ("default", "tool_use")]
    write(tmp_path, {"chat_template": several})
    assert ChatTemplate.load(tmp_path).render(USER) == "this is default"
    assert ChatTemplate.load(tmp_path, name="tool_use").render(USER) == "this is tool_use"
    with pytest.raises(ValueError, match=r"no chat template 'rag'; it has \['default', 'tool_use'"):
        ChatTemplate.load(tmp_path, name="rag")


def test_folder_without_a_template_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no chat template in"):
        ChatTemplate.load(tmp_path)
    write(tmp_path, {"bos_token": "<s>"})
    with pytest.raises(ValueError, match="take the folder of an instruction-tuned model"):
        ChatTemplate.load(tmp_path)


def pieces(render, *contents):
    return [(piece.text, piece.template) for piece in segments(render, contents)]


def source(text):
    """A render function of contents `c`."""
    template = ChatTemplate(text)
    return lambda contents: template.render([{"content": content} for content in contents])


WRAPPED = "{% for m in messages %}<a>{{ m.content }}</a>{% endfor %}"


def test_contents_are_told_from_the_template():
    assert pieces(source(WRAPPED), "x", "<a>") == [
        ("<a>", True), ("x", False), ("</a><a>", True), ("<a>", False), ("</a>", True),
    ]  # fmt: skip
    assert pieces(source("hi")) == [("hi", True)]


@pytest.mark.parametrize("content", ["content0x0x", "content0x1x content1x", "<a>", "</a><a>"])
def test_contents_that_read_like_the_template_stay_contents(content):
    found = segments(source(WRAPPED), [content, "y"])
    assert [piece.text for piece in found if not piece.template] == [content, "y"]


@pytest.mark.parametrize(
    ("shown", "content", "text"),
    [
        ("m.content | trim", "  x\n", "x"),
        ("m.content | tojson", 'a"\n', 'a\\"\\n'),
        ("m.content.split('</think>')[-1]", "<think>y</think>x", "x"),
        ("m.content | trim", "</a>", "</a>"),
        ("m.content | trim", " content0x1x", "content0x1x"),
        ("m.content | trim", " <a> ", "<a>"),
        ("m.content | upper if 'z' in m.content else m.content", "z", "Z"),
    ],
)
def test_contents_are_shown_as_the_template_shows_them(shown, content, text):
    render = source(WRAPPED.replace("m.content", shown))
    found = segments(render, [content, "other"])
    assert "".join(piece.text for piece in found) == render([content, "other"])
    assert [piece.text for piece in found if not piece.template] == [text, "other"]


def test_what_stands_around_an_empty_content_may_be_left_out_with_it():
    render = source("{% for m in messages %}{% if m.content %}" + WRAPPED[24:-12] + "{% endif %}"
                    "{% endfor %}")  # fmt: skip
    for contents in (["", "x"], ["x", ""], ["", ""], ["x", "", "y"]):
        found = segments(render, contents)
        assert "".join(piece.text for piece in found) == render(contents)
        assert [p.text for p in found if not p.template] == [c for c in contents if c]


def test_content_that_the_template_moves_is_put_where_others_are():
    render = source(
        "{% if 'z' in messages[0].content %}!{% endif %}<a>{{ messages[0].content }}</a>"
    )
    assert pieces(render, "z") == [("<a>", True), ("z", False), ("</a>", True)]


@pytest.mark.parametrize(
    "text",
    ["", "{{ messages[0].content * 2 }}{{ messages[1].content }}", "{{ messages[1].content }}"],
)
def test_template_that_does_not_show_its_contents_once_is_an_error(text):
    with pytest.raises(ValueError, match="shows 2 contents other than once each"):
        segments(source(text), ["x", "y"])
    reversed_ = source("{% for m in messages | reverse %}{{ m.content }}{% endfor %}")
    with pytest.raises(ValueError, match="in their order"):
        segments(reversed_, ["x", "y"])


@pytest.mark.parametrize("name", FAMILIES)
@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.sampled_from(
                [
                    *FAMILIES["qwen2.5"].special,
                    *FAMILIES["gemma3"].special,
                    "[INST]",
                    " ",
                    "\n",
                    "a",
                ]
            )
            | strategies.text(max_size=5),
            strategies.booleans(),
        ),
        max_size=8,
    )
)
def test_only_text_of_the_template_becomes_control_symbols(name, parts):
    tokenizer = FAMILIES[name].tokenizer()
    encoder = SegmentEncoder(tokenizer)
    ids = encoder.encode([Segment(text, template) for text, template in parts])
    control = {i: symbol for symbol, i in tokenizer.control_symbols.items()}
    expected = [
        piece
        for text, template in parts
        if template
        for piece in encoder.split(text)
        if piece in tokenizer.control_symbols
    ]
    assert [control[i] for i in ids if i in control] == expected
    assert tokenizer.decode(ids) == "".join(text for text, _ in parts).replace("\u2581", " ")


@pytest.mark.parametrize("name", FAMILIES)
def test_text_of_a_template_alone_is_encoded_as_the_library_does(name):
    family = FAMILIES[name]
    messages = [{"role": "user", "content": " What is  2 + 3?\n\n"}]
    text = family.chat_template().render(messages, add_generation_prompt=True)
    library = family.library_tokenizer().encode(text, add_special_tokens=False).ids
    encoder = SegmentEncoder(family.tokenizer())
    assert encoder.encode([Segment(text, True)]) == library
    # Also in pieces: text merges across the border of template and content.
    cut = text.index("What") + 1
    assert encoder.encode([Segment(text[:cut], True), Segment(text[cut:], True)]) == library


def test_longest_symbol_of_a_template_counts():
    library = chat_families.train_byte_level(("<s>", "<s><s>"), ())
    encoder = SegmentEncoder(chat_families.read(library))
    ids = encoder.encode([Segment("<s><s>a<s>", True)])
    assert ids == library.encode("<s><s>a<s>", add_special_tokens=False).ids and len(ids) == 3
