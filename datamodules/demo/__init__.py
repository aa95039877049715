"""The offline demo corpus: rendered sound with exact labels, laid out like the real datasets."""
