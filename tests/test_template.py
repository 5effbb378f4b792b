"""Templates: names of a closed list are filled in, and everything else stays as it was written."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.template import MissingField, Template

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
        "{wörd}",
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
