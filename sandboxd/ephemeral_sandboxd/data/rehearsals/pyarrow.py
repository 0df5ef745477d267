import io
import sys

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as parquet

table = pa.table({"a": [1, 2], "b": ["x", "y"]})
file = io.BytesIO()
parquet.write_table(table, file)
file.seek(0)
parquet.read_table(file).to_pydict()
if "pandas" in sys.modules:
    import pandas as pd

    file = io.BytesIO()
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}).to_parquet(file, engine="pyarrow")
    file.seek(0)
    pd.read_parquet(file, engine="pyarrow")
