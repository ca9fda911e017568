import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.tokenizers import ByteTokenizer, canonical_name

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(TEXT)
def test_text_survives_encoding(text):
    tokenizer = ByteTokenizer()
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.uint8 and len(tokens) == len(text.encode())
    assert tokenizer.eot_id not in tokens
    assert tokenizer.decode(tokens.astype(np.int32)) == text


def test_end_of_text_is_shown_as_a_newline():
    assert ByteTokenizer().decode(np.array([104, 105, 0, 104, 111])) == "hi\nho"


def test_half_a_character_is_shown_as_a_replacement():
    tokens = ByteTokenizer().encode("é")
    assert ByteTokenizer().decode(tokens[:1]) == "\ufffd"


@pytest.mark.parametrize(
    ("text", "message"), [("ab\0c", "NUL character at 2"), ("ab\ud800", "character 2")]
)
def test_text_that_has_no_tokens_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        ByteTokenizer().encode(text)


@pytest.mark.parametrize("name", ["words", "bpe", "bpe:256", "bpe:many", "gpt2:"])
def test_unknown_tokenizer_is_refused_with_what_exists(name):
    with pytest.raises(ValueError, match=f"tokenizer='{name}' is unknown; use 'bytes'"):
        canonical_name(name)
