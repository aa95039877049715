"""Hop and least length of a network, told by how many frames clips of some lengths give.

Conventions: lengths are in samples. Asked is a function from the length of a clip to its number of
frames, 0 where the network refuses it.
"""

from collections.abc import Callable

from datamodules.errors import UserError

SHORT_S, LONG_S = 2, 4  # of the two clips


def find_hop(n_frames: Callable[[int], int], sample_rate: int) -> int:
    """Samples from frame to frame.

    Between the shortest clips that give as many frames as those of 2 and of 4 s: numbers of frames
    alone are rounded, and gave 1297 in place of 1280 over a second.

    Args:
        n_frames: of a clip of so many samples.
        sample_rate: in Hz.

    Raises:
        UserError: frames do not follow the length of the clip, or lie no whole number apart.

    >>> find_hop(lambda n_samples: (n_samples - 400) // 320 + 1, 16_000)
    320
    """
    short, long = SHORT_S * sample_rate, LONG_S * sample_rate
    n_short, n_long = n_frames(short), n_frames(long)
    if n_short == n_long:
        raise UserError(
            f"it is of a fixed length ({n_short} frames for {SHORT_S} s as for {LONG_S} s): what a "
            "clip does not fill is padding, as in Whisper and AST"
        )

    # Two hops less give a frame less, at least.
    two_hops = 2 * -(-(long - short) // max(1, n_long - n_short))
    span = find_least(n_frames, n_long, above=long - two_hops, at_most=long) - find_least(
        n_frames, n_short, above=max(0, short - two_hops), at_most=short
    )
    hop, rest = divmod(span, n_long - n_short)
    if hop < 1 or rest:
        raise UserError(f"its frames are no whole number of samples apart, near {hop}")
    return hop


def find_least(n_frames: Callable[[int], int], n: int, *, above: int, at_most: int) -> int:
    """The shortest clip that gives `n` frames, by bisection.

    Args:
        n_frames: of a clip of so many samples.
        n: number of frames.
        above: a length that gives fewer.
        at_most: a length that gives as many.

    >>> find_least(lambda n_samples: (n_samples - 400) // 320 + 1, 1, above=0, at_most=32_000)
    400
    """
    while at_most - above > 1:
        middle = (above + at_most) // 2
        if n_frames(middle) >= n:
            at_most = middle
        else:
            above = middle
    return at_most
