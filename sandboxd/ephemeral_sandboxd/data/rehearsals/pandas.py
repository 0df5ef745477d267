import io

import pandas as pd

frame = pd.read_csv(io.StringIO("a,b,d\nx,1,2024-01-01\ny,2,2024-01-02\nx,3.5,\n"))
frame["d"] = pd.to_datetime(frame["d"])
repr(frame)
repr(frame.groupby("a")["b"].agg(["mean", "sum"]))
repr(frame.describe())
frame.sort_values("b").merge(frame, on="a").pivot_table(index="a", values="b_x").to_string()
frame._repr_html_()
