"""How much memory the processes of a server take, shared pages divided among those that share them.

python memory.py PID        (of `greentask serve`, which tells it)
"""

import sys

import psutil


def main() -> None:
    server = psutil.Process(int(sys.argv[1]))
    total = 0.0
    for process in [server, *server.children(recursive=True)]:
        memory = process.memory_full_info()
        total += memory.pss
        name = " ".join(process.cmdline()).strip()[:60]
        print(f"{process.pid:>8}  {memory.rss / 1e6:8.1f} MB resident  {memory.pss / 1e6:8.1f} MB of its own  {name}")
    print(f"{total / 1e6:.1f} MB in all")


if __name__ == "__main__":
    main()
