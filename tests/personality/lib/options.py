"""getopt(3), without the import of gettext that the library's own brings: these programs start often."""

from __future__ import annotations


class GetoptError(Exception):
    """An option that there is not, or without its argument."""

    def __init__(self, opt: str) -> None:
        super().__init__(opt)
        self.opt = opt


def getopt(argv: list[str], letters: str) -> tuple[list[tuple[str, str]], list[str]]:
    """As getopt.getopt: it stops at the first operand; there are no long options on FreeBSD."""
    given: list[tuple[str, str]] = []
    at = 0
    while at < len(argv) and argv[at].startswith("-") and argv[at] != "-":
        word = argv[at]
        at += 1
        if word == "--":
            break
        while len(word) > 1:
            letter = word[1]
            place = letters.find(letter)
            if place < 0 or letter in ":-":
                raise GetoptError(letter)
            if not letters.startswith(":", place + 1):
                given.append((f"-{letter}", ""))
                word = "-" + word[2:]
                continue
            if word[2:]:
                given.append((f"-{letter}", word[2:]))
            elif at < len(argv):
                given.append((f"-{letter}", argv[at]))
                at += 1
            else:
                raise GetoptError(letter)
            break
    return given, argv[at:]
