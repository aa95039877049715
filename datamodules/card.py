"""A dataset's card: title, licence, citation, and how its files are obtained.

Conventions: a card is data, in the file of its dataset; `mirprobe data` prints it, `mirprobe fetch`
follows it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file that a public archive keeps under a stable address.

    Attributes:
        url: where it is.
        path: where it goes below the dataset's folder. A `.zip` or tar archive is unpacked into the
            folder that `path` is in, and then deleted; X.zip.001, X.zip.002, ... are volumes of one
            archive.
        sha256: of the file, or empty where only `md5` is published.
        md5: of the file, or empty.
        n_bytes: its size, or None where it is not known.
    """

    url: str
    path: str
    sha256: str = ""
    md5: str = ""
    n_bytes: int | None = None


@dataclass(frozen=True)
class Card:
    """A dataset in words.

    Attributes:
        title: name and year.
        licence: of audio and labels, `not stated` where the source has none.
        citation: the paper to cite.
        obtain: how to get it by hand, line by line, with the folders that the loader expects.
        archives: what `mirprobe fetch` downloads; empty where there is no stable public archive.
    """

    title: str
    licence: str
    citation: str
    obtain: str
    archives: tuple[Archive, ...] = ()
