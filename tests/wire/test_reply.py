"""Replies: what a line to a client means, and that only the protocol's errors come of a line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greentask.errors import PROTOCOL_TYPES, CallError, InvalidMessage, Unauthenticated, from_wire
from greentask.wire.json import dumps
from greentask.wire.reply import Reply, decode_reply, error_member, item_line, line, member
from greentask.wire.text import LineSplitter
from support.values import alike, damaged, lines, nested, text, values

pytestmark = pytest.mark.once

MORE_EXAMPLES = settings(max_examples=5 * settings().max_examples)

# ---- Replies, for Hypothesis

ids = text | st.integers()
errors = st.dictionaries(text | st.sampled_from(["type", "message", "started"]), values, max_size=3)
replies = st.one_of(
    st.builds(Reply, st.none() | ids, st.sampled_from(["result", "progress", "item"]), values),
    st.builds(Reply, st.none() | ids, st.just("error"), errors),
    st.builds(Reply, st.none() | ids, st.just("result"), values, st.integers(0, 1_000_000)),
    st.builds(Reply, st.none() | ids, st.just("error"), errors, st.integers(0, 1_000_000)),
)


def encode_reply(reply: Reply) -> bytes:
    body = member(reply.kind, dumps(reply.value))
    return line(reply.id, body) if reply.index is None else item_line(reply.id, reply.index, body)


# ---- There and back


@given(replies)
def test_a_reply_comes_back_as_it_was(reply: Reply) -> None:
    assert alike(decode_reply(encode_reply(reply)), reply)


@given(st.lists(replies.map(encode_reply), max_size=5))
def test_a_reply_is_one_line(replies: list[bytes]) -> None:
    assert LineSplitter().feed(b"".join(replies)) == [reply.removesuffix(b"\n") for reply in replies]


# ---- Whatever comes in


@MORE_EXAMPLES
@given(lines | damaged(replies.map(encode_reply)))
def test_a_line_is_a_reply_or_an_invalid_message(data: bytes) -> None:
    try:
        reply = decode_reply(data)
    except InvalidMessage:
        return
    assert reply.id is None or type(reply.id) in (str, int)
    assert reply.index is None or type(reply.index) is int
    assert reply.kind in ("result", "error", "progress", "item")
    assert reply.kind != "error" or type(reply.value) is dict


# ---- A reply, rule by rule


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b'{"id":7,"result":{"sent":true}}', Reply(7, "result", {"sent": True})),
        (b'{"result":null}', Reply(None, "result", None)),
        (b'{"id":null,"item":[]}', Reply(None, "item", [])),
        (b'{"id":"a","index":3,"result":12}', Reply("a", "result", 12, 3)),
        (b'{"id":7,"progress":{"done":1}}', Reply(7, "progress", {"done": 1})),
        (b'{"id":7,"error":{}}', Reply(7, "error", {})),
        (b'{"id":7,"result":1,"message":"more than we know"}', Reply(7, "result", 1)),
    ],
)
def test_a_reply_is_read(data: bytes, reply: Reply) -> None:
    assert alike(decode_reply(data), reply)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[]", "a reply is an object, not an array"),
        (b"{}", "a reply has one of result, error, progress, item, not none"),
        (b'{"id":1}', "a reply has one of result, error, progress, item, not none"),
        (b'{"id":1,"result":null,"error":{"type":"ValueError"}}', "not result and error"),
        (b'{"id":1,"item":1,"progress":{}}', "not progress and item"),
        (b'{"id":1,"error":"failed"}', "error must be an object, not a string"),
        (b'{"id":1,"error":null}', "error must be an object, not null"),
        (b'{"id":[1],"result":1}', "id must be a string or an integer, not an array"),
        (b'{"id":{},"progress":1}', "id must be a string or an integer, not an object"),
        (b'{"id":1.0,"result":1}', "id must be a string or an integer, not a number"),
        (b'{"id":true,"result":1}', "id must be a string or an integer, not true or false"),
        (b'{"id":1,"index":"0","result":1}', "index must be an integer, not a string"),
        (b'{"id":1,"index":false,"result":1}', "index must be an integer, not true or false"),
        (b"hello", "not JSON"),
    ],
)
def test_what_is_no_reply_is_refused_with_its_reason(data: bytes, says: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode_reply(data)
    assert says in str(caught.value)


def test_a_challenge_is_no_reply_and_says_what_to_do() -> None:
    with pytest.raises(Unauthenticated, match="pass secret_file="):
        decode_reply(b'{"challenge":"00","greentask":1}')


def test_a_result_as_deep_as_may_be_written_can_be_read() -> None:
    body = member("result", dumps(nested(500)))
    assert decode_reply(line(7, body)).value == nested(500)
    assert decode_reply(item_line(7, 0, body)).value == nested(500)
    with pytest.raises(InvalidMessage, match="nested deeper than"):
        decode_reply(b'{"result":' + b"[" * 501 + b"]" * 501 + b"}")


@pytest.mark.parametrize(
    "error", [cls("of this kind") for cls in PROTOCOL_TYPES.values()], ids=lambda error: error.type
)
def test_an_error_goes_into_its_line(error: CallError) -> None:
    reply = decode_reply(line("a", error_member(error)))
    assert (reply.id, reply.kind) == ("a", "error")
    assert type(from_wire(reply.value)) is type(error)


def test_lines_are_put_together_from_bytes() -> None:
    assert line(None, member("result", b"1")) == b'{"result":1}\n'
    assert line("\xe9", member("item", b"[1, 2]")) == '{"id":"\xe9","item":[1, 2]}\n'.encode()
    assert item_line(7, 3, member("result", b"null")) == b'{"id":7,"index":3,"result":null}\n'
