"""Texts from the edges of JSON, one by one: valid ones are read exactly, all others are refused.

``y_``: valid, with its value. ``n_``: not JSON. ``i_``: where RFC 8259 leaves it to the reader; what we decided is in
docs/protocol.md. Each text is read by the server's parser and, where it was accepted, by the task process's as well.
"""

import array
import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greentask.errors import InvalidMessage, InvalidResult
from greentask.wire.json import MAX_DIGITS, dumps, loads, loads_checked
from support.values import alike, values

MORE_EXAMPLES = settings(max_examples=5 * settings().max_examples)

VALID: dict[str, tuple[bytes, Any]] = {
    # Structure
    "y_empty_array": (b"[]", []),
    "y_empty_object": (b"{}", {}),
    "y_array_with_blanks": (b" [ ] ", []),
    "y_object_with_blanks": (b" { } ", {}),
    "y_blanks_of_all_four_kinds": (b"\t\r\n [\t1\r,\n2 ]\t\r\n ", [1, 2]),
    "y_blanks_around_colons": (b'{"a" :\t1 ,\n"b":\r2}', {"a": 1, "b": 2}),
    "y_alone_null": (b"null", None),
    "y_alone_true": (b"true", True),
    "y_alone_false": (b"false", False),
    "y_alone_number": (b"7", 7),
    "y_alone_negative": (b"-7", -7),
    "y_alone_string": (b'"a"', "a"),
    "y_alone_empty_string": (b'""', ""),
    "y_array_of_all_kinds": (b'[null,true,false,1,-1.5,"a",[],{}]', [None, True, False, 1, -1.5, "a", [], {}]),
    "y_array_in_arrays": (b"[[[[[]]]]]", [[[[[]]]]]),
    "y_object_in_objects": (b'{"a":{"a":{"a":{}}}}', {"a": {"a": {"a": {}}}}),
    "y_same_key_in_two_objects": (b'[{"a":1},{"a":2},{"a":{"a":3}}]', [{"a": 1}, {"a": 2}, {"a": {"a": 3}}]),
    "y_empty_key": (b'{"":0}', {"": 0}),
    "y_key_with_nul": (b'{"a\\u0000b":0}', {"a\0b": 0}),
    "y_key_escaped": (b'{"\\u0061\\"\\\\":0}', {'a"\\': 0}),
    "y_keys_that_differ_in_case": (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
    "y_keys_that_look_alike": ('{"é":1,"e\u0301":2}'.encode(), {"\xe9": 1, "e\u0301": 2}),
    "y_keys_like_numbers": (b'{"1":1,"01":2,"1.0":3}', {"1": 1, "01": 2, "1.0": 3}),
    "y_long_array": (b"[" + b"0," * 9_999 + b"0]", [0] * 10_000),
    "y_many_keys": (
        json.dumps({str(number): number for number in range(2_000)}).encode(),
        {str(number): number for number in range(2_000)},
    ),
    # Integers
    "y_zero": (b"0", 0),
    "y_integer_of_32_bits": (b"[2147483647,2147483648,-2147483649]", [2147483647, 2147483648, -2147483649]),
    "y_integer_of_53_bits": (b"9007199254740993", 9007199254740993),
    "y_integer_of_63_bits": (b"9223372036854775807", (1 << 63) - 1),
    "y_integer_of_64_bits": (b"9223372036854775808", 1 << 63),
    "y_integer_of_64_bits_full": (b"18446744073709551615", (1 << 64) - 1),
    "y_integer_of_65_bits": (b"18446744073709551616", 1 << 64),
    "y_negative_of_64_bits": (b"-9223372036854775808", -(1 << 63)),
    "y_negative_of_65_bits": (b"-9223372036854775809", -(1 << 63) - 1),
    "y_integer_of_30_digits": (b"123456789012345678901234567890", 123456789012345678901234567890),
    "y_integer_of_4300_digits": (b"9" * MAX_DIGITS, 10**MAX_DIGITS - 1),
    "y_negative_of_4300_digits": (b"-" + b"9" * MAX_DIGITS, 1 - 10**MAX_DIGITS),
    # Numbers with a fraction or an exponent
    "y_fraction": (b"0.5", 0.5),
    "y_fraction_of_zeros": (b"1.000", 1.0),
    "y_tenth": (b"0.1", 0.1),
    "y_sum_of_tenths": (b"0.30000000000000004", 0.30000000000000004),
    "y_seventeen_digits": (b"7.2057594037927945e16", 72057594037927945.0),
    "y_half_way_to_the_next": (b"9007199254740993.0", 9007199254740992.0),
    "y_just_past_half_way": (b"9007199254740993.00000000000000000000000001", 9007199254740994.0),
    "y_exponent": (b"1e5", 100000.0),
    "y_exponent_capital": (b"1E5", 100000.0),
    "y_exponent_plus": (b"1e+5", 100000.0),
    "y_exponent_minus": (b"1e-5", 0.00001),
    "y_exponent_zero": (b"1e0", 1.0),
    "y_exponent_of_zeros": (b"1e0000000000000000000005", 100000.0),
    "y_fraction_and_exponent": (b"-12.75E-2", -0.1275),
    "y_zero_with_exponent": (b"0e10", 0.0),
    "y_zero_with_huge_exponent": (b"0e99999999999999999999", 0.0),
    "y_minus_zero_float": (b"-0.0", -0.0),
    "y_minus_zero_exponent": (b"-0e1", -0.0),
    "y_largest_float": (b"1.7976931348623157e308", sys.float_info.max),
    "y_largest_float_rounded_down": (b"1.7976931348623158e308", sys.float_info.max),
    "y_smallest_normal_float": (b"2.2250738585072014e-308", sys.float_info.min),
    "y_largest_subnormal_float": (b"2.225073858507201e-308", 2.225073858507201e-308),
    "y_smallest_float": (b"5e-324", 5e-324),
    "y_smallest_float_rounded_up": (b"3e-324", 5e-324),
    "y_large_by_digits_small_by_exponent": (b"1" + b"0" * 1_000 + b"e-1000", 1.0),
    "y_small_by_digits_large_by_exponent": (b"0." + b"0" * 999 + b"1e1000", 1.0),
    "y_fraction_of_10000_digits": (b"0." + b"3" * 10_000, 0.3333333333333333),
    # Strings
    "y_escapes_of_all_kinds": (b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'),
    "y_escaped_nul": (b'"\\u0000"', "\0"),
    "y_escaped_controls": (b'"\\u0001\\u001F\\u007f"', "\x01\x1f\x7f"),
    "y_escaped_letter": (b'"\\u0041\\u00e9\\u20AC"', "A\xe9\u20ac"),
    "y_escaped_pair": (b'"\\uD83D\\uDE00"', "\U0001f600"),
    "y_escaped_pair_mixed_case": (b'"\\ud83D\\uDe00"', "\U0001f600"),
    "y_escaped_pairs": (b'"\\ud83d\\ude00\\ud83d\\ude01"', "\U0001f600\U0001f601"),
    "y_escaped_last_pair": (b'"\\udbff\\udfff"', "\U0010ffff"),
    "y_escaped_first_pair": (b'"\\ud800\\udc00"', "\U00010000"),
    "y_escaped_next_to_surrogates": (b'"\\ud7ff\\ue000"', "\ud7ff\ue000"),
    "y_escaped_noncharacters": (b'"\\ufffe\\uffff\\ufdd0"', "\ufffe\uffff\ufdd0"),
    "y_escaped_byte_order_mark": (b'"\\ufeff"', "\ufeff"),
    "y_escaped_backslash_before_u": (b'"\\\\u0041"', "\\u0041"),
    "y_escaped_backslash_before_surrogate": (b'"\\\\ud800"', "\\ud800"),
    "y_escaped_quote_at_the_end": (b'"a\\""', 'a"'),
    "y_raw_utf8_two_bytes": (b'"\xc3\xa9"', "\xe9"),
    "y_raw_utf8_three_bytes": (b'"\xe2\x82\xac"', "\u20ac"),
    "y_raw_utf8_four_bytes": (b'"\xf0\x9f\x98\x80"', "\U0001f600"),
    "y_raw_utf8_last": (b'"\xf4\x8f\xbf\xbf"', "\U0010ffff"),
    "y_raw_delete": (b'"\x7f"', "\x7f"),
    "y_raw_line_separators": (b'"\xc2\x85\xe2\x80\xa8\xe2\x80\xa9"', "\x85\u2028\u2029"),
    "y_raw_byte_order_mark": (b'"\xef\xbb\xbf"', "\ufeff"),
    "y_raw_nonbreaking_space": (b'"\xc2\xa0"', "\xa0"),
    "y_raw_slash": (b'"</script>"', "</script>"),
    "y_combining_stays": ('"e\u0301"'.encode(), "e\u0301"),
    "y_string_like_a_number": (b'"1e400"', "1e400"),
    "y_string_like_a_comment": (b'"//a /*b*/ #c"', "//a /*b*/ #c"),
    "y_string_like_structure": (b'"{\\"a\\":[1,2"', '{"a":[1,2'),
    "y_string_of_brackets": (b'"' + b"[{" * 5_000 + b'"', "[{" * 5_000),
    "y_string_of_digits": (b'"' + b"9" * 10_000 + b'"', "9" * 10_000),
    "y_string_of_a_megabyte": (b'"' + b"x" * 1_000_000 + b'"', "x" * 1_000_000),
    # Left to the reader
    "i_minus_zero_is_zero": (b"-0", 0),
    "i_too_small_is_zero": (b"1e-400", 0.0),
    "i_too_small_is_minus_zero": (b"-1e-99999999999999999999", -0.0),
    "i_too_precise_is_rounded": (b"1.00000000000000000001", 1.0),
    "i_depth_200": (b"[" * 200 + b"]" * 200, None),
    "i_depth_200_of_objects": (b'{"a":' * 199 + b"{}" + b"}" * 199, None),
}

REFUSED: dict[str, bytes] = {
    # Nothing, or not one value
    "n_nothing": b"",
    "n_blanks": b" \t\r\n",
    "n_two_values": b"1 2",
    "n_two_values_comma": b"1,2",
    "n_two_objects": b"{}{}",
    "n_array_and_comma": b"[1],",
    "n_array_and_bracket": b"[1]]",
    "n_array_and_letter": b"[1]x",
    "n_array_and_nul": b"[1]\x00",
    "n_object_and_brace": b'{"a":1}}',
    "n_object_and_string": b'{"a":1}"x"',
    "n_object_and_comment": b'{"a":1}//',
    "n_object_and_hash": b'{"a":1}#',
    "n_string_and_letter": b'"a"x',
    "n_alone_open_bracket": b"[",
    "n_alone_close_bracket": b"]",
    "n_alone_open_brace": b"{",
    "n_alone_close_brace": b"}",
    "n_alone_comma": b",",
    "n_alone_colon": b":",
    "n_alone_quote": b'"',
    "n_alone_backslash": b"\\",
    "n_alone_nul": b"\x00",
    "n_alone_letter": b"a",
    "n_angle_brackets": b"<null>",
    "n_parentheses": b"(1)",
    # Literals
    "n_true_cut": b"tru",
    "n_null_cut": b"nul",
    "n_true_capital": b"True",
    "n_true_capitals": b"TRUE",
    "n_none": b"None",
    "n_undefined": b"undefined",
    "n_nan": b"NaN",
    "n_nan_negative": b"-NaN",
    "n_nan_small": b"nan",
    "n_infinity": b"Infinity",
    "n_infinity_negative": b"[-Infinity]",
    "n_infinity_positive": b"+Infinity",
    "n_inf": b"Inf",
    "n_true_longer": b"truex",
    "n_true_and_true": b"true true",
    # Numbers
    "n_minus": b"-",
    "n_minus_in_array": b"[-]",
    "n_minus_minus": b"--1",
    "n_minus_plus": b"-+1",
    "n_minus_blank": b"- 1",
    "n_minus_letter": b"-a",
    "n_plus": b"+1",
    "n_plus_plus": b"++1",
    "n_leading_zero": b"01",
    "n_leading_zeros": b"007",
    "n_leading_zero_negative": b"-01",
    "n_double_zero": b"00",
    "n_leading_zero_fraction": b"01.5",
    "n_no_fraction": b"2.",
    "n_no_fraction_in_array": b"[2.]",
    "n_no_fraction_negative": b"-2.",
    "n_no_fraction_exponent": b"2.e3",
    "n_no_integer": b".5",
    "n_no_integer_negative": b"-.5",
    "n_two_dots": b"1.2.3",
    "n_dot_dot": b"1..2",
    "n_dot_minus": b"1.-2",
    "n_no_exponent": b"1e",
    "n_no_exponent_plus": b"1e+",
    "n_no_exponent_minus": b"1.0e-",
    "n_exponent_twice": b"1eE2",
    "n_exponent_again": b"1e2e3",
    "n_exponent_fraction": b"1e2.5",
    "n_exponent_blank": b"1 e2",
    "n_hexadecimal": b"0x10",
    "n_octal": b"0o17",
    "n_binary": b"0b1",
    "n_underscore": b"1_000",
    "n_thousands": b"1,000",
    "n_suffix": b"1L",
    "n_expression": b"1+2",
    "n_digit_full_width": "\uff11".encode(),
    "n_digit_arabic": "\u0661".encode(),
    "n_minus_of_typographers": "\u22121".encode(),
    "n_number_then_utf8_fault": b"1\xe5",
    "n_exponent_then_utf8_fault": b"1e1\xe5",
    # Arrays
    "n_array_open": b"[1",
    "n_array_open_comma": b"[1,",
    "n_array_trailing_comma": b"[1,]",
    "n_array_leading_comma": b"[,1]",
    "n_array_double_comma": b"[1,,2]",
    "n_array_only_comma": b"[,]",
    "n_array_no_comma": b"[1 2]",
    "n_array_no_comma_arrays": b"[[1][2]]",
    "n_array_semicolon": b"[1;2]",
    "n_array_colon": b'["a":1]',
    "n_array_closed_by_brace": b"[1}",
    "n_array_comment": b"[1/*x*/]",
    "n_array_star": b"[*]",
    "n_array_ellipsis": b"[1,...]",
    "n_array_vertical_tab": b"[\x0b]",
    "n_array_form_feed": b"[\x0c1]",
    # Objects
    "n_object_open": b'{"a":1',
    "n_object_open_key": b'{"a"',
    "n_object_open_colon": b'{"a":',
    "n_object_trailing_comma": b'{"a":1,}',
    "n_object_leading_comma": b'{,"a":1}',
    "n_object_only_comma": b"{,}",
    "n_object_no_colon": b'{"a" 1}',
    "n_object_no_value": b'{"a":}',
    "n_object_no_key": b"{:1}",
    "n_object_only_key": b'{"a"}',
    "n_object_double_colon": b'{"a"::1}',
    "n_object_comma_for_colon": b'{"a",1}',
    "n_object_equals": b'{"a"=1}',
    "n_object_no_comma": b'{"a":1 "b":2}',
    "n_object_key_unquoted": b"{a:1}",
    "n_object_key_single_quotes": b"{'a':1}",
    "n_object_key_number": b"{1:1}",
    "n_object_key_null": b"{null:1}",
    "n_object_key_array": b"{[1]:1}",
    "n_object_closed_by_bracket": b'{"a":1]',
    "n_object_comment": b'{"a":/**/1}',
    "n_object_key_with_utf8_fault": b'{"\xb9":1}',
    # Strings
    "n_string_open": b'"a',
    "n_string_open_escape": b'"a\\',
    "n_string_single_quotes": b"'a'",
    "n_string_backquotes": b"`a`",
    "n_string_typographic_quotes": "\u201ca\u201d".encode(),
    "n_string_raw_newline": b'"a\nb"',
    "n_string_raw_return": b'"a\rb"',
    "n_string_raw_tab": b'"\t"',
    "n_string_raw_nul": b'"\x00"',
    "n_string_raw_escape": b'"\x1b[31m"',
    "n_string_raw_unit_separator": b'"\x1f"',
    "n_string_escape_x": b'"\\x41"',
    "n_string_escape_a": b'"\\a"',
    "n_string_escape_zero": b'"\\0"',
    "n_string_escape_single_quote": b'"\\\'"',
    "n_string_escape_newline": b'"\\\n"',
    "n_string_escape_capital_u": b'"\\U0041"',
    "n_string_escape_u": b'"\\u"',
    "n_string_escape_u_short": b'"\\u004"',
    "n_string_escape_u_sign": b'"\\u+041"',
    "n_string_escape_u_blank": b'"\\u 041"',
    "n_string_escape_u_underscore": b'"\\u0_41"',
    "n_string_escape_u_no_hex": b'"\\u00G0"',
    "n_string_escape_u_full_width": '"\\u\uff10\uff10\uff14\uff11"'.encode(),
    "n_string_escape_braces": b'"\\u{41}"',
    "n_string_escape_emoji": '"\\\U0001f600"'.encode(),
    "n_string_with_three_quotes": b'"""a"""',
    "n_string_prefix": b'b"a"',
    # Blanks that aren't
    "n_blank_vertical_tab": b"\x0b1",
    "n_blank_form_feed": b"\x0c1",
    "n_blank_nonbreaking": "\xa01".encode(),
    "n_blank_next_line": "\x851".encode(),
    "n_blank_line_separator": "1\u2028".encode(),
    "n_blank_ideographic": "[\u30001]".encode(),
    "n_blank_zero_width": "\u200b1".encode(),
    "n_blank_word_joiner": "\u2060[]".encode(),
    # Not UTF-8
    "n_utf8_continuation_alone": b'"\x80"',
    "n_utf8_cut_of_two": b'"\xc3"',
    "n_utf8_cut_of_three": b'"\xe2\x82"',
    "n_utf8_cut_of_four": b'"\xf0\x9f\x98"',
    "n_utf8_overlong_slash": b'"\xc0\xaf"',
    "n_utf8_overlong_nul": b'"\xc0\x80"',
    "n_utf8_overlong_of_three": b'"\xe0\x80\xaf"',
    "n_utf8_overlong_of_four": b'"\xf0\x80\x80\xaf"',
    "n_utf8_overlong_quote": b'"a\xc0\xa2',
    "n_utf8_of_five_bytes": b'"\xf8\x88\x80\x80\x80"',
    "n_utf8_of_six_bytes": b'"\xfc\x83\xbf\xbf\xbf\xbf"',
    "n_utf8_beyond_unicode": b'"\xf4\x90\x80\x80"',
    "n_utf8_fe": b'"\xfe"',
    "n_utf8_ff": b'"\xff"',
    "n_utf8_surrogate": b'"\xed\xa0\x80"',
    "n_utf8_surrogate_pair": b'"\xed\xa0\xbd\xed\xb8\x80"',
    "n_latin_1": b'"\xe9t\xe9"',
    "n_utf16": '{"a":1}'.encode("utf-16-le"),
    "n_utf16_with_mark": '{"a":1}'.encode("utf-16"),
    "n_utf32": '{"a":1}'.encode("utf-32-be"),
    "n_pickle": b"\x80\x04K\x01.",
    "n_gzip": b"\x1f\x8b\x08\x00",
    # Deep without an end
    "n_open_arrays": b"[" * 100_000,
    "n_open_objects": b'{"a":' * 100_000,
    "n_open_arrays_of_objects": b'[{"a":' * 50_000,
    # Left to the reader
    "i_depth_201": b"[" * 201 + b"]" * 201,
    "i_depth_201_of_objects": b'{"a":' * 200 + b"{}" + b"}" * 200,
    "i_depth_500": b"[" * 500 + b"]" * 500,
    "i_depth_100000": b"[" * 100_000 + b"]" * 100_000,
    "i_depth_100000_of_objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "i_duplicate_key": b'{"a":1,"a":2}',
    "i_duplicate_key_and_value": b'{"a":1,"a":1}',
    "i_duplicate_key_empty": b'{"":1,"":2}',
    "i_duplicate_key_escaped": b'{"function":1,"\\u0066unction":2}',
    "i_duplicate_key_far_inside": b'[[{"x":[{"a":1,"b":2,"a":3}]}]]',
    "i_duplicate_key_among_many": b"{" + b"".join(b'"%d":0,' % number for number in range(1_000)) + b'"7":1}',
    "i_duplicate_key_pair_and_raw": b'{"\\ud83d\\ude00":1,"\xf0\x9f\x98\x80":2}',
    "i_byte_order_mark": b"\xef\xbb\xbf{}",
    "i_byte_order_mark_alone": b"\xef\xbb\xbf",
    "i_lone_surrogate_high": b'"\\ud800"',
    "i_lone_surrogate_low": b'"\\udfff"',
    "i_lone_surrogate_in_a_key": b'{"\\uD888":1}',
    "i_lone_surrogates_in_the_wrong_order": b'"\\ude00\\ud83d"',
    "i_lone_surrogate_twice": b'"\\ud800\\ud800"',
    "i_lone_surrogate_before_a_pair": b'"\\ud800\\ud83d\\ude00"',
    "i_lone_surrogate_before_an_escape": b'"\\ud800\\n"',
    "i_lone_surrogate_before_a_letter": b'"\\ud800abc"',
    "i_lone_surrogate_half_raw": b'"\\ud83d\xed\xb8\x80"',
    "i_float_too_large": b"1e400",
    "i_float_too_large_negative": b"[-1e400]",
    "i_float_just_too_large": b"1.7976931348623159e308",
    "i_float_huge_exponent": b"1e" + b"9" * 10_000,
    "i_float_of_many_digits": b"9" * 400 + b".0",
    "i_integer_of_4301_digits": b"1" + b"0" * MAX_DIGITS,
    "i_negative_of_4301_digits": b"-1" + b"0" * MAX_DIGITS,
    "i_integer_of_10000_digits": b"[" + b"9" * 10_000 + b"]",
    "i_integer_of_a_million_digits": b"9" * 1_000_000,
}


@pytest.mark.parametrize("name", VALID)
def test_a_valid_text_is_read_exactly_by_both_parsers(name: str) -> None:
    text, value = VALID[name]
    if name.startswith("i_depth"):
        value = json.loads(text)
    assert alike(loads(text), value)
    assert alike(loads_checked(text), value)
    assert alike(loads(dumps(value)), value)


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_text_is_refused_quickly_and_in_few_words(name: str) -> None:
    began = time.thread_time()  # not what others on the machine do meanwhile
    with pytest.raises(InvalidMessage) as caught:
        loads(REFUSED[name])
    assert time.thread_time() - began < 1
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", [name for name in VALID if not name.startswith("i_depth")])
def test_a_valid_text_is_valid_as_an_argument(name: str) -> None:
    text, value = VALID[name]
    assert alike(loads(b'{"args":[' + text + b"]}"), {"args": [value]})


# What is a part of something valid, so that it may stand between two brackets.
PARTS = {"n_nothing", "n_blanks", "n_two_values_comma"}


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in PARTS])
def test_an_invalid_text_spoils_what_is_around_it(name: str) -> None:
    with pytest.raises(InvalidMessage):
        loads(b'{"args":[' + REFUSED[name] + b"]}")


