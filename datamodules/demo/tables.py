"""Tables of labels as text: the one writer of CSV and TSV in the demo corpus."""

import csv
import io
from collections.abc import Iterable, Sequence


def table_text(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    delimiter: str = ",",
    quote_all: bool = False,
) -> str:
    r"""A table with a header; lines end with `\n`, as in the real datasets' files.

    Args:
        header: names of the columns.
        rows: cells of each line.
        delimiter: between two cells.
        quote_all: quotes every cell, instead of those that need it.

    >>> table_text(("id", "title"), [(7, "Yes, no"), (8, "So")])
    'id,title\n7,"Yes, no"\n8,So\n'
    >>> table_text(("id", "title"), [(7, "Yes, no")], delimiter="\t", quote_all=True)
    '"id"\t"title"\n"7"\t"Yes, no"\n'
    """
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=delimiter,
        quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
        lineterminator="\n",
    )
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
