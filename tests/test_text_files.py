"""YAML, CSV and JSON of anybody's: the values that are read, and the words, with a next step, where they are not."""

import re

import pytest

from aft_lens.errors import InputError
from aft_lens.text_files import MOST_BYTES, MOST_DEPTH, read_json, read_table, read_yaml


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file"


def said(read, file, content):
    """What is said of a file behind its name."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as told:
        read(file)
    name, words = str(told.value)[: len(str(file))], str(told.value)[len(str(file)) :]
    assert name == str(file)
    return words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1\nb: &b [x]\n", " has an anchor or alias in line 2; write it out"),
        ("a: 1\nb: &b x\n", " has an anchor or alias in line 2; write it out"),
        ("a: 1\n\nb: *b\n", " has an anchor or alias in line 3; write it out"),
        ("a: 1\nb: !!str x\n", " has a tag in line 2; only plain values are read"),
        ("a: 1\nb: !own [x]\n", " has a tag in line 2; only plain values are read"),
        ("- 1\n", " must hold fields with values, it holds list; restore the file"),
        ("", " must hold fields with values, it holds NoneType; restore the file"),
        ("a: 1\n2: b\n", " must hold fields with values, it holds dict; restore the file"),
        (b"a: \xff", " is not UTF-8 text (byte 3); restore the file"),
    ],
    ids=repr,
)
def test_yaml_that_is_not_plain_fields_is_refused_with_its_line(file, content, words):
    assert said(read_yaml, file, content) == words


def test_yaml_that_cannot_be_read_is_told_in_one_line_of_its_reader(file):
    words = said(read_yaml, file, "model: {mixer\nb: [")
    assert re.fullmatch(
        r" is no YAML that can be read \(while parsing a flow mapping \S[^\n]*\); restore the file", words
    )
    assert "  " not in words
    assert said(read_yaml, file, "a: 2001-99-99") == (
        " is no YAML that can be read (month must be in 1..12); restore the file"
    )


def test_yaml_nests_as_deep_as_is_said_and_lists_beside_each_other_do_not_count(file):
    inner = MOST_DEPTH - 1
    file.write_text("a: " + "[" * inner + "]" * inner + "\nb: [[], [], {}]\n")
    assert read_yaml(file)["b"] == [[], [], {}]
    file.write_text("".join(f"a{number}: [[]]\n" for number in range(3 * MOST_DEPTH)))
    assert len(read_yaml(file)) == 3 * MOST_DEPTH
    deeper = "a: " + "[" * (inner + 1) + "]" * (inner + 1)
    assert said(read_yaml, file, deeper) == " nests more than 12 levels; a file of ours has 3"


def test_a_file_of_just_the_largest_size_is_read(file):
    file.write_text("a: " + "x" * (MOST_BYTES - 3))
    assert len(read_yaml(file)["a"]) == MOST_BYTES - 3
    assert said(read_yaml, file, "a: " + "x" * (MOST_BYTES - 2)) == " is longer than 524,288 bytes; restore the file"


def test_a_table_has_columns_and_rows_without_the_cells_that_are_not_there(file):
    file.write_bytes(b'epoch,loss,,note\r\n0,0.5,x,"a\r\nb"\r\n1,\r\n2,0.25,,c,over\r\n')
    columns, rows = read_table(file)
    assert columns == ["epoch", "loss", "", "note"]
    assert rows == [
        {"epoch": "0", "loss": "0.5", "note": "a\r\nb"},
        {"epoch": "1", "loss": ""},
        {"epoch": "2", "loss": "0.25", "note": "c"},
    ]
    file.write_bytes(b"")
    assert read_table(str(file)) == ([], [])


def test_a_table_that_cannot_be_read_is_answered(file):
    assert said(read_table, file, "a\n" + "x" * 2**18) == (
        " is no table that can be read (field larger than field limit (131072)); restore the file"
    )
    assert said(read_table, file, b"a\n\xff") == " is not UTF-8 text (byte 2); restore the file"


def test_json_that_is_no_object_is_answered(file):
    assert said(read_json, file, "[1]") == " must hold an object, it holds list; restore the file"
    assert said(read_json, file, "{") == (
        " is no JSON that can be read (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        "restore the file"
    )
    assert said(read_json, file, b'{"\xff": 1}') == " is not UTF-8 text (byte 2); restore the file"
    file.write_text('{"a": [1, null]}')
    assert read_json(str(file)) == {"a": [1, None]}
