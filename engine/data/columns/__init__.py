"""From the typed columns of a table to model input: selection, kinds, missing values, encoding, and what is said about them.

Readers produce a :class:`~epochtop.engine.data.tables.column.Table`. `selection` says what the settings ask of its columns,
`kinds` infers the others, `row_numbers` finds those that only number the rows, `targets` makes the labels, `assembly` the
matrix of raw values. After the split, `fitting` fits encodings on the training rows, and `encoding` applies them, also to new
rows (`new_rows`). Never imports torch, and never reads a file.
"""
