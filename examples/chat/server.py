"""A chat in lines of text: everybody hears what the others say."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402 - patching comes first

import gevent  # noqa: E402

from greentask import Limits, TextConnection, TextServer  # noqa: E402

PATIENCE = 30.0  # seconds for saying one's name


def on_connect(guest: TextConnection) -> None:
    guest.send("welcome! What is your name?")
    guest.context.name = ""
    guest.context.timer = gevent.spawn_later(PATIENCE, guest.close, "you are too shy")


def on_message(guest: TextConnection, line: str) -> None:
    # Escape sequences would do to others' terminals what they like; bytes that aren't UTF-8 go as well.
    line = "".join(character for character in line if character.isprintable()).strip()
    if not line:
        return
    if not guest.context.name:
        guest.context.timer.kill()
        join(guest, line)
    elif line == "/who":
        guest.send(", ".join(names()))
    elif line == "/quit":
        guest.close("goodbye")
    else:
        server.broadcast(f"{guest.context.name}: {line}", without=guest)


def join(guest: TextConnection, name: str) -> None:
    if name in names():
        guest.close(f"there is a {name} already")
        return
    guest.context.name = name
    guest.send(f"hello {name}; /who lists who is here, /quit leaves")
    server.broadcast(f"{name} has come", without=guest)


def on_close(guest: TextConnection) -> None:
    guest.context.timer.kill()
    if guest.context.name:
        server.broadcast(f"{guest.context.name} has left")


def names() -> list[str]:
    return sorted(one.context.name for one in server.connections.values() if one.context.name)


server = TextServer(
    os.environ.get("LISTEN", "Text://127.0.0.1:5678"),
    on_message,
    on_connect=on_connect,
    on_close=on_close,
    on_buffer_full=TextConnection.destroy,  # who doesn't read what is said costs no memory
    on_start=lambda server: print(f"nc {server.addresses[0].host} {server.addresses[0].port}", flush=True),
    limits=Limits(max_line=1_000, max_unsent=4_000_000, idle_timeout=3_600, max_connections_per_address=100),
)

if __name__ == "__main__":
    server.serve_forever()
