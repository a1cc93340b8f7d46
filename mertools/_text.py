"""Names from files as they are shown: what is in a table must not steer a terminal, a page or a figure."""

from __future__ import annotations


def shown(text: str, longest: int | None = None) -> str:
    r"""Text with escapes in the place of all that does not print: control characters, turns of the writing direction.

    Args:
        text: a name or a message.
        longest: cut the middle out of longer ones.

    Examples:
        >>> print(shown("clip\x1b]0;owned\x07.mp4"), shown("a" * 100, longest=9))
        clip\x1b]0;owned\x07.mp4 aaaa…aaaa
    """
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    if longest is not None and len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[len(text) - half :]}"
    return text
