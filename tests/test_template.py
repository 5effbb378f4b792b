"""Templates: names of a closed list are filled in, and everything else stays as it was written."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.template import MissingField, Template, flaw_of

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True).filter(
    lambda name: name not in ("answer", "word")
)
braced = st.text(alphabet="{}[]!.:0a_w ord\n", max_size=30)
values = st.one_of(braced, st.text(max_size=20)).filter(bool)
plain = st.text().filter(lambda text: "{" not in text)
unbracketed = plain.map(lambda text: text.replace("[", "("))


def prompt_of(template, word="cat", **fields):
    return Template(template).render(word, fields).prompt


@given(text=plain)
def test_text_without_names_comes_back_as_it_was(text):
    rendered = Template(text).render("cat", {"gloss": "an animal"})
    assert rendered == (text, "")
    assert Template(text).all_names() == frozenset()


@given(value=values, other=values)
@example(value="{gloss}", other="secret")
@example(value="[[ {word} ]]", other="{word}")
@example(value="{answer}", other="x")
def test_a_value_is_never_read_again(value, other):
    rendered = Template("<{word}|{gloss}>[[ ({gloss})]]").render(value, {"gloss": other})
    assert rendered == (f"<{value}|{other}> ({other})", "")


@pytest.mark.parametrize(
    "literal",
    [
        "{word.__class__}",
        "{word.__init__.__globals__}",
        "{word[0]}",
        "{0}",
        "{}",
        "{word!r}",
        "{word!s:9.9}",
        "{word:>999999999}",
        "{word.text}",
        "{word['x']}",
        "{__import__('os')}",
        "{self.__init__.__globals__[key]}",
        "{word:>1000000}",
        "{ word }",
        "{1word}",
        "{{",
        "}}",
        '{"word": 1}',
        "$word %(word)s",
    ],
)
def test_what_str_format_would_have_run_is_text(literal):
    assert prompt_of(f"a {literal} b") == f"a {literal} b"
    assert Template(literal).all_names() == frozenset()


@pytest.mark.parametrize("name", ["__import__", "__class__", "self", "key", "format"])
def test_a_name_is_one_of_the_words_fields_or_missing(name):
    with pytest.raises(MissingField, match=f"^{name}$"):
        prompt_of(f"{{word}} {{{name}}}")
    assert prompt_of(f"{{{name}}}", **{name: "a field"}) == "a field"


def test_double_braces_are_braces_around_a_name():
    assert prompt_of("{{word}}") == "{cat}"


def test_the_word_stands_for_itself_even_where_a_field_has_its_name():
    assert Template("{word}").render("cat", {"word": "dog"}).prompt == "cat"


def test_a_name_without_a_value_is_missing():
    with pytest.raises(MissingField, match=r"^gloss$"):
        prompt_of("{word}: {gloss}", other="x")


def test_an_empty_value_is_a_missing_one():
    with pytest.raises(MissingField, match=r"^gloss$"):
        prompt_of("{word}: {gloss}", gloss="")


def test_an_optional_section_stays_where_all_its_names_have_values():
    template = "{word}[[ ({kind}, {gloss})]]."
    assert prompt_of(template, kind="noun", gloss="an animal") == "cat (noun, an animal)."


@pytest.mark.parametrize("fields", [{}, {"kind": "noun"}, {"kind": "noun", "gloss": ""}])
def test_an_optional_section_goes_where_one_of_its_names_has_no_value(fields):
    assert prompt_of("{word}[[ ({kind}, {gloss})]].", **fields) == "cat."


def test_an_optional_section_may_hold_line_breaks():
    assert prompt_of("{word}[[\nGloss: {gloss}\n]]!", gloss="x") == "cat\nGloss: x\n!"


def test_brackets_without_a_name_are_brackets():
    assert prompt_of("a [[1, 2], [3]] {word} [[b]]") == "a [[1, 2], [3]] cat [[b]]"


@given(required=st.sets(names), optional=st.sets(names))
def test_required_are_the_names_outside_of_optional_sections(required, optional):
    text = "".join(f"{{{name}}}" for name in required)
    text += "".join(f"[[{{{name}}}]]" for name in optional)
    template = Template(text)
    assert template.required_names() == required
    assert template.all_names() == required | optional


def test_names_of_the_answers_beginning_are_required_too():
    template = Template("{word}{answer}{gloss}[[{kind}]]")
    assert template.required_names() == {"word", "gloss"}
    assert template.all_names() == {"word", "gloss", "kind"}


@given(question=plain, beginning=plain)
def test_what_follows_answer_begins_the_answer(question, beginning):
    rendered = Template(f"{question}{{word}}{{answer}}{beginning}{{word}}").render("cat", {})
    assert rendered == (f"{question}cat", f"{beginning}cat")


@given(pieces=st.lists(st.one_of(unbracketed, names.map("{{{}}}".format)), max_size=8))
def test_a_template_filled_with_its_own_names_is_itself(pieces):
    text = "".join(pieces)
    own = {name: f"{{{name}}}" for name in Template(text).all_names()}
    assert Template(text).render("cat", own) == (text, "")


@pytest.mark.parametrize(
    "name",
    [
        "Part of speech",
        "wörd",
        "Level (CEFR)",
        "parts-of/speech",
        "Größe 2",
        "R & D",
        "пример",
        "例",
    ],
)
def test_a_name_may_be_as_columns_are_called(name):
    assert prompt_of(f"{{word}}: {{{name}}}", **{name: "x"}) == "cat: x"
    assert Template(f"[[{{{name}}}]]").all_names() == {name}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("On {{word}}", "{{word}}"),
        ("On {{Part of speech}}", "{{Part of speech}}"),
        ("On { word }", "{ word }"),
        ("On {word} {word.text}", "{word.text}"),
        ("On {word!r}, {word}", "{word!r}"),
        ("On {word}, {No. of uses}", "{No. of uses}"),
        ("On {word}, {1st form}", "{1st form}"),
        ("{word}\nwhich is {kind", "which is {kind"),
        ("{word}[[ as {kind}", "{word}[[ as {kind}"),
        ("{word} as {kind}]]", "{word} as {kind}]]"),
        ("{word}[[ as {kind}]", "{word}[[ as {kind}]"),
        ("{word}[[ as {kind}[[ of {level}]]]]", "[[ of {level}"),
        ("{word}[[ as {answer}{kind}]]", "{word}[[ as "),
        ("word} and {word}", "word} and"),
        ("{word}{answer}{kind", "{kind"),
    ],
)
def test_what_would_be_sent_with_its_braces_is_a_flaw(text, shown):
    assert shown in flaw_of(text).what


@pytest.mark.parametrize(
    "text",
    [
        "{word}[[ as {kind}]]",
        'As {"word": "{word}", "tags": ["a", ["b"]]}',
        "As {definition: …, example: …} of {word}",
        "[[1, 2], [3]] and [1, [2]] {word}",
        "{} {…} {0} {word}",
        "As {\n  definition\n} {word}",
        "{word}{answer}Definition:[[ {gloss}]]",
        "It [sic] has a ] more: {word}",
    ],
)
def test_what_can_be_meant_as_it_is_is_no_flaw(text):
    assert flaw_of(text) is None


@given(text=braced)
def test_a_template_without_a_flaw_sends_braces_in_pairs(text):
    if flaw_of(text) is None:
        sent = Template(text).render("cat", dict.fromkeys(Template(text).all_names(), "x"))
        for part in sent:
            assert part.count("{") == part.count("}")