def test_the_corpus_is_large() -> None:
    assert len(VALID) + len(REFUSED) >= 250


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"a":1,"a":2}', r"^an object has the key 'a' twice$"),
        (b'{"' + b"k" * 5_000 + b'":1,"' + b"k" * 5_000 + b'":2}', r"^an object has the key 'k{79}… twice$"),
        (b'{"\\ud800":1,"\\ud800":2}', r"^an object has the key '\\ud800' twice$"),
        (b"\xef\xbb\xbf{}", r"\(a byte order mark\)$"),
        (b"9" * 4_301, r"^an integer has more than 4300 digits$"),
        (b"-" + b"9" * 4_301, r"^an integer has more than 4300 digits$"),
    ],
    ids=lambda part: ascii(part)[:30],
)
def test_what_is_refused_is_named(text: bytes, says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        loads(text)


# ---- Python's own limit for integers


@contextlib.contextmanager
def python_reads(digits: int) -> Iterator[None]:
    if not hasattr(sys, "set_int_max_str_digits"):  # before 3.10.7 it reads any number of them
        yield
        return
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(digits)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize("limit", [0, 1_000_000])
def test_digits_without_end_hold_nobody_up_where_a_program_has_lifted_pythons_limit(limit: int) -> None:
    with python_reads(limit):
        began = time.thread_time()  # not what others on the machine do meanwhile
        for text in (b"9" * 4_301, b"-" + b"9" * 1_000_000, b'{"id":[' + b"9" * 1_000_000 + b"]}"):
            with pytest.raises(InvalidMessage, match="an integer has more than 4300 digits"):
                loads(text)
        assert time.thread_time() - began < 1
        assert loads(b"[" + b"9" * 4_300 + b"," + b"-" + b"9" * 4_300 + b"]") == [10**4_300 - 1, 1 - 10**4_300]
        assert loads(b'"' + b"9" * 5_000 + b'"') == "9" * 5_000


def test_what_no_reader_would_take_is_not_written_where_a_program_has_lifted_pythons_limit() -> None:
    with python_reads(0):
        assert dumps({"digits": "9" * 5_000, "most": 10**4_300 - 1, "least": 1 - 10**4_300})
        with pytest.raises(InvalidResult, match=r"^result\['many'\]\[0\] is 1000"):
            dumps({"digits": "9" * 5_000, "many": [10**4_300]})


def test_where_a_program_has_lowered_it_less_is_read_and_written() -> None:
    with python_reads(1_000):
        assert loads(b"9" * 1_000) == 10**1_000 - 1
        with pytest.raises(InvalidMessage, match=r"^an integer has more than 1000 digits$"):
            loads(b"9" * 1_001)
        with pytest.raises(InvalidResult, match=r"^result is an integer of 3322 bits, which JSON can't carry$"):
            dumps(10**1_000)


# ---- Keys that are one in JSON


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1: "a", "1": "b"}, "result has the keys 1 and '1', which are one in JSON"),
        ([{"x": ({"1": "b", 1: "a"},)}], "result[0]['x'][0] has the keys '1' and 1, which are one in JSON"),
        ({"true": 0, True: 1}, "result has the keys 'true' and True, which are one in JSON"),
        ({None: 0, "null": 1}, "result has the keys None and 'null', which are one in JSON"),
        ({1.5: 0, "1.5": 1}, "result has the keys 1.5 and '1.5', which are one in JSON"),
        ({"-0.0": 0, -0.0: 1}, "result has the keys '-0.0' and -0.0, which are one in JSON"),
    ],
)
def test_keys_that_are_one_in_json_are_not_written(value: Any, says: str) -> None:
    with pytest.raises(InvalidResult) as caught:
        dumps(value)
    assert str(caught.value) == says


