"""Readers of the formats that keypoints come in: each a function `read_x(path, **options) -> RowTable`.

The table of them is `mmkp.data.READERS`.
"""
