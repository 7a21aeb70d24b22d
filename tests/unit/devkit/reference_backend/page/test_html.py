from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.devkit.reference_backend.page.html import Html, join, tag


class Seen(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(name)
        self.attributes |= dict(attributes)

    def handle_data(self, data: str) -> None:
        self.text += data


# A parser of HTML itself changes line breaks and NUL, whoever wrote them.
TEXT = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]))


@given(TEXT, TEXT)
def test_text_stays_text_whatever_it_is(child: str, value: str) -> None:
    seen = Seen(tag("p", child, attributes={"data-x": value}))
    assert seen.tags == ["p"]
    assert seen.attributes == {"data-x": value}
    assert seen.text == child


def test_markup_is_kept_and_what_is_not_there_left_out() -> None:
    inner = tag("b", "<i>", None)
    assert tag("p", inner, "&") == "<p><b>&lt;i&gt;</b>&amp;</p>"
    assert isinstance(join(inner, "x"), Html)


def test_attributes_without_a_value() -> None:
    attributes = {"disabled": True, "hidden": False, "title": None, "name": ""}
    assert tag("input", attributes=attributes) == '<input disabled name="">'