@pytest.mark.parametrize("value", [{1: 2, "2": 3}, {None: {"None": 1}}, [{1: 2}, {"1": 2}], {"a": {True: 1, 2: 3}}])
def test_keys_that_stay_two_are_written(value: Any) -> None:
    assert loads(dumps(value)) == json.loads(json.dumps(value))


# ---- What nobody thought of


digits = st.text("0123456789", max_size=25)

numbers = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-"]),
        st.just("0") | st.builds("".join, st.tuples(st.sampled_from("123456789"), digits)),
        st.just("") | st.builds(".{}{}".format, st.sampled_from("0123456789"), digits),
        st.just("")
        | st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 400)),
    ),
)
shortest = st.floats(allow_nan=False, allow_infinity=False).map(repr)
near_half_way = st.floats(min_value=1.0, max_value=1e18, allow_nan=False).map(
    lambda number: f"{int(number * 2) | 1}.5" + "0" * 20 + "1"
)

characters = st.characters(exclude_categories=["Cs"])
written = st.text(characters, max_size=30).map(lambda text: json.dumps(text, ensure_ascii=False))
escaped = st.text(characters, max_size=30).map(lambda text: json.dumps(text, ensure_ascii=True))
escaped_all = st.text(characters, max_size=30).map(
    lambda text: '"' + "".join(f"\\u{unit:04X}" for unit in array.array("H", text.encode("utf-16"))[1:]) + '"'
)


