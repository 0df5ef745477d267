import polars as pl

frame = pl.DataFrame({"a": ["x", "y", "x"], "b": [1, 2, 3]})
repr(frame.lazy().group_by("a").agg(pl.col("b").sum()).sort("a").collect())