@MORE_EXAMPLES
@given(st.lists(numbers | shortest | near_half_way | written | escaped | escaped_all, max_size=4))
def test_the_task_process_reads_every_number_and_string_as_the_server_does(parts: list[str]) -> None:
    text = f"[{','.join(parts)}]"
    expected = json.loads(text)
    if any(isinstance(item, float) and math.isinf(item) for item in expected):
        with pytest.raises(InvalidMessage, match="beyond a float's range"):
            loads(text.encode())
    else:
        assert alike(loads(text.encode()), expected)
        assert alike(loads_checked(text.encode()), expected)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "\\u0061", "é", "\\u00e9", "1", ""]), values), max_size=4))
def test_an_object_is_read_whole_or_not_at_all(members: list[tuple[str, Any]]) -> None:
    text = "{" + ",".join(f'"{key}":{json.dumps(value)}' for key, value in members) + "}"
    names = {json.loads(f'"{key}"') for key, _ in members}
    if len(names) < len(members):
        with pytest.raises(InvalidMessage, match="twice"):
            loads(text.encode())
    else:
        assert alike(loads(text.encode()), json.loads(text))


@given(values, st.integers(0, 190))
def test_any_value_at_any_depth_goes_round(value: Any, depth: int) -> None:
    for _ in range(depth // 2):
        value = {"a": [value]}
    text = dumps(value)
    assert alike(loads(text), value)
    assert alike(loads_checked(text), value)
